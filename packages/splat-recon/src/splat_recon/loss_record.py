"""The losses of a training between two lines of its history, and whether all of them were finite numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splat_recon.errors import DivergedError

if TYPE_CHECKING:
    from splat_recon.distributed import World
    from splat_recon.optim import GaussianOptimizer


class LossRecord:
    """Sums losses, and stops a training whose loss or gradient is not finite before that does harm.

    Reading a number from CUDA waits for all that was asked of it before, so one process on CUDA does not look at every
    step: a step that is not finite sets a flag there, from which on optimizers change nothing (`stopped`), and `look`
    finds it at the next line of the history, or when something is saved. Elsewhere each step is looked at.

    Args:
        world: Its processes, whose losses are added up.
    """

    def __init__(self, device: str, world: World) -> None:
        self._world = world
        self._is_deferred = device.split(":")[0] == "cuda" and world.size == 1
        self._device = device
        self._seen_step = 0
        self._num = 0
        self._sum = 0.0
        self._step_loss: Tensor | float = 0.0
        self._sum_on_device = torch.zeros((), dtype=torch.float64, device=device) if self._is_deferred else None
        self.stopped: Bool[Tensor, ""] | None = None
        """True on the device from the first step on whose loss or gradient is not finite; None where steps are looked
        at one by one."""
        if self._is_deferred:
            self.stopped = torch.zeros((), dtype=torch.bool, device=device)

    def begin(self) -> None:
        """A step begins."""
        self._step_loss = 0.0

    def add(self, loss: Float[Tensor, ""], step: int) -> None:
        """A photo's share of a step's loss, before its backward pass.

        Raises:
            DivergedError: It is not finite.
        """
        if self._is_deferred:
            self._step_loss = self._step_loss + loss.detach().double()
            return
        self._step_loss += self._world.total(float(loss.detach()))
        self._check(float(self._step_loss), step, step)

    def check_gradients(self, optimizer: GaussianOptimizer, step: int) -> None:
        """Look at the gradients of a step, before the optimizer does.

        Raises:
            DivergedError: They are not finite.
        """
        if self.stopped is not None and isinstance(self._step_loss, Tensor):
            self.stopped = self.stopped | ~torch.isfinite(self._step_loss + optimizer.gradient_sum())
        elif self._world.total(not optimizer.has_finite_gradients()):
            self._check(math.nan, step, step)

    def end(self) -> None:
        """The step is done."""
        self._num += 1
        if self._sum_on_device is not None:
            self._sum_on_device = self._sum_on_device + self._step_loss
        else:
            self._sum += float(self._step_loss)

    def look(self, step: int) -> None:
        """Find out whether a step since the last look was not finite; `step` steps are done.

        Raises:
            DivergedError: One was; the Gaussians are those before it.
        """
        if self.stopped is None or self._sum_on_device is None:
            return
        # One transfer for both.
        stopped, total = torch.stack([self.stopped.double(), self._sum_on_device]).tolist()
        if stopped:
            self._check(math.nan, self._seen_step, step)
        self._seen_step = step
        self._sum += total
        self._sum_on_device = torch.zeros_like(self._sum_on_device)

    def _check(self, loss: float, first: int, last: int) -> None:
        if math.isfinite(loss):
            return
        when = f"at step {first}" if first == last else f"between steps {first} and {last}"
        raise DivergedError(
            f"the loss or its gradient became {loss} {when}; the Gaussians of the step before are unharmed: "
            "resume from the last checkpoint with lower learning rates"
        )

    def mean(self, step: int) -> float:
        """The mean of the steps since the last call; looks first.

        Raises:
            DivergedError: See `look`.
        """
        self.look(step)
        mean = self._sum / self._num
        self._sum, self._num = 0.0, 0
        return mean

    def state(self) -> dict[str, float]:
        """For a checkpoint; `look` first."""
        return {"loss_sum": self._sum, "num_summed": self._num}

    def load_state(self, state: Mapping[str, Any], step: int) -> None:
        """Go on at a step from a state that holds what `state` gave."""
        self._sum, self._num, self._seen_step = float(state["loss_sum"]), int(state["num_summed"]), step
