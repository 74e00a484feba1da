"""Do no harm: how much of a small network's change to let through, as a pure function of image, change and settings.

The benefit of a change grows linearly with its strength, the harm of a wrong one quadratically, so that letting through
a part of it costs little and protects much. The settings travel in a checkpoint's metadata under "gate".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """What the gate lets through."""

    strength: float = 1.0
    """Share of the change, in [0, 1]; 0 returns the render."""

    detail_strength: float = 1.0
    """Share of the change's fine part (what `blur_radius` smooths away), in [0, 1], on top of `strength`."""

    blur_radius: int = 4
    """Pixels over which a change is averaged to tell its coarse part from its fine part, at least 1."""

    max_change: float = 1.0
    """No channel of a pixel changes by more than about this; approached smoothly. In (0, 1]."""

    trusted_change: float = 0.0
    """Root mean square change of an image from which it is let through in full; below, in proportion, since a network
    that finds little to fix had a good image before it. 0 trusts every change."""

    def __post_init__(self) -> None:
        for name in ("strength", "detail_strength"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gate.{name} must be in [0, 1], got {getattr(self, name)}")
        if self.blur_radius < 1:
            raise ValueError(f"gate.blur_radius must be at least 1, got {self.blur_radius}")
        if not 0 < self.max_change <= 1:
            raise ValueError(f"gate.max_change must be in (0, 1], got {self.max_change}")
        if self.trusted_change < 0:
            raise ValueError(f"gate.trusted_change must be at least 0, got {self.trusted_change}")


def apply_gate(
    rendered: Float[Tensor, "b h w c=3"],
    fixed: Float[Tensor, "b h w c=3"],
    config: GateConfig,
    *,
    alpha: Float[Tensor, "b h w"] | None = None,
) -> Float[Tensor, "b h w c=3"]:
    """Return the render with as much of the fix as the settings allow; images do not influence each other.

    Args:
        rendered: RGB in [0, 1] before the network.
        fixed: RGB in [0, 1] after it.
        config: What to let through.
        alpha: Opacity of the render in [0, 1], if known. Where nothing was rendered the change is let through
            whatever the limits: there is nothing to harm.
    """
    raw_change = fixed - rendered
    change = raw_change
    if config.trusted_change > 0:
        size = change.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        change = change * (size / config.trusted_change).clamp(max=1.0)
    if config.detail_strength < 1:
        coarse = _averaged(change, config.blur_radius)
        change = coarse + config.detail_strength * (change - coarse)
    if config.max_change < 1:
        change = config.max_change * torch.tanh(change / config.max_change)
    change = config.strength * change
    if alpha is not None:
        change = torch.lerp(raw_change, change, alpha[..., None])
    return (rendered + change).clamp(0.0, 1.0)


def _averaged(image: Float[Tensor, "b h w c"], radius: int) -> Float[Tensor, "b h w c"]:
    """Mean over a square window, which is smaller at the borders."""
    planes = image.movedim(-1, 1)
    kernel = 2 * radius + 1
    mean = torch.nn.functional.avg_pool2d(planes, kernel, stride=1, padding=radius, count_include_pad=False)
    return mean.movedim(1, -1)
