"""What the trainer asks of a model of the photos' appearance, and the choice of one."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from splat_recon.per_photo.configs import BilateralGridConfig, ExposureConfig
from splat_recon.per_photo.table import PerViewEmbedding


@runtime_checkable
class Appearance(Protocol):
    """Turns the splat's colors into those of one photo.

    The mean over the training photos is pinned to the identity: without that, all photos could turn brighter and the
    splat darker. So the splat by itself has the colors of an average photo, which is what test photos are
    compared with and what is exported.
    """

    table: PerViewEmbedding
    """What is learned, one row per photo."""

    def adjust_color(self, rgb: Float[Tensor, "h w 3"], name: str) -> Float[Tensor, "h w 3"]:
        """A render as this photo would show it; unchanged for names that are not in the table."""
        ...

    def penalty(self, name: str) -> Float[Tensor, ""] | float:
        """What is added to the loss of a step with this photo."""
        ...


def make_appearance(
    config: ExposureConfig | BilateralGridConfig,
    names: Sequence[str],
    *,
    max_steps: int,
    rate_factor: float,
    device: str,
) -> Appearance:
    """The model that a config asks for."""
    from splat_recon.per_photo.affine_exposure import AffineExposure
    from splat_recon.per_photo.bilateral_grid import BilateralGrid

    if isinstance(config, ExposureConfig):
        return AffineExposure(config, names, max_steps=max_steps, rate_factor=rate_factor, device=device)
    return BilateralGrid(config, names, max_steps=max_steps, rate_factor=rate_factor, device=device)
