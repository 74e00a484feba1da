"""The order in which samples are trained on: every epoch another, resumable."""

from __future__ import annotations

from typing import Any

import torch

from train_runs.task import TaskState


class EpochSampler:
    """Batches of indices; every epoch goes once through all of them in an order of its own."""

    def __init__(self, num_samples: int, batch_size: int, *, seed: int = 0) -> None:
        """Begin with the first epoch.

        Args:
            num_samples: At least one.
            batch_size: Indices per batch; a batch may go over the end of an epoch.
            seed: Of the orders.
        """
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self._position = 0
        self._order: tuple[int, list[int]] | None = None

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, self.num_samples)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._order = (epoch, torch.randperm(self.num_samples, generator=generator).tolist())
        return self._order[1][place]

    def next_batch(self) -> list[int]:
        """The next batch's indices."""
        found = [self._index(self._position + offset) for offset in range(self.batch_size)]
        self._position += self.batch_size
        return found

    def state(self) -> dict[str, Any]:
        """Where it is."""
        return {"position": self._position}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._position = int(state["position"])


class EpochTask:
    """The part of a task that says where it is in the data."""

    sampler: EpochSampler
    """Which samples a step takes."""

    def state(self) -> TaskState:
        """Where it is in the data."""
        return TaskState(values=self.sampler.state())

    def load_state(self, state: TaskState) -> None:
        """Go on from there."""
        self.sampler.load_state(state.values)
