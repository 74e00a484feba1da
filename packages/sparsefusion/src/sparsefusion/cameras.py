"""Cameras in PyTorch3D's convention, in plain torch.

Points are row vectors: ``p_cam = p_world @ R + T``. Camera axes are x left, y up, z forward. Normalized device
coordinates (NDC) are ``focal * (x, y) / z + principal``; they run from 1 at the left and the top to -1 at the right
and the bottom of a square image. This is the convention of CO3D and of the published weights; conversions from other
conventions happen in ``sparsefusion.data``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

DEPTH_MARGIN = 5.0
"""The published depth range reaches this far before and behind the mean distance of the cameras from the origin."""

MIN_DEPTH = 1e-8
"""Depths are moved away from zero by this much before the division of a projection."""

Frame = Literal["camera", "axes"]
"""What a relative camera keeps: "camera" makes the reference camera the identity, "axes" turns the world into the
reference's axes and leaves the origin where it is."""


@dataclass(frozen=True)
class Cameras:
    """Several pinhole cameras of square images, in PyTorch3D's convention."""

    R: Float[Tensor, "n 3 3"]
    """Rotations: ``p_cam = p_world @ R + T``."""

    T: Float[Tensor, "n 3"]
    """Translations, in the camera's frame."""

    focal: Float[Tensor, "n 2"]
    """Focal lengths in NDC: half the image's side is 1."""

    principal: Float[Tensor, "n 2"]
    """Principal points in NDC, x to the left and y up."""

    def __len__(self) -> int:
        return self.R.shape[0]

    def __getitem__(self, which: int | slice | Sequence[int] | Tensor) -> Cameras:
        """The chosen cameras; an integer gives one, still with its leading axis."""
        if isinstance(which, int):
            which = [which]
        elif isinstance(which, Sequence):
            which = list(which)
        return Cameras(self.R[which], self.T[which], self.focal[which], self.principal[which])

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device."""
        return Cameras(*(part.to(device) for part in (self.R, self.T, self.focal, self.principal)))

    @property
    def centers(self) -> Float[Tensor, "n 3"]:
        """Where the cameras stand, in the world."""
        return -torch.einsum("ni,nji->nj", self.T, self.R)

    def project(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "n p 2"]:
        """NDC of points of the world in every camera.

        Depths closer to zero than ``MIN_DEPTH`` count as ``MIN_DEPTH`` of the same sign; points behind a camera
        project mirrored, as they do in PyTorch3D.
        """
        p_cam = torch.einsum("pi,nij->npj", points, self.R) + self.T[:, None]
        z = p_cam[..., 2:]
        sign = torch.where(z < 0, -1.0, 1.0)
        z = sign * z.abs().clamp_min(MIN_DEPTH)
        return self.focal[:, None] * p_cam[..., :2] / z + self.principal[:, None]

    def depths(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, "n p"]:
        """Depths along z of points of the world in every camera."""
        return torch.einsum("pi,ni->np", points, self.R[:, :, 2]) + self.T[:, None, 2]

    def relative_to(self, reference: Cameras, frame: Frame) -> Cameras:
        """The same cameras, in the axes of a reference camera.

        Args:
            frame: "camera" puts the origin at the reference, which becomes the identity (what the transformer sees);
                "axes" turns the axes only (what the field sees).
        """
        R = torch.einsum("ij,njk->nik", reference.R[0].T, self.R)
        T = self.T
        if frame == "camera":
            T = T - torch.einsum("i,nij->nj", reference.T[0], R)
        return Cameras(R, T, self.focal, self.principal)


def concatenate(cameras: Sequence[Cameras]) -> Cameras:
    """All cameras, one after the other."""
    return Cameras(
        torch.cat([one.R for one in cameras]),
        torch.cat([one.T for one in cameras]),
        torch.cat([one.focal for one in cameras]),
        torch.cat([one.principal for one in cameras]),
    )


@dataclass(frozen=True)
class Rays:
    """Rays of several cameras: a point on a ray is ``origin + depth * direction``."""

    origins: Float[Tensor, "n h w 3"]
    """Centers of the cameras."""

    directions: Float[Tensor, "n h w 3"]
    """Directions whose depth along the camera's z is 1; they are not of length 1."""


def grid_ndc(num: int, image_size: int, device: torch.device | str = "cpu") -> Float[Tensor, "h w 2"]:
    """NDC of a grid of ``num`` x ``num`` points that spans the pixel centers of an image.

    The outermost points are the centers of the outermost pixels of an image of ``image_size``, whatever ``num`` is:
    a coarser grid is therefore not at the centers of coarser pixels. The published system samples like this.
    """
    reach = 1 - 1 / image_size
    line = torch.linspace(reach, -reach, num, device=device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1)


def grid_rays(cameras: Cameras, num: int, image_size: int = 256) -> Rays:
    """Rays through a grid of ``num`` x ``num`` points of every camera's image.

    Args:
        num: Rays per side.
        image_size: Side of the image whose pixel centers the grid spans (see `grid_ndc`).
    """
    xy = grid_ndc(num, image_size, cameras.R.device)
    slopes = (xy - cameras.principal[:, None, None]) / cameras.focal[:, None, None]
    dir_cam = torch.cat([slopes, torch.ones_like(slopes[..., :1])], dim=-1)
    directions = torch.einsum("nhwi,nji->nhwj", dir_cam, cameras.R)
    return Rays(cameras.centers[:, None, None].expand_as(directions), directions)


def depth_range(cameras: Cameras, margin: float = DEPTH_MARGIN) -> tuple[float, float]:
    """Nearest and farthest depth: the mean distance of the cameras from the origin, a margin to either side."""
    distance = cameras.centers.norm(dim=-1).mean().item()
    return distance - margin, distance + margin


def look_at(
    eyes: Float[Tensor, "n 3"], target: Float[Tensor, " 3"], up: Float[Tensor, " 3"]
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]:
    """Rotations and translations of cameras that stand at ``eyes`` and look at a point."""
    z = torch.nn.functional.normalize(target - eyes, dim=-1)
    x = torch.nn.functional.normalize(torch.linalg.cross(up.expand_as(z), z), dim=-1)
    y = torch.nn.functional.normalize(torch.linalg.cross(z, x), dim=-1)
    R = torch.stack([x, y, z], dim=-1)
    return R, -torch.einsum("ni,nij->nj", eyes, R)


def nearest_to_axes(cameras: Cameras) -> Float[Tensor, " 3"]:
    """The point nearest to all rays through the cameras' mean principal point, in least squares."""
    slopes = (cameras.principal.mean(dim=0) - cameras.principal) / cameras.focal
    dir_cam = torch.cat([slopes, torch.ones_like(slopes[:, :1])], dim=-1)
    direction = torch.nn.functional.normalize(torch.einsum("ni,nji->nj", dir_cam, cameras.R), dim=-1)
    across = torch.eye(3, device=direction.device) - direction[:, :, None] * direction[:, None]
    return torch.linalg.lstsq(across.sum(dim=0), (across @ cameras.centers[..., None]).sum(dim=0)).solution[:, 0]


@dataclass(frozen=True)
class Circle:
    """A circle through cameras, in least squares."""

    center: Float[Tensor, " 3"]
    radius: float
    normal: Float[Tensor, " 3"]
    """Its normal, which points down: against the cameras' y axes."""


def fit_circle(cameras: Cameras) -> Circle:
    """The circle nearest to the cameras' centers: least squares within the plane that is nearest to them."""
    centers = cameras.centers
    mean = centers.mean(dim=0)
    first, second, normal = torch.linalg.svd(centers - mean).Vh
    if normal @ cameras.R[:, :, 1].mean(dim=0) > 0:
        normal = -normal
    plane = (centers - mean) @ torch.stack([first, second], dim=-1)
    system = torch.cat([2 * plane, torch.ones_like(plane[:, :1])], dim=-1)
    solution = torch.linalg.lstsq(system, plane.square().sum(dim=-1, keepdim=True)).solution[:, 0]
    radius = (solution[2] + solution[:2].square().sum()).sqrt().item()
    return Circle(mean + solution[0] * first + solution[1] * second, radius, normal)


def circle_cameras(
    cameras: Cameras,
    count: int,
    *,
    tilts: Float[Tensor, " count"] | None = None,
    as_published: bool = True,
    target: Float[Tensor, " 3"] | None = None,
) -> Cameras:
    """Cameras on the circle through given cameras, that look at what these look at.

    The circle starts at the first camera and ends there again; focal length and principal point are the means.

    Args:
        cameras: Cameras around an object, at least three.
        tilts: Angles by which each camera is moved up and down, in radians; None leaves all on the circle.
        as_published: The published system normalizes the tilts' axes over all cameras together instead of one by one,
            so that cameras tilt about ``sqrt(count)`` times less and come a little nearer; False tilts by the angle.
        target: What they look at instead, in the middle of their images: crops of photos have their principal points
            anywhere, and the mean of these would show the object off the middle.
    """
    circle = fit_circle(cameras)
    angles = torch.linspace(0, 2 * torch.pi, count, device=cameras.R.device)[:, None]
    start = torch.nn.functional.normalize(cameras.centers[0] - circle.center, dim=-1)
    side = torch.linalg.cross(circle.normal, start)
    eyes = circle.center + circle.radius * (angles.cos() * start + angles.sin() * side)
    if tilts is not None:
        axes = torch.linalg.cross(eyes, circle.normal.expand_as(eyes))
        axes = axes / (axes.norm() if as_published else axes.norm(dim=-1, keepdim=True))
        cos, sin = tilts[:, None].cos(), tilts[:, None].sin()
        along = axes * (axes * eyes).sum(dim=-1, keepdim=True)
        eyes = eyes * cos + torch.linalg.cross(axes, eyes) * sin + along * (1 - cos)
    principal = cameras.principal.mean(dim=0) if target is None else torch.zeros_like(cameras.principal[0])
    R, T = look_at(eyes, nearest_to_axes(cameras) if target is None else target, -circle.normal)
    return Cameras(R, T, cameras.focal.mean(dim=0).expand(count, 2), principal.expand(count, 2))
