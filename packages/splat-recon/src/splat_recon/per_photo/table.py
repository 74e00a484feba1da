"""Learned values per photo: a table with one row each, and Adam for the rows that a step used."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

BETAS = (0.9, 0.999)
"""Adam's decay rates of the moments."""

EPS = 1e-15
"""Adam's epsilon."""


class PerViewEmbedding:
    """One row of numbers per photo, zeros at first.

    Adam runs on each row by itself: a photo that a step did not use keeps its values and its moments, so what is
    learned about it depends on how often it was drawn and not on how many others there are.

    Args:
        names: The photos' names, unique.
        rate: Adam's learning rate, at first: one number, or one per number of a row.
        final_ratio: The rate after `max_steps` relative to the start; the decay is exponential.
    """

    def __init__(
        self,
        names: Sequence[str],
        row_shape: tuple[int, ...],
        *,
        rate: float | Tensor,
        final_ratio: float,
        max_steps: int,
        device: str,
    ) -> None:
        self.names = tuple(names)
        self._idx = {name: index for index, name in enumerate(self.names)}
        self._rate, self._decay = rate, final_ratio ** (1.0 / max_steps)
        shape = (len(self.names), *row_shape)
        self.values = torch.zeros(shape, device=device)
        self._mean_grad, self._mean_square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self._num_updates = torch.zeros(len(self.names), dtype=torch.int64)
        self._in_use: dict[int, Tensor] = {}

    def row(self, name: str) -> Tensor | None:
        """A photo's values as a leaf that collects gradients until the next `step`; None where the name is not known.

        Without gradients enabled, its values alone.
        """
        index = self._idx.get(name)
        if index is None:
            return None
        if not torch.is_grad_enabled():
            return self.values[index]
        if index not in self._in_use:
            self._in_use[index] = self.values[index].clone().requires_grad_()
        return self._in_use[index]

    def has_finite_gradients(self) -> bool:
        """Whether those of the rows in use are finite; waits where the table is on CUDA."""
        return all(bool(torch.isfinite(leaf.grad).all()) for leaf in self._in_use.values() if leaf.grad is not None)

    def forget(self) -> None:
        """Drop the rows in use with their gradients."""
        self._in_use.clear()

    @torch.no_grad()
    def step(self, step: int, stopped: Bool[Tensor, ""] | None = None) -> None:
        """One step of Adam for each row in use; `step` counts from 0 and sets the rate.

        Args:
            stopped: Where this is true, nothing changes; on the table's device.
        """
        for index, leaf in self._in_use.items():
            if leaf.grad is None:
                continue
            self._num_updates[index] += 1
            count = int(self._num_updates[index])
            rows = [self.values[index], self._mean_grad[index], self._mean_square[index]]
            before = None if stopped is None else [row.clone() for row in rows]
            values, mean, square = rows
            mean.mul_(BETAS[0]).add_(leaf.grad, alpha=1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(leaf.grad, leaf.grad, value=1 - BETAS[1])
            unbiased = square.sqrt() / math.sqrt(1 - BETAS[1] ** count) + EPS
            values -= self._rate * (self._decay**step / (1 - BETAS[0] ** count)) * mean / unbiased
            if before is not None and stopped is not None:
                for row, old in zip(rows, before, strict=True):
                    row.copy_(torch.where(stopped, old, row))
        self.forget()

    def tensors(self) -> dict[str, Tensor]:
        """Values and moments, for a checkpoint."""
        return {
            "values": self.values,
            "mean_grad": self._mean_grad,
            "mean_square": self._mean_square,
            "num_updates": self._num_updates,
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave.

        Raises:
            ValueError: They are of another table.
        """
        for name, tensor in self.tensors().items():
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise ValueError(f"the learned values per photo are of another training: {name} does not fit")
            tensor.copy_(tensors[name])
