"""One affine map of RGB per photo, as in the released 3DGS code's exposure compensation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from splat_recon.per_photo.configs import ExposureConfig
from splat_recon.per_photo.table import PerViewEmbedding


class AffineExposure:
    """rgb -> A rgb + b, learned per photo; see `Appearance`."""

    def __init__(
        self, config: ExposureConfig, names: Sequence[str], *, max_steps: int, rate_factor: float, device: str
    ) -> None:
        self.table = PerViewEmbedding(
            names,
            (3, 4),
            rate=config.rate * rate_factor,
            final_ratio=config.rate_final_ratio,
            max_steps=max_steps,
            device=device,
        )

    def affine(self, name: str) -> Float[Tensor, "3 4"] | None:
        """[A | b] of a photo; None where the name is not in the table."""
        change = self.table.row(name)
        if change is None:
            return None
        return torch.eye(3, 4, device=change.device) + (change - self.table.values.mean(dim=0))

    def adjust_color(self, rgb: Float[Tensor, "h w 3"], name: str) -> Float[Tensor, "h w 3"]:
        """See `Appearance.adjust_color`."""
        affine = self.affine(name)
        return rgb if affine is None else rgb @ affine[:, :3].T + affine[:, 3]

    def penalty(self, name: str) -> float:
        """Nothing."""
        return 0.0
