"""Cameras to draw with: the pinholes that stand for lenses where no photo is read."""

import logging
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from splat_recon.io.field_of_view import field_of_view
from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.io.undistort import pinhole_of
from splat_render.cameras import Camera

_log = logging.getLogger(__name__)


def drawn_camera(lens: pycolmap.Camera, T_world_cam: Float64[np.ndarray, "4 4"]) -> Camera:
    """A pinhole for a lens: its own matrix where it is perspective, else the pinhole that its photos are cut to.

    Distortion is left aside. A fisheye's focal length, taken for a pinhole's, would draw another picture.
    """
    if lens.is_perspective_fisheye():
        return pinhole_of(lens, T_world_cam)
    K = np.asarray(lens.calibration_matrix(), dtype=np.float64)
    return Camera(T_world_cam=T_world_cam, K=K, width=lens.width, height=lens.height)


def say_fisheyes(lenses: Sequence[pycolmap.Camera]) -> None:
    """Warn that some lenses are drawn as pinholes, with what those lack."""
    fisheyes = [lens for lens in lenses if lens.is_perspective_fisheye()]
    if fisheyes:
        worst = min((field_of_view(lens) for lens in _distinct(fisheyes)), key=lambda field: field.kept)
        _log.warning("%d cameras are fisheyes and are drawn as pinholes: %s", len(fisheyes), worst.sentence())


def _distinct(lenses: Sequence[pycolmap.Camera]) -> list[pycolmap.Camera]:
    return list({f"{lens.model_name} {lens.width} {lens.params_to_string()}": lens for lens in lenses}.values())
