"""Renders against photos, by a protocol; and scores of several methods side by side, where that is allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import image_metrics as metrics
from difix3d.errors import InputError
from difix3d.evaluation.protocol import Protocol, to_dict
from image_metrics import LpipsMetric, make_lpips
from media_files.masks import mask_plane
from media_files.photos import open_image, read_photo

FORMAT = "difix3d-scores"

FID_REASON = "FID needs Inception's weights and an extra that this project does not have"
LPIPS_REASON = "LPIPS is left out: its backbone is not on this machine (image_metrics.make_lpips says where)"


def score_renders(
    renders: Path, scenes: Path, protocol: Protocol, *, method: str, masked: bool = True, lpips_net: str = "vgg"
) -> Iterator[dict[str, Any]]:
    """Score ``renders/<scene>/<photo's name>.png`` against ``scenes/<scene>``; every yield is the content so far.

    Where a mask is 0, render and photo are both black, and all metrics see the whole image. Renders of another size
    are resized to the photo's, bicubic.

    Args:
        protocol: Which frames count.
        masked: Use the protocol's masks; False ignores them, which is another protocol.

    Raises:
        InputError: Photos, renders or masks are missing or broken; the first ten are named.
    """
    wanted = protocol.scenes or tuple(sorted(path.name for path in scenes.iterdir() if path.is_dir()))
    found = [name for name in wanted if (scenes / name).is_dir() and (renders / name).is_dir()]
    if not found:
        raise InputError(f"none of the scenes of {protocol.name} is in both {renders} and {scenes}")
    plan = {name: _pairs(renders / name, scenes / name, protocol, masked) for name in found}
    problems = [problem for pairs in plan.values() for *_, problem in pairs if problem]
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise InputError("; ".join(problems[:10]) + more)
    lpips = make_lpips(lpips_net)
    identity = {
        "protocol": to_dict(protocol),
        "masked": masked and protocol.masks is not None,
        "lpips": f"lpips {lpips_net}, input [-1, 1]",
        "scenes": found,
    }
    content: dict[str, Any] = {
        "format": FORMAT,
        "method": method,
        "identity": identity,
        "scenes_left_out": [name for name in wanted if name not in found],
        "fid": None,
        "reasons": {"fid": FID_REASON} | ({} if lpips else {"lpips": LPIPS_REASON}),
        "scenes": {},
    }
    for name, pairs in plan.items():
        views = {photo.name: _score(photo, render, mask, lpips) for photo, render, mask, _ in pairs}
        content["scenes"][name] = {**_mean(list(views.values())), "views": views}
        content["means"] = _mean(list(content["scenes"].values()))
        yield content


def _pairs(
    renders: Path, scene: Path, protocol: Protocol, masked: bool
) -> list[tuple[Path, Path, Path | None, str | None]]:
    pairs = []
    for place, photo in enumerate(protocol.test_photos(scene)):
        named = [renders / f"{photo.stem}{ending}" for ending in (".png", ".jpg", ".jpeg")]
        render = next((path for path in named if path.is_file()), named[0])
        mask = protocol.mask(scene, photo, place) if masked else None
        problem = None if photo.is_file() else f"the photo {photo} is absent"
        problem = problem or (None if render.is_file() else f"the render {render} is absent")
        if masked and protocol.masks is not None and mask is None:
            problem = problem or f"{scene.name}/{photo.name} has no mask in {protocol.masks} (--no-masked does without)"
        pairs.append((photo, render, mask, problem))
    return pairs


def _score(photo: Path, render: Path, mask: Path | None, lpips: LpipsMetric | None) -> dict[str, float | None]:
    truth, shown = (Image.fromarray(read_photo(path)[0]) for path in (photo, render))
    if shown.size != truth.size:
        shown = shown.resize(truth.size, Image.Resampling.BICUBIC)
    visible = None
    if mask is not None:
        marked = Image.fromarray(mask_plane(open_image(mask, upright=False)) > 0)
        visible = np.array(marked.resize(truth.size, Image.Resampling.NEAREST))
    pair = []
    for image in (shown, truth):
        rgb = torch.from_numpy(np.array(image)).float() / 255
        pair.append(rgb if visible is None else rgb * torch.from_numpy(visible)[..., None])
    return {
        "psnr": metrics.psnr(pair[0], pair[1]),
        "ssim": metrics.ssim(pair[0], pair[1], border="inside"),
        "lpips": None if lpips is None else lpips(pair[0], pair[1]),
        "flip": metrics.flip(pair[0], pair[1]),
    }


def _mean(scores: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for key in ("psnr", "ssim", "lpips", "flip"):
        values = [score[key] for score in scores]
        means[key] = None if None in values else sum(values) / len(values)
    return means


def read_scores(path: Path) -> dict[str, Any]:
    """The content of a file of scores."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} holds no scores: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} holds no scores of difix3d-eval")
    return content


def check_comparable(files: Sequence[Path], contents: Sequence[dict[str, Any]]) -> None:
    """Refuse scores that were not made in the same way.

    Raises:
        InputError: Their protocols, masks, metrics or scenes differ; it says in what.
    """
    first = _flat(contents[0]["identity"])
    for path, content in zip(files[1:], contents[1:], strict=True):
        other = _flat(content["identity"])
        names = [name for name in sorted({*first, *other}) if first.get(name) != other.get(name)]
        if names:
            what = ", ".join(f"{name} ({first.get(name)} against {other.get(name)})" for name in names[:3])
            raise InputError(f"{files[0]} and {path} cannot be compared, they were made by different protocols: {what}")


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    protocol = {f"protocol {name}": value for name, value in identity["protocol"].items()}
    return protocol | {name: value for name, value in identity.items() if name != "protocol"}
