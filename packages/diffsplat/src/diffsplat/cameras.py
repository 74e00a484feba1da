"""DiffSplat's cameras: orbits, rays and the frame of view 0.

The world has y up. Networks and renderer take OpenCV cameras (x right, y down, z forward); OpenGL's (y up, z back)
exist in files only. Intrinsics `fxfycxcy` are shares of the image's width and height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

FOCAL = 1422.222 / 1024
"""Focal length of every camera over the image's side: a field of view of 39.6 degrees."""

RADIUS = 1.4
"""Distance of the canonical cameras from the origin."""

AZIMUTHS_DEG = (0.0, 90.0, 180.0, 270.0)
"""Where the four input views stand."""


def orbit_camera(elevation_deg: float, azimuth_deg: float, radius: float = RADIUS) -> Float[Tensor, "4 4"]:
    """`T_world_cam` in OpenCV's axes of a camera on an orbit that looks at the origin.

    Args:
        elevation_deg: In the released code's sign: **negative is above the horizon**.
        azimuth_deg: At 0 the camera stands on the positive z axis, at 90 on the positive x axis.
        radius: Distance from the origin.
    """
    elevation, azimuth = math.radians(elevation_deg), math.radians(azimuth_deg)
    sin_e, cos_e, sin_a, cos_a = math.sin(elevation), math.cos(elevation), math.sin(azimuth), math.cos(azimuth)
    backward = (cos_e * sin_a, -sin_e, cos_e * cos_a)
    right = (cos_a, 0.0, -sin_a)
    down = (-sin_e * sin_a, -cos_e, -sin_e * cos_a)
    rows = [[right[i], down[i], -backward[i], radius * backward[i]] for i in range(3)]
    return torch.tensor([*rows, [0.0, 0.0, 0.0, 1.0]])


def orbit_rig(
    elevation_deg: float, azimuths_deg: Sequence[float] = AZIMUTHS_DEG, radius: float = RADIUS
) -> Float[Tensor, "v 4 4"]:
    """Cameras at several azimuths; the elevation's sign is that of `orbit_camera`."""
    return torch.stack([orbit_camera(elevation_deg, azimuth, radius) for azimuth in azimuths_deg])


def canonical_intrinsics(num_views: int) -> Float[Tensor, "v 4"]:
    """`fxfycxcy` of the canonical cameras."""
    return torch.tensor([FOCAL, FOCAL, 0.5, 0.5]).repeat(num_views, 1)


def flipped_axes(T_world_cam: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """OpenGL's cameras from OpenCV's or the other way round: y and z change their signs."""
    return T_world_cam * T_world_cam.new_tensor([1.0, -1.0, -1.0, 1.0])


def plucker_rays(
    height: int,
    width: int,
    T_world_cam: Float[Tensor, "*b 4 4"],
    fxfycxcy: Float[Tensor, "*b 4"],
    *,
    as_released: bool = True,
) -> Float[Tensor, "*b 6 h w"]:
    """Pluecker coordinates of every pixel's ray: moment `origin x direction`, then the unit direction.

    Args:
        height: Rows.
        width: Columns.
        T_world_cam: OpenCV cameras.
        fxfycxcy: Shares of the image's size.
        as_released: The released weights were trained with rays that are off by half an image (the pixel's place
            runs over [0, 1] and half a width is added); False gives the rays through pixel centers.
    """
    origins, directions = pixel_rays(height, width, T_world_cam, fxfycxcy, as_released=as_released)
    moments = torch.cross(origins, directions, dim=-3)
    return torch.cat([moments, directions], dim=-3)


def pixel_rays(
    height: int,
    width: int,
    T_world_cam: Float[Tensor, "*b 4 4"],
    fxfycxcy: Float[Tensor, "*b 4"],
    *,
    as_released: bool = True,
) -> tuple[Float[Tensor, "*b 3 h w"], Float[Tensor, "*b 3 h w"]]:
    """Origins and unit directions of every pixel's ray in the world; see `plucker_rays`."""
    device, dtype = T_world_cam.device, T_world_cam.dtype
    if as_released:
        u = torch.arange(width, device=device, dtype=dtype) / (width - 1) + 0.5
        v = torch.arange(height, device=device, dtype=dtype) / (height - 1) + 0.5
    else:
        u = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
        v = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
    dirs_cam = _pixel_directions(u, v, fxfycxcy)
    dirs_cam = dirs_cam / dirs_cam.norm(dim=-3, keepdim=True)
    dirs_world = torch.einsum("...ij,...jhw->...ihw", T_world_cam[..., :3, :3], dirs_cam)
    origins = T_world_cam[..., :3, 3, None, None].expand_as(dirs_world)
    return origins, dirs_world


def _pixel_directions(u: Tensor, v: Tensor, fxfycxcy: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 h w"]:
    """Camera-frame directions of z = 1 through places `u` and `v`, which are shares of the image's size."""
    fx, fy, cx, cy = (value[..., None] for value in fxfycxcy.unbind(dim=-1))
    x, y = (u - cx) / fx, (v - cy) / fy
    x = x[..., None, :].expand(*x.shape[:-1], y.shape[-1], x.shape[-1])
    y = y[..., :, None].expand(x.shape)
    return torch.stack([x, y, torch.ones_like(x)], dim=-3)


def unprojected(
    depth: Float[Tensor, "*b h w"], T_world_cam: Float[Tensor, "*b 4 4"], fxfycxcy: Float[Tensor, "*b 4"]
) -> Float[Tensor, "*b 3 h w"]:
    """World coordinates of pixels at z-depths.

    The pixels' places run over [0, 1] from the first to the last, as in the released code.
    """
    height, width = depth.shape[-2:]
    u = torch.arange(width, device=depth.device, dtype=depth.dtype) / (width - 1)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype) / (height - 1)
    p_cam = _pixel_directions(u, v, fxfycxcy) * depth[..., None, :, :]
    p_world = torch.einsum("...ij,...jhw->...ihw", T_world_cam[..., :3, :3], p_cam)
    return p_world + T_world_cam[..., :3, 3, None, None]


def in_frame_of_view_0(
    T_world_cam: Float[Tensor, "*b v 4 4"], radius: float | None = None
) -> Float[Tensor, "*b v 4 4"]:
    """OpenGL cameras moved together so that view 0 stands on the z axis, upright, looking at the origin.

    Args:
        T_world_cam: OpenGL cameras.
        radius: Distance of view 0; None keeps what it has.
    """
    first = T_world_cam[..., 0, :, :]
    target = torch.eye(4, dtype=first.dtype, device=first.device).expand(first.shape).clone()
    target[..., 2, 3] = first[..., :3, 3].norm(dim=-1) if radius is None else radius
    T_new_world = target @ torch.linalg.inv(first)
    return T_new_world[..., None, :, :] @ T_world_cam


def normals_in_frame_of_view_0(
    normals: Float[Tensor, "*b v 3 h w"], T_world_cam: Float[Tensor, "*b v 4 4"]
) -> Float[Tensor, "*b v 3 h w"]:
    """World normals turned as `in_frame_of_view_0` turns OpenGL cameras."""
    R_new_world = T_world_cam[..., 0, :3, :3].transpose(-1, -2)
    return torch.einsum("...ij,...vjhw->...vihw", R_new_world, normals)
