"""Whether a training still gets better: the scores on views held back, what they led to, and what is to be tried next.

A try is what happens between two checks: going on with the views at hand, or doing so after a round of novel views. One
that leaves the score more than a margin below the best so far is undone, and the other kind of try comes next; where
that was undone too, or is not to be had, nothing helps any more, and training stops with the best state. Random streams
go back with the state: no kind of try is made twice from one state, so nothing is repeated.

Compared with plain training instead of the best so far, a try is bad if it leaves the score more than a margin below
that of the same training without rounds. Then only rounds can be bad, and training goes on without them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from difix3d.loop.config import HoldBackConfig
from difix3d.loop.schedule import Round
from difix_model.references.poses import pose_distances

Try = Literal["training", "round"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A step at which something is to be done."""

    step: int
    """Steps taken before it, those undone included."""

    round_: Round | None
    """The round that is planned here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One score on the views held back."""

    step: int
    """Steps taken before it, those undone included."""

    kept_step: int
    """Steps of the splat that was scored."""

    tried: Try
    """What had been done since the check before."""

    psnr: float
    """Mean over the views held back, in dB."""

    verdict: Literal["better", "kept", "undone"]
    """Whether it is the best so far, not bad, or was undone."""

    plain_psnr: float | None = None
    """The same of plain training, where it is compared with that."""


class Watch:
    """The checks of a run and what follows from them.

    Args:
        config: The margin, and how many rounds may be undone.
    """

    def __init__(self, config: HoldBackConfig) -> None:
        self.config = config
        self.checks: list[Check] = []
        self.tried: Try = "training"
        self.stopped = False
        self._failed_before: Try | None = None

    @property
    def best(self) -> Check | None:
        """The check of the best state."""
        return max((c for c in self.checks if c.verdict == "better"), key=lambda check: check.psnr, default=None)

    @property
    def num_rounds_undone(self) -> int:
        """How often rounds were undone."""
        rounds_only = self.config.against == "plain"
        return sum(check.verdict == "undone" and (rounds_only or check.tried == "round") for check in self.checks)

    def is_bad(self, psnr: float, plain_psnr: float | None = None) -> bool:
        """Whether a score is more than the margin below plain training's, or below the best where that is not given."""
        best = self.best
        compared = plain_psnr if plain_psnr is not None or best is None else best.psnr
        return compared is not None and psnr < compared - self.config.margin

    def judge(self, psnr: float, *, step: int, kept_step: int, plain_psnr: float | None = None) -> Check:
        """Record a score and say what it means."""
        if self.is_bad(psnr, plain_psnr):
            verdict = "undone"
        else:
            verdict = "better" if self.best is None or psnr > self.best.psnr else "kept"
        check = Check(
            step=step, kept_step=kept_step, tried=self.tried, psnr=psnr, verdict=verdict, plain_psnr=plain_psnr
        )
        self.checks.append(check)
        return check

    def decide(self, *, planned: bool, possible: bool) -> Try | None:
        """What comes after the last check; None, and from then on nothing, where nothing helps any more.

        Args:
            planned: Whether the schedule has a round here.
            possible: Whether enough of the run is left for a round.
        """
        possible = possible and self.num_rounds_undone < self.config.max_undone_rounds
        last = self.checks[-1]
        if last.verdict != "undone" or self.config.against == "plain":
            self.tried = "round" if planned and possible else "training"
            self._failed_before = None
            return self.tried
        other: Try = "training" if last.tried == "round" else "round"
        self.stopped = self._failed_before == other or (other == "round" and not possible)
        self._failed_before = last.tried
        self.tried = other
        return None if self.stopped else other

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "checks": [asdict(check) for check in self.checks],
            "tried": self.tried,
            "stopped": self.stopped,
            "failed_before": self._failed_before,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.checks = [Check(**check) for check in state["checks"]]
        self.tried, self.stopped, self._failed_before = state["tried"], state["stopped"], state["failed_before"]


def marks(plan: Sequence[Round], config: HoldBackConfig, *, max_steps: int, watched: bool) -> tuple[Mark, ...]:
    """Rounds, and where views are held back also checks: between them where they are far apart, and at the end."""
    found = {round_.start_step: round_ for round_ in plan}
    steps = set(found)
    if watched:
        spacing = max(1, round(config.check_every * max_steps))
        # Before the first round there is no difference from plain training.
        earliest = 0 if config.against == "best" else min(found, default=max_steps)
        for step in range(max(spacing, round(config.first_check * max_steps)), max_steps, spacing):
            if step > earliest and all(abs(step - other) > spacing / 2 for other in (*found, max_steps)):
                steps.add(step)
        steps.add(max_steps)
    return tuple(Mark(step=step, round_=found.get(step)) for step in sorted(steps))


def held_back_indices(T_world_cam: Float64[np.ndarray, "n 4 4"], num_views: int, *, extent: float) -> list[int]:
    """The views that are missed least: again and again the one nearest to another that stays, the first of equals."""
    distances = pose_distances(T_world_cam, T_world_cam, extent=extent)
    np.fill_diagonal(distances, np.inf)
    chosen: list[int] = []
    for _ in range(min(num_views, len(distances) - 1)):
        stays = [index for index in range(len(distances)) if index not in chosen]
        nearest = distances[np.ix_(stays, stays)].min(axis=1)
        # A view beside one that was held back already would leave a gap of two.
        near_chosen = distances[np.ix_(stays, chosen)].min(axis=1) if chosen else np.full(len(stays), np.inf)
        chosen.append(stays[int(np.argmin(np.where(near_chosen > nearest, nearest, nearest + 1e6)))])
    return sorted(chosen)
