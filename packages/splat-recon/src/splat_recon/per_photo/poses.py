"""Poses of training photos that are learned with the splat.

The correction of a photo is three angles w and a shift t (in units of the scene's extent), in the camera's own frame:
T_world_cam becomes T_world_cam [exp(w) | extent t]. The rasterizer is called with the corrected camera and need not
know: a picture does not change when camera and splat move together, so the gradient with respect to the camera is that
with respect to a motion of the splat, reversed, and the latter is a sum over the Gaussians' own gradients.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from splat_recon.per_photo.configs import PoseConfig
from splat_recon.per_photo.table import PerViewEmbedding
from splat_render.cameras import Camera
from splat_render.gaussians import Gaussians
from splat_render.poses import rigid, rotation_angle
from splat_render.transform import harmonic_rotation
from splat_render.upload import uploaded

GENERATOR_ANGLE_RAD = 1e-4
"""Half the angle over which rotations of spherical harmonics are differentiated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseChange:
    """How far refinement moved one camera."""

    rotation_deg: float
    """Angle between the pose that was given and the one that was learned."""

    translation: float
    """Distance of the centers, in scene units."""


class PoseRefinement:
    """Corrections of the poses of training photos.

    Only what differs between photos is learned: a motion or a scale that all of them share would move the splat out
    of the frame that test photos and the export live in, so the mean is taken out after each step.

    Args:
        poses: T_world_cam of the training photos as given, by name.
        extent: Size of the scene in scene units.

    The corrections live on the CPU, where cameras are: a step on CUDA brings six numbers back, and none over.
    """

    def __init__(
        self,
        config: PoseConfig,
        poses: Mapping[str, Float64[np.ndarray, "4 4"]],
        *,
        extent: float,
        max_steps: int,
        rate_factor: float,
    ) -> None:
        self.config = config
        self._extent = extent
        given = torch.from_numpy(np.stack(list(poses.values()))).float() if poses else torch.zeros(0, 4, 4)
        self._R_world_cam = given[:, :3, :3].contiguous()
        self._offsets = given[:, :3, 3] - given[:, :3, 3].mean(dim=0)
        rates = 3 * [config.rotation_rate] + 3 * [config.translation_rate]
        self.table = PerViewEmbedding(
            tuple(poses),
            (6,),
            rate=rate_factor * torch.tensor(rates),
            final_ratio=config.rate_final_ratio,
            max_steps=max_steps,
            device="cpu",
        )
        self._stopped = False

    def step(self, step: int) -> None:
        """Learn from the gradients of a step, counted from 0; nothing from the first one on that is not finite."""
        self._stopped = self._stopped or not self.table.has_finite_gradients()
        if self._stopped:
            self.table.forget()
            return
        self.table.step(step)
        if len(self.table.names) > 1:
            self._take_out_the_mean()

    @torch.no_grad()
    def _take_out_the_mean(self) -> None:
        values = self.table.values
        turns = torch.einsum("nij,nj->ni", self._R_world_cam, values[:, :3])
        shifts = torch.einsum("nij,nj->ni", self._R_world_cam, values[:, 3:])
        offsets = self._offsets / self._extent
        turn = turns.mean(dim=0)
        shifts = shifts - shifts.mean(dim=0) - torch.linalg.cross(turn.expand_as(offsets), offsets)
        stretch = (shifts * offsets).sum() / (offsets * offsets).sum().clamp_min(1e-12)
        values[:, :3] -= torch.einsum("nji,j->ni", self._R_world_cam, turn)
        values[:, 3:] = torch.einsum("nji,nj->ni", self._R_world_cam, shifts - stretch * offsets)

    def adjust_camera(self, gaussians: Gaussians, camera: Camera, name: str) -> tuple[Gaussians, Camera]:
        """What to render for a photo: the corrected camera, and the Gaussians tied to the photo's correction.

        The Gaussians have their own values; on the way back their gradients also reach the correction.
        """
        row = self.table.row(name)
        if row is None:
            return gaussians, camera
        corrected = self.corrected(camera, name)
        tie = _Tie(T_world_cam=camera.T_world_cam, corrected=corrected.T_world_cam, extent=self._extent)
        means, quats, sh_rest = _TiedToCamera.apply(tie, row, gaussians.means, gaussians.quats_wxyz, gaussians.sh_rest)  # pyright: ignore[reportGeneralTypeIssues]
        fields = gaussians.parameters() | {"means": means, "quats_wxyz": quats, "sh_rest": sh_rest}
        return Gaussians(**fields), corrected

    def corrected(self, camera: Camera, name: str) -> Camera:
        """A training photo's camera as learned; other cameras as they are."""
        with torch.no_grad():
            row = self.table.row(name)
        if row is None:
            return camera
        values = row.detach().double().numpy()
        motion = rigid(rotation_from_vector(values[:3]), self._extent * values[3:])
        return camera.with_pose(camera.T_world_cam @ motion)

    def changes(self) -> dict[str, PoseChange]:
        """How far each camera was moved, by the photo's name."""
        values = self.table.values.double().numpy()
        return {
            name: PoseChange(
                rotation_deg=math.degrees(float(rotation_angle(np.eye(3), rotation_from_vector(row[:3])))),
                translation=float(self._extent * np.linalg.norm(row[3:])),
            )
            for name, row in zip(self.table.names, values, strict=True)
        }


def rotation_from_vector(vector: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, "3 3"]:
    """exp: the rotation about a vector by its length in radians."""
    angle = float(np.linalg.norm(vector))
    cross = _cross_matrix(vector)
    # sin(a) / a and (1 - cos(a)) / a^2, exact where a is small.
    return np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross


def right_jacobian(vector: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, "3 3"]:
    """J with exp(v + dv) = exp(v) exp(J dv) to first order."""
    angle = float(np.linalg.norm(vector))
    cross = _cross_matrix(vector)
    third = 1 / 6 if angle < 1e-4 else (angle - math.sin(angle)) / angle**3
    return np.eye(3) - 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross + third * cross @ cross


def _cross_matrix(vector: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, "3 3"]:
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def harmonic_generators(degree_max: int) -> Float64[np.ndarray, "3 k k"]:
    """Derivative of the rotation of spherical harmonics of degrees 1 and up, by the angle about each axis, at zero."""
    num = (degree_max + 1) ** 2 - 1
    generators = np.zeros((3, num, num))
    for axis in range(3):
        vector = GENERATOR_ANGLE_RAD * np.eye(3)[axis]
        for degree in range(1, degree_max + 1):
            band = slice(degree * degree - 1, (degree + 1) ** 2 - 1)
            ahead = harmonic_rotation(degree, rotation_from_vector(vector))
            behind = harmonic_rotation(degree, rotation_from_vector(-vector))
            generators[axis, band, band] = (ahead - behind) / (2 * GENERATOR_ANGLE_RAD)
    return generators


_GENERATORS = {degree: harmonic_generators(degree) for degree in range(4)}


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Tie:
    """The camera of one render: as given and as corrected."""

    T_world_cam: Float64[np.ndarray, "4 4"]
    corrected: Float64[np.ndarray, "4 4"]
    extent: float


class _TiedToCamera(torch.autograd.Function):
    """The identity on means, quaternions and harmonics, whose backward also finds the correction's gradient."""

    @staticmethod
    def forward(ctx: Any, tie: _Tie, row: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.tie = tie
        ctx.save_for_backward(row, *parameters)
        return tuple(parameter.view_as(parameter) for parameter in parameters)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        row, means, quats, sh_rest = ctx.saved_tensors
        v_means, v_quats, v_sh_rest = gradients
        center = ctx.tie.corrected[:3, 3]
        offsets = means - uploaded(center, means.device, means.dtype)
        v_turn = torch.linalg.cross(offsets, v_means).double().sum(dim=0)
        v_turn = v_turn + _quats_turned(quats, v_quats) + _harmonics_turned(sh_rest, v_sh_rest)
        # One transfer for both.
        v_shift_world, v_turn_world = -torch.stack([v_means.double().sum(dim=0), v_turn]).cpu().numpy()
        R_given, R_corrected = ctx.tie.T_world_cam[:3, :3], ctx.tie.corrected[:3, :3]
        vector = row[:3].detach().double().numpy()
        v_rotation = right_jacobian(vector).T @ R_corrected.T @ v_turn_world
        v_translation = ctx.tie.extent * R_given.T @ v_shift_world
        v_row = torch.from_numpy(np.concatenate([v_rotation, v_translation])).to(row)
        return None, v_row, *gradients


def _quats_turned(quats: Float[Tensor, "n 4"], gradient: Float[Tensor, "n 4"]) -> Float64[Tensor, " 3"]:
    """Gradient with respect to a small rotation after all of the quaternions: (1, w / 2) q."""
    w, xyz = quats[:, :1], quats[:, 1:]
    v_w, v_xyz = gradient[:, :1], gradient[:, 1:]
    turned = 0.5 * (w * v_xyz - v_w * xyz + torch.linalg.cross(xyz, v_xyz))
    return turned.double().sum(dim=0)


def _harmonics_turned(sh_rest: Float[Tensor, "n k 3"], gradient: Float[Tensor, "n k 3"]) -> Float64[Tensor, " 3"]:
    """Gradient with respect to a small rotation of the view-dependent colors."""
    num = sh_rest.shape[1]
    if num == 0:
        return sh_rest.new_zeros(3, dtype=torch.float64)
    flat, v_flat = (tensor.transpose(0, 1).reshape(num, -1) for tensor in (sh_rest, gradient))
    products = (v_flat @ flat.T).double()
    return torch.einsum("aij,ij->a", _generators_on(num, sh_rest.device), products)


@functools.cache
def _generators_on(num: int, device: torch.device) -> Float64[Tensor, "3 k k"]:
    return torch.from_numpy(_GENERATORS[math.isqrt(num + 1) - 1]).to(device)
