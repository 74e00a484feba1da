"""How pairs are made: which degradations, how many, at which size. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["sparse", "underfit", "painted"]
STRATEGIES: tuple[Strategy, ...] = ("sparse", "underfit", "painted")

PROMPT = "remove degradation"
"""The prompt of every pair; the one of the released weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsConfig:
    """How many pairs of which kind a scene gives."""

    strategies: tuple[Strategy, ...] = ("sparse", "underfit")
    """`sparse`: Gaussians trained on few photos, rendered at the held-out ones. `underfit`: trained on most photos but
    stopped early. `painted`: photos with blur, fog, holes and floaters painted over; needs no training."""

    seed: int = 0
    """Seed of every choice; a scene's pairs depend on it and on the scene's name only."""

    max_size: int = 192
    """Longer side of the images in pixels; larger photos are reduced. Generated scenes have it as their width."""

    num_views: int = 24
    """Photos of a generated scene."""

    max_steps: int = 600
    """Length of the splat schedule in steps."""

    min_sparse_views: int = 3
    """`sparse`: the least number of photos to train on."""

    max_sparse_views: int = 9
    """`sparse`: the largest number of photos to train on."""

    sparse_at: tuple[float, ...] = (0.4, 0.7, 1.0)
    """`sparse`: where in the schedule to render pairs, in (0, 1]."""

    underfit_at: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """`underfit`: where in the schedule to render pairs, in (0, 1]. The released data: 25 % to 75 %; 1 gives good
    renders, from which a fixer learns to keep its hands off."""

    targets_per_render: int = 5
    """Held-out photos that give a pair each time; drawn anew."""

    painted_per_view: int = 2
    """`painted`: pairs of each photo."""

    test_share: float = 0.06
    """Share of scenes whose pairs go into the split `test`, in [0, 1]; a scene is never in both."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.strategies if name not in STRATEGIES]
        if unknown or not self.strategies:
            raise ValueError(f"strategies must be some of {', '.join(STRATEGIES)}, got {self.strategies}")
        for field, low in (("max_size", 32), ("num_views", 4), ("max_steps", 10), ("targets_per_render", 1)):
            if getattr(self, field) < low:
                raise ValueError(f"{field} must be at least {low}, got {getattr(self, field)}")
        if not 2 <= self.min_sparse_views <= self.max_sparse_views:
            raise ValueError(
                f"expected 2 <= min_sparse_views <= max_sparse_views, got {self.min_sparse_views} and "
                f"{self.max_sparse_views}"
            )
        for field in ("sparse_at", "underfit_at"):
            if not all(0 < share <= 1 for share in getattr(self, field)):
                raise ValueError(f"{field} must lie in (0, 1], got {getattr(self, field)}")
        if self.seed < 0 or self.painted_per_view < 1:
            raise ValueError(f"seed must be >= 0 and painted_per_view >= 1, got {self.seed}, {self.painted_per_view}")
        if not 0 <= self.test_share <= 1:
            raise ValueError(f"test_share must be in [0, 1], got {self.test_share}")
