"""Steady fixed frames in time: what the fixer changes follows the motion of the input instead of being invented anew.

For frame t with input i_t, fixed frame f_t and change c_t = f_t - i_t, the result is i_t + s_t with

    s_t = c_t + w_t (warp(s_{t-1}) - c_t),     w_t = weight * exp(-(m_t / tolerance)^2),

where `warp` moves the frame before along the motion of the *input*, and m_t is how much the moved input before differs
from the input, averaged over a small window: where the input itself is new (uncovered, cut, lit differently), the
change is taken as it is. The more frames agree, the more the change is an average over them. A clip that stands still
under a fixer that always gives the same is returned bit by bit.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from difix_model.video.motion import inside, motion, warped
from output_files import check_range

Frame = UInt8[np.ndarray, "h w c=3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalFilterConfig:
    """How much of the change is carried over from the frame before."""

    weight: float = 0.8
    """Share of the change that comes from the frame before where the input did not change, in [0, 1)."""

    tolerance: float = 0.03
    """Difference of the input from the moved input before, on the scale of [0, 1], at which the share falls to 1/e."""

    follow_motion: bool = True
    """Move the change along with the input. Without, only what stands still is steadied."""

    window: int = 2
    """Pixels around a pixel over which the difference is averaged, at least 0."""

    def __post_init__(self) -> None:
        check_range(self, "in [0, 1)", "weight")
        check_range(self, "positive", "tolerance")
        check_range(self, "at least 0", "window")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


class TemporalFilter:
    """Holds what must be known of the frame before: constant memory, one frame at a time."""

    def __init__(self, config: TemporalFilterConfig | None = None, *, device: str | torch.device = "cpu") -> None:
        """Start before the first frame.

        Args:
            config: How much to carry over; TemporalFilterConfig() if None.
        """
        self.config = TemporalFilterConfig() if config is None else config
        self.device = torch.device(device)
        self._input: Tensor | None = None
        self._change: Tensor | None = None

    @torch.no_grad()
    def __call__(self, rgb: Frame, fixed: Frame) -> Frame:
        """Steady the next frame.

        Returns:
            The steadied frame; the first one, and one of another size than the last, is returned as it is.
        """
        current, change = self._unit(rgb), self._unit(fixed) - self._unit(rgb)
        if self._input is None or self._change is None or self._input.shape != current.shape:
            self._input, self._change = current, change
            return fixed
        before, carried = self._input, self._change
        if self.config.follow_motion:
            vectors = motion(before, current)
            before, carried = warped(before, vectors, mode="bilinear"), warped(carried, vectors)
            seen = inside(vectors)[..., None].to(current.dtype)
        else:
            seen = 1.0
        weight = kept_fraction(before, current, self.config) * seen
        change = change + weight * (carried - change)
        self._input, self._change = current, change
        return ((current + change).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()

    def state(self) -> dict[str, np.ndarray]:
        """Return what the next frame depends on."""
        if self._input is None or self._change is None:
            return {}
        return {"steady_input": self._input.cpu().numpy(), "steady_change": self._change.cpu().numpy()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` returned."""
        if "steady_input" in state:
            self._input = torch.from_numpy(state["steady_input"]).to(self.device)
            self._change = torch.from_numpy(state["steady_change"]).to(self.device)

    def _unit(self, rgb: Frame) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).float() / 255.0


def kept_fraction(
    before: Float[Tensor, "h w c=3"], current: Float[Tensor, "h w c=3"], config: TemporalFilterConfig
) -> Float[Tensor, "h w one=1"]:
    """Return which share of the change to carry over: less where the input differs from the moved input before."""
    difference = (current - before).abs().mean(dim=-1)[None, None]
    kernel = 2 * config.window + 1
    mean = functional.avg_pool2d(difference, kernel, stride=1, padding=config.window, count_include_pad=False)
    return config.weight * torch.exp(-((mean / config.tolerance) ** 2))[0, 0, ..., None]
