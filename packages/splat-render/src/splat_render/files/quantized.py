"""What the compressed splat formats have in common: arrays of Gaussians, and values as small integers."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8, UInt32

from splat_render.errors import InputError
from splat_render.gaussians import Gaussians

MAX_SMALLER = float(np.sqrt(0.5))
"""A unit quaternion's components other than the largest lie in [-MAX_SMALLER, MAX_SMALLER]."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class SplatArrays:
    """The parameters of `n` Gaussians as the formats store them: unit quaternions and opacities in [0, 1]."""

    means: Float32[np.ndarray, "n 3"]
    """Centers."""
    log_scales: Float32[np.ndarray, "n 3"]
    """Natural logarithms of the standard deviations."""
    quats_wxyz: Float32[np.ndarray, "n 4"]
    """Of length one."""
    opacities: Float32[np.ndarray, " n"]
    """In [0, 1]."""
    sh0: Float32[np.ndarray, "n 3"]
    """Spherical harmonics of degree 0."""
    sh_rest: Float32[np.ndarray, "n k 3"]
    """Spherical harmonics of degrees 1 and up."""

    @classmethod
    def of(cls, gaussians: Gaussians) -> "SplatArrays":
        """The arrays of Gaussians on any device.

        Raises:
            InputError: A value is not finite: small integers cannot say so.
        """
        arrays = {name: tensor.detach().cpu().float().numpy() for name, tensor in gaussians.parameters().items()}
        for name, values in arrays.items():
            if not np.isfinite(values).all():
                raise InputError(
                    f"the Gaussians hold {name} that are not finite, which compressed formats cannot store"
                )
        return cls(
            means=arrays["means"],
            log_scales=arrays["log_scales"],
            quats_wxyz=_unit(arrays["quats_wxyz"]),
            opacities=(1 / (1 + np.exp(-arrays["logit_opacities"].astype(np.float64)))).astype(np.float32),
            sh0=arrays["sh0"][:, 0],
            sh_rest=arrays["sh_rest"],
        )

    def ordered(self, order: np.ndarray) -> "SplatArrays":
        """The same Gaussians in another order."""
        return SplatArrays(
            means=self.means[order],
            log_scales=self.log_scales[order],
            quats_wxyz=self.quats_wxyz[order],
            opacities=self.opacities[order],
            sh0=self.sh0[order],
            sh_rest=self.sh_rest[order],
        )

    def gaussians(self) -> Gaussians:
        """Raw parameters; opacities of 0 and 1 become ones a quarter of a step of 1 / 255 inside, to stay finite."""
        inside = np.clip(self.opacities.astype(np.float64), 0.25 / 255, 1 - 0.25 / 255)

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

        return Gaussians(
            means=tensor(self.means),
            log_scales=tensor(self.log_scales),
            quats_wxyz=tensor(self.quats_wxyz),
            logit_opacities=tensor(np.log(inside / (1 - inside))),
            sh0=tensor(self.sh0[:, None, :]),
            sh_rest=tensor(self.sh_rest),
        )


def _unit(quats: np.ndarray) -> np.ndarray:
    """Quaternions of length one; a zero one, which is no rotation, becomes the identity."""
    length = np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)
    unit = np.where(length > 0, quats / np.where(length > 0, length, 1), [1.0, 0, 0, 0])
    return unit.astype(np.float32)


def to_u8(values: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """The nearest bytes of values in 0 .. 255; others are clamped."""
    return np.clip(np.floor(np.asarray(values, dtype=np.float64) + 0.5), 0, 255).astype(np.uint8)


def unorm(values: np.ndarray, bits: int) -> UInt32[np.ndarray, "..."]:
    """Values in [0, 1] as integers of so many bits; others are clamped."""
    most = (1 << bits) - 1
    return np.clip(np.floor(np.asarray(values, dtype=np.float64) * most + 0.5), 0, most).astype(np.uint32)


def from_unorm(packed: UInt32[np.ndarray, " n"], shift: int, bits: int) -> np.ndarray:
    """The inverse of `unorm` for the bits from `shift` on."""
    most = (1 << bits) - 1
    return ((packed >> np.uint32(shift)) & np.uint32(most)).astype(np.float64) / most


def without_largest(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of each unit quaternion's largest component, and the others in their order, when the largest is positive.

    Args:
        quats: [n 4], unit, in any order of components.
    """
    n = len(quats)
    largest = np.abs(quats).argmax(axis=1)
    positive = quats * np.where(quats[np.arange(n), largest] < 0, -1.0, 1.0)[:, None]
    others = positive[np.arange(4)[None, :] != largest[:, None]].reshape(n, 3)
    return largest.astype(np.uint32), others


def with_largest(largest: np.ndarray, others: np.ndarray) -> Float32[np.ndarray, "n 4"]:
    """The unit quaternions of which `without_largest` made the arguments."""
    n = len(largest)
    quats = np.empty((n, 4))
    quats[np.arange(4)[None, :] != largest[:, None]] = others.reshape(-1)
    quats[np.arange(n), largest] = np.sqrt(np.clip(1 - (others**2).sum(axis=1), 0, None))
    return _unit(quats)
