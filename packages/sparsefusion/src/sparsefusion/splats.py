"""Gaussians for what a field shows, so that viewers of splats can show it: sampled from its density, then fitted."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsefusion.cameras import Cameras
from sparsefusion.data.colmap import FLIP, WorldTransform
from sparsefusion.errors import InputError
from sparsefusion.field.network import Field
from splat_render import Camera, Gaussians, rasterize

MIN_OPACITY = 0.05
"""Cells that let more light through than this leaves get no Gaussian."""

SPREAD = 0.6
"""Standard deviation of a Gaussian, in cells."""

LEARNING_RATES = {"means": 0.02, "log_scales": 0.02, "quats_wxyz": 0.005, "logit_opacities": 0.05, "sh0": 0.02}
"""Of Adam, by parameter; that of the centers in cells."""


@torch.no_grad()
def field_gaussians(
    field: Field, R_world_axes: Float[Tensor, "3 3"], *, extent: float | None = None, resolution: int = 64
) -> Gaussians:
    """One round Gaussian for every cell of a grid in which the field is dense enough.

    Args:
        R_world_axes: Rotation of the camera whose axes the field has: ``p_field = p_world @ R``.
        extent: Half of the side of the grid, in the field's units; by default that of the field, 2.5 at most.
        resolution: Cells per side.
    """
    extent = min(2.5, field.config.bound) if extent is None else extent
    cell = 2 * extent / resolution
    line = torch.linspace(-extent + cell / 2, extent - cell / 2, resolution, device=field.aabb_train.device)
    found, colors, opacities = [], [], []
    for x in line:
        points = torch.cartesian_prod(x[None], line, line)
        densities, rgb = field(points)
        opacity = 1 - torch.exp(-densities * cell)
        chosen = opacity > MIN_OPACITY
        found.append(points[chosen])
        colors.append(rgb[chosen])
        opacities.append(opacity[chosen])
    points = torch.cat(found) @ R_world_axes.to(line.device).T
    if not len(points):
        raise InputError("the field is empty: nothing of it can be written as Gaussians")
    count = len(points)
    return Gaussians.from_rgb(
        means=points.float().cpu(),
        quats_wxyz=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4).contiguous(),
        scales=torch.full((count, 3), SPREAD * cell),
        opacities=torch.cat(opacities).cpu(),
        rgb=torch.cat(colors).cpu(),
    )


def pinhole(camera: Cameras, size: int) -> Camera:
    """One camera in OpenCV's axes, with intrinsics in pixels of a square image."""
    T_cam_world = np.eye(4)
    flip = FLIP.numpy()
    T_cam_world[:3, :3] = (camera.R[0].cpu().numpy() * flip).T
    T_cam_world[:3, 3] = camera.T[0].cpu().numpy() * flip
    focal = camera.focal[0].cpu().double().numpy() * size / 2
    principal = size / 2 - camera.principal[0].cpu().double().numpy() * size / 2
    K = np.array([[focal[0], 0, principal[0]], [0, focal[1], principal[1]], [0, 0, 1.0]])
    return Camera(T_world_cam=np.linalg.inv(T_cam_world), K=K, width=size, height=size)


@torch.enable_grad()
def fit_gaussians(
    gaussians: Gaussians,
    cameras: Cameras,
    rgb: Float[Tensor, "n 3 s s"],
    alpha: Float[Tensor, "n 1 s s"],
    *,
    num_steps: int = 100,
    seed: int = 0,
) -> Gaussians:
    """Move, resize and color Gaussians until their renders look like the given ones; their number stays.

    Args:
        cameras: Of the renders, in the Gaussians' world.
        rgb: Renders before black, in [0, 1].
        alpha: Opacities of the renders, in [0, 1].
        seed: Of the order of the renders.
    """
    moved = {entry.name: getattr(gaussians, entry.name).detach().clone() for entry in fields(gaussians)}
    spread = float(gaussians.scales.mean())
    groups = []
    for name, rate in LEARNING_RATES.items():
        moved[name].requires_grad_()
        groups.append({"params": [moved[name]], "lr": rate * spread / SPREAD if name == "means" else rate})
    optimizer = torch.optim.Adam(groups)
    views = [pinhole(cameras[at], rgb.shape[-1]) for at in range(len(cameras))]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        at = int(torch.randint(len(views), (1,), generator=generator))
        out = rasterize(Gaussians(**moved), [views[at]])
        loss = (out.rgb[0].permute(2, 0, 1) - rgb[at]).abs().mean()
        loss = loss + (out.alpha[0].permute(2, 0, 1) - alpha[at]).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return Gaussians(**{name: value.detach() for name, value in moved.items()})


def in_photos_world(gaussians: Gaussians, transform: WorldTransform | None) -> Gaussians:
    """Gaussians of the object's world in that of the photos, where they come from a COLMAP scene."""
    if transform is None:
        return gaussians
    values = {entry.name: getattr(gaussians, entry.name) for entry in fields(gaussians)}
    values["means"] = values["means"] / transform.scale + torch.tensor(transform.center, dtype=torch.float32)
    values["log_scales"] = values["log_scales"] - float(np.log(transform.scale))
    return Gaussians(**values)
