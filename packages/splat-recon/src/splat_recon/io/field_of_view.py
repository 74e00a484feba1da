"""What of a lens's field of view is left when its photos are cut to those of a pinhole."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from splat_recon.io.pycolmap_import import pycolmap
from splat_recon.io.undistort import is_pinhole, pinhole_of
from splat_render.cameras import Camera

SAID_BELOW = 0.75
"""A warning names what is cut away where less than this fraction of a photo is kept, or `ANGLE_BELOW` of its angle."""

ANGLE_BELOW = 0.9
"""Fraction of the angle of view below which a warning names what is lost."""

STEP_DEG = 0.25
"""How finely a lens is looked through for its angle."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FieldOfView:
    """A lens and the pinhole that its photos are cut to."""

    model: str
    """COLMAP's name of the lens."""

    lens_deg: float
    """Angle of view of the lens across its wider side; 180 where it sees that much or more."""

    pinhole_deg: float
    """That of the pinhole."""

    kept: float
    """Fraction of the photo's area that the pinhole shows, in [0, 1]."""

    @property
    def is_much_lost(self) -> bool:
        """Whether a user would miss it."""
        return self.kept < SAID_BELOW or self.pinhole_deg < ANGLE_BELOW * self.lens_deg

    def sentence(self) -> str:
        """What is cut away, in words."""
        more = " or more" if self.lens_deg >= 180 else ""
        return (
            f"{self.model} sees {self.lens_deg:.0f} degrees{more} across; a pinhole without blank pixels keeps an "
            f"angle of view of {self.pinhole_deg:.0f}, and {1 - self.kept:.0%} of each photo are cut away"
        )


def field_of_view(lens: pycolmap.Camera) -> FieldOfView:
    """Compare a lens with its pinhole."""
    pinhole = pinhole_of(lens, np.eye(4))
    sides = [_angle_deg(lens, direction) for direction in ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))]
    K = pinhole.K
    left, top = K[0, 2] / K[0, 0], K[1, 2] / K[1, 1]
    right, bottom = pinhole.width / K[0, 0] - left, pinhole.height / K[1, 1] - top
    kept_sides = np.degrees(np.arctan([left, right, top, bottom]))
    across = slice(0, 2) if sum(sides[:2]) >= sum(sides[2:]) else slice(2, 4)
    return FieldOfView(
        model=lens.model_name,
        lens_deg=float(sum(sides[across])),
        pinhole_deg=float(kept_sides[across].sum()),
        kept=_area_kept(lens, pinhole),
    )


def say_what_is_cut_away(lenses: Iterable[pycolmap.Camera]) -> None:
    """Tell the log what undistortion costs: the worst of the lenses, as a warning where it is much.

    Args:
        lenses: One per photo.
    """
    counts: dict[str, tuple[pycolmap.Camera, int]] = {}
    for lens in lenses:
        if not is_pinhole(lens):
            key = f"{lens.model_name} {lens.width} {lens.height} {lens.params_to_string()}"
            counts[key] = (lens, counts.get(key, (lens, 0))[1] + 1)
    fields = [(field_of_view(lens), count) for lens, count in counts.values()]
    much = [(field, count) for field, count in fields if field.is_much_lost]
    if much:
        worst = min((field for field, _ in much), key=lambda field: field.kept)
        num = sum(count for _, count in much)
        _log.warning("%d photos are of a lens that sees more than a pinhole can: %s", num, worst.sentence())
    elif fields:
        worst = min((field for field, _ in fields), key=lambda field: field.kept)
        _log.info("photos are undistorted: %s", worst.sentence())


def _angle_deg(lens: pycolmap.Camera, direction: tuple[float, float]) -> float:
    """The angle from the optical axis to the image's border in a direction; 90 where it is not reached before."""
    theta = np.radians(np.arange(STEP_DEG, 90, STEP_DEG))
    across = np.sin(theta)[:, None] * np.array(direction)
    xy_px = np.asarray(lens.img_from_cam(np.concatenate([across, np.cos(theta)[:, None]], axis=1)))
    size = np.array([lens.width, lens.height])
    inside = ((xy_px >= 0) & (xy_px <= size)).all(axis=1)
    return 90.0 if inside.all() else float(STEP_DEG * (1 + np.argmin(inside)))


def _area_kept(lens: pycolmap.Camera, pinhole: Camera) -> float:
    """Area of the part of the lens's image that the pinhole's border encloses."""
    border = _border(pinhole.width, pinhole.height)
    rays = np.concatenate([border, np.ones((len(border), 1))], axis=1) @ np.linalg.inv(pinhole.K).T
    x, y = np.asarray(lens.img_from_cam(rays)).T
    area = 0.5 * abs(float(np.nansum(x * np.roll(y, -1) - y * np.roll(x, -1))))
    return min(area / (lens.width * lens.height), 1.0)


def _border(width: int, height: int, count: int = 64) -> Float64[np.ndarray, "n 2"]:
    """Points around an image, in order."""
    t = np.linspace(0, 1, count, endpoint=False)[:, None]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    return np.concatenate([a + t * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)])
