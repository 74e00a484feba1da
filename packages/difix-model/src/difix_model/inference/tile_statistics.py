"""Group norms that take their statistics from all tiles of an image instead of from each tile alone.

The network normalizes by the mean and variance over the whole image. Tiles that each take their own get colors of
their own. How much that matters depends on the network: with the first edition of the embedded weights it was most of
the difference to an image that was run whole; where attention or padding at the tiles' borders matters more, sharing
helps little.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from difix_model.network import DifixNetwork


class TileStatistics:
    """Collects the statistics of every group norm over the tiles of one image, then lets all tiles use them.

    While it is entered as a context, the group norms of the network carry hooks; calls that go neither through
    `collecting` nor through `using` are left as they are.

    Args:
        num_views: Views in the UNet; each has statistics of its own, as in an image that is run whole.
    """

    def __init__(self, network: DifixNetwork, num_views: int) -> None:
        views = [(network.unet, num_views), (network.vae, 1)]
        self._norms = {
            norm: count for part, count in views for norm in part.modules() if isinstance(norm, nn.GroupNorm)
        }
        self._sums: dict[nn.GroupNorm, Tensor] = {}
        self._num_collected: dict[nn.GroupNorm, int] = {}
        self._hook: Callable[[nn.GroupNorm, Tensor, Tensor], None] | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "TileStatistics":
        """Put the hooks on."""
        for norm in self._norms:
            self._handles.append(norm.register_forward_hook(self._hooked))
        return self

    def __exit__(self, *error: object) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def collecting(self, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a call that runs tiles with their own statistics and takes these in."""
        return self._with_hook(run, self._collect)

    def using(self, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a call that runs tiles with the statistics collected before."""
        return self._with_hook(run, self._use)

    def _with_hook(self, run: Callable[..., Tensor], hook: Callable[..., None]) -> Callable[..., Tensor]:
        def hooked(*arguments: Any) -> Tensor:
            self._hook = hook
            try:
                return run(*arguments)
            finally:
                self._hook = None

        return hooked

    def _hooked(self, norm: nn.GroupNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self._hook is not None:
            self._hook(norm, inputs[0], output)

    def _collect(self, norm: nn.GroupNorm, x: Tensor, output: Tensor) -> None:
        grouped = x.unflatten(1, (norm.num_groups, -1))
        axes = tuple(range(2, grouped.ndim))
        if x.dtype == torch.float32:
            variance, mean = (moment.double() for moment in torch.var_mean(grouped, dim=axes, correction=0))
            square = variance + mean.square()
        else:
            # Sums of half-precision values in float32, without a copy of the values.
            mean = grouped.mean(dim=axes, dtype=torch.float32).double()
            norms = torch.linalg.vector_norm(grouped, dim=axes, dtype=torch.float32).double()
            square = norms.square() / grouped[0, 0].numel()
        moments = torch.stack([mean, square]).unflatten(1, (-1, self._norms[norm]))
        self._sums[norm] = self._sums.get(norm, 0.0) + moments.sum(dim=1)
        self._num_collected[norm] = self._num_collected.get(norm, 0) + moments.shape[1]

    def _use(self, norm: nn.GroupNorm, x: Tensor, output: Tensor) -> None:
        """Write what the norm gives with the shared statistics into its output."""
        mean, square = self._sums[norm] / self._num_collected[norm]
        scale = torch.rsqrt((square - mean.square()).clamp(min=0.0) + norm.eps)
        per_group = norm.num_channels // norm.num_groups
        scale = scale.repeat_interleave(per_group, dim=1) * norm.weight.double()
        shift = norm.bias.double() - mean.repeat_interleave(per_group, dim=1) * scale
        repeats = x.shape[0] // scale.shape[0]
        shape = (x.shape[0], norm.num_channels, *[1] * (x.ndim - 2))
        torch.addcmul(
            shift.repeat(repeats, 1).to(x).view(shape), x, scale.repeat(repeats, 1).to(x).view(shape), out=output
        )
