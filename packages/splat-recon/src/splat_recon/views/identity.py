"""What makes views the same data: their names and a checksum of each, so that a run does not go on with others."""

import hashlib
from weakref import WeakKeyDictionary

import numpy as np

from splat_recon.errors import InputError
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import PhotoTrainingView, TrainingView, ViewSet

_KNOWN: WeakKeyDictionary[TrainingView, str] = WeakKeyDictionary()
"""Checksums by view: views never change."""


def view_checksum(view: TrainingView) -> str:
    """SHA-256 of a view's camera, pixels and weights, in hexadecimal."""
    known = _KNOWN.get(view)
    if known is not None:
        return known
    digest = hashlib.sha256()
    for values in (view.camera.T_world_cam, view.camera.K, np.array([view.weight])):
        digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    for image in _images(view):
        digest.update(f"{image.dtype} {image.shape}".encode())
        digest.update(np.ascontiguousarray(image).tobytes())
    _KNOWN[view] = digest.hexdigest()
    return _KNOWN[view]


def _images(view: TrainingView) -> list[np.ndarray]:
    """The pixels and their weights; a photo's as bytes, a quarter of its floats."""
    if isinstance(view, PhotoTrainingView) and vars(view).get("rgb") is None and vars(view).get("pixel_weight") is None:
        found = [view.view.rgb_u8, view.view.mask]
    else:
        weight = view.pixel_weight
        found = [view.rgb.detach().cpu().numpy(), None if weight is None else weight.detach().cpu().numpy()]
    return [image for image in found if image is not None]


def views_identity(views: ViewSet | ViewMixture) -> list[list[str]]:
    """Name and checksum of every view, in the order of the sets; for a checkpoint."""
    sets = views.sets if isinstance(views, ViewMixture) else (views,)
    return [[view.name, view_checksum(view)] for view_set in sets for view in view_set]


def check_same_views(views: ViewSet | ViewMixture, identity: list[list[str]], where: str) -> None:
    """Refuse views that are not those of a run.

    Args:
        identity: What `views_identity` gave when the run was saved.

    Raises:
        InputError: Number, names, cameras, pixels or weights differ; the message names the first ten.
    """
    now = views_identity(views)
    if len(now) != len(identity):
        raise InputError(f"{where} is of other views: it has {len(identity)}, there are {len(now)}")
    problems = [
        f"expected {before[0] or 'an image without a name'}, got {after[0] or 'an image without a name'}"
        if before[0] != after[0]
        else f"{before[0] or 'an image without a name'} has another camera, other pixels or another mask"
        for before, after in zip(identity, now, strict=True)
        if list(before) != list(after)
    ]
    if problems:
        raise InputError.from_problems(f"{where} is of other views (give the photos it was started with)", problems)
