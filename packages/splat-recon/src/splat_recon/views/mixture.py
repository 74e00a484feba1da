"""How several sets of views share the training steps."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from splat_recon.views.view_set import TrainingView, ViewSet


class ViewMixture:
    """Sets of views and the probability that a step takes its view from each.

    A mixture of which only one set can be drawn takes no random number to choose it: it draws bitwise the same views
    as that set alone.

    Args:
        sets: The sets; they keep their own positions, and may be part of several mixtures one after the other.
        probs: One probability per set, each in [0, 1], together 1.

    Raises:
        ValueError: There is no set, or the probabilities are not as above.
    """

    def __init__(self, sets: Sequence[ViewSet], probs: Sequence[float]) -> None:
        self.sets: tuple[ViewSet, ...] = tuple(sets)
        self.probs: tuple[float, ...] = tuple(float(prob) for prob in probs)
        if not self.sets or len(self.sets) != len(self.probs):
            raise ValueError(f"expected one probability per set, got {len(self.sets)} sets and {len(self.probs)}")
        if any(not 0 <= prob <= 1 for prob in self.probs) or not math.isclose(sum(self.probs), 1.0, abs_tol=1e-6):
            raise ValueError(f"probabilities must lie in [0, 1] and sum to 1, got {self.probs}")
        self._drawable = tuple(index for index, prob in enumerate(self.probs) if prob > 0)

    def __len__(self) -> int:
        return sum(len(views) for views in self.sets)

    def sample(self, generator: torch.Generator) -> TrainingView:
        """Choose a set by its probability, then take that set's next view."""
        return self.sets[self._choose(generator)].sample(generator)

    def _choose(self, generator: torch.Generator) -> int:
        if len(self._drawable) == 1:
            return self._drawable[0]
        draw = float(torch.rand((), generator=generator, dtype=torch.float64))
        for index in self._drawable[:-1]:
            draw -= self.probs[index]
            if draw < 0:
                return index
        return self._drawable[-1]

    def state_dict(self) -> dict[str, Any]:
        """The positions of all sets, in their order."""
        return {"sets": [views.state_dict() for views in self.sets]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue all sets where `state_dict` recorded them.

        Raises:
            ValueError: The state is of another number of sets, or does not fit one of them.
        """
        if set(state) != {"sets"} or len(state["sets"]) != len(self.sets):
            raise ValueError(f"not the state of a mixture of {len(self.sets)} sets")
        for views, views_state in zip(self.sets, state["sets"], strict=True):
            views.load_state_dict(views_state)
