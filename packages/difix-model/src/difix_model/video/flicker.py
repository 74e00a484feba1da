"""How much a fixed video flickers, in two figures, measured as a stream.

With input frames i_t and result frames o_t in [0, 255], and c_t = o_t - i_t what was changed:

    change flicker  = mean over t > 0, pixels and colors of |c_t - c_{t-1}|

needs no motion: it is zero if the change stays the same, whatever the scene does; where the camera moves, a change that
moves along with the scene counts as well. The other figure follows the motion of the input:

    warped error    = mean over t > 0 and seen pixels of |o_t - warp(o_{t-1})|
    seen            = where the input follows its own motion: |i_t - warp(i_{t-1})|, averaged over colors, is at most
                      `SEEN_TOLERANCE`, and the pixel was within the frame before

`warp` looks up the frame before along vectors that say where each pixel was; by default they are found in the input by
block matching, and where the true ones are known (a rendered scene), they can be given. The input's own warped error is
measured beside it: a result cannot be steadier than that without losing what the scene does.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from difix_model.video.motion import inside, motion, warped

SEEN_TOLERANCE = 10.0
"""Of 255: pixels whose input differs by more from the moved input before are left out."""

Frame = UInt8[np.ndarray, "h w c=3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flicker:
    """The figures, on the scale of 0 to 255; smaller is steadier."""

    change: float
    """Change flicker."""

    warped: float
    """Warped error of the result."""

    input_warped: float
    """Warped error of the input."""

    seen_fraction: float
    """Share of the pixels that count for the warped errors."""


class FlickerMeter:
    """Takes frames one at a time."""

    def __init__(self) -> None:
        """Start before the first frame."""
        self._before: tuple[Tensor, Tensor] | None = None
        self._sums = np.zeros(4)
        self._num_pixels = 0

    @torch.no_grad()
    def update(self, rgb: Frame, result: Frame, vectors: Float[Tensor, "h w xy=2"] | None = None) -> None:
        """Take the next frame.

        Args:
            vectors: Where each pixel was in the frame before, in pixels; found by block matching if None.
        """
        now = torch.from_numpy(rgb.astype(np.float32)), torch.from_numpy(result.astype(np.float32))
        if self._before is not None:
            before_in, before_out = self._before
            if vectors is None:
                vectors = motion(before_in / 255.0, now[0] / 255.0)
            input_error = (now[0] - warped(before_in, vectors)).abs().mean(dim=-1)
            error = (now[1] - warped(before_out, vectors)).abs().mean(dim=-1)
            seen = (input_error <= SEEN_TOLERANCE) & inside(vectors)
            change = ((now[1] - now[0]) - (before_out - before_in)).abs().mean(dim=-1)
            self._sums += [
                float(change.double().sum()),
                float(error[seen].double().sum()),
                float(input_error[seen].double().sum()),
                float(seen.sum()),
            ]
            self._num_pixels += seen.numel()
        self._before = now

    def result(self) -> Flicker:
        """Return the figures so far.

        Raises:
            ValueError: If there were fewer than two frames.
        """
        if not self._num_pixels:
            raise ValueError("flicker needs at least two frames")
        change, error, input_error, seen = self._sums
        return Flicker(
            change=change / self._num_pixels,
            warped=error / max(seen, 1.0),
            input_warped=input_error / max(seen, 1.0),
            seen_fraction=seen / self._num_pixels,
        )
