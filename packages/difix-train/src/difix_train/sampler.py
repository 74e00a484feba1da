"""Which samples make up the next batch: seeded, without replacement, equal numbers of views, with a state to save."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from difix_train.dataset import Draw, PairDataset, RgbU8


class PairSampler:
    """An endless, resumable sequence of batches of draws.

    Each epoch visits every pair once in random order. Draws wait in one queue for each number of views until a queue
    fills a batch, so that samples with and without reference may be mixed in one dataset; nothing is dropped.

    Args:
        seed: Seed of order and augmentation.
    """

    def __init__(self, dataset: PairDataset, batch_size: int, seed: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self._pairs_sha256 = ids_sha256(dataset)
        self._generator = torch.Generator().manual_seed(seed)
        self._order: list[int] = []
        self._waiting: dict[int, list[Draw]] = {}

    def next_batch(self) -> list[Draw]:
        """The next ``batch_size`` draws, all with the same number of views."""
        while True:
            draw = self._next_draw()
            num_views = self.dataset.num_views(draw)
            queue = self._waiting.setdefault(num_views, [])
            queue.append(draw)
            if len(queue) == self.batch_size:
                return self._waiting.pop(num_views)

    def state(self) -> dict[str, Any]:
        """Everything needed to continue at the same position; serializable as JSON."""
        return {
            "num_pairs": len(self.dataset),
            "pairs_sha256": self._pairs_sha256,
            "generator": bytes(self._generator.get_state().tolist()).hex(),
            "order": list(self._order),
            "waiting": [asdict(draw) for queue in self._waiting.values() for draw in queue],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was taken.

        Raises:
            ValueError: The state belongs to a dataset of another length, or of pairs with other ids.
        """
        if state["num_pairs"] != len(self.dataset):
            raise ValueError(
                f"the run was started with {state['num_pairs']} training pairs and there are now {len(self.dataset)}: "
                "continue it with the same pairs file"
            )
        if state["pairs_sha256"] != self._pairs_sha256:
            raise ValueError(
                "the training pairs have other names, or another order, than those that the run was started with: "
                "continue it with the same pairs file"
            )
        self._generator.set_state(torch.tensor(list(bytes.fromhex(state["generator"])), dtype=torch.uint8))
        self._order = list(state["order"])
        self._waiting = {}
        for fields in state["waiting"]:
            draw = Draw(**fields)
            self._waiting.setdefault(self.dataset.num_views(draw), []).append(draw)

    def _next_draw(self) -> Draw:
        if not self._order:
            self._order = torch.randperm(len(self.dataset), generator=self._generator).tolist()
        index = self._order.pop()
        config = self.dataset.config
        # Every draw takes the same number of random numbers, whatever comes of them.
        chance, other, top, left, horizontal, vertical = torch.rand(6, generator=self._generator).tolist()
        return Draw(
            index=index,
            reference_index=self._reference_index(index, chance, other),
            top=top,
            left=left,
            flip_horizontal=horizontal < config.horizontal_flip_prob,
            flip_vertical=vertical < config.vertical_flip_prob,
        )

    def _reference_index(self, index: int, chance: float, other: float) -> int | None:
        config, pairs = self.dataset.config, self.dataset.pairs
        if not pairs[index].references or chance < config.drop_reference_prob:
            return None
        if chance < config.drop_reference_prob + config.wrong_reference_prob:
            return wrong_reference_index(self.dataset, index, other)
        return index


def ids_sha256(dataset: PairDataset) -> str:
    """Digest of the pairs' ids in their order: what the numbers in a sampler's state stand for."""
    return hashlib.sha256(json.dumps([pair.id for pair in dataset.pairs]).encode()).hexdigest()


def wrong_reference_index(dataset: PairDataset, index: int, position: float) -> int:
    """Another pair whose references differ from those of ``index``; ``index`` itself where there is none.

    Args:
        position: In [0, 1): how far around the dataset the search begins.
    """
    pairs = dataset.pairs
    own = pairs[index].references
    start = int(position * len(pairs))
    for offset in range(len(pairs)):
        candidate = (start + offset) % len(pairs)
        references = pairs[candidate].references
        if candidate != index and references and not _same_sources(own, references):
            return candidate
    return index


def _same_sources(a: tuple[Path | RgbU8, ...], b: tuple[Path | RgbU8, ...]) -> bool:
    return len(a) == len(b) and all(_same_source(x, y) for x, y in zip(a, b, strict=True))


def _same_source(a: Path | RgbU8, b: Path | RgbU8) -> bool:
    # Arrays count as the same only as objects: comparing pixels of every pair would cost too much.
    return a is b or (isinstance(a, Path) and isinstance(b, Path) and a == b)
