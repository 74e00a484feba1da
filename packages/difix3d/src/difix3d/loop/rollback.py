"""Whether to keep what was done: the scores on validation photos, and what is to be done next.

An action is what happens between two validations: going on with the views there are, or doing so after a round of novel
views. One that leaves the score more than `max_drop_db` below the best so far is undone, and the other action comes
next; where that was undone too, or is not possible, nothing helps any more, and training stops with the best state.
Random streams go back with the state: no action is taken twice from one state, so nothing is repeated.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from difix3d.loop.config import ValidationConfig

logger = logging.getLogger(__name__)

Action = Literal["training", "round"]
"""What is done between two validations."""

Verdict = Literal["best", "kept", "undone"]
"""Whether a score is the best so far, good enough, or led to a rollback."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationScore:
    """One score on the validation photos."""

    step: int
    """Steps of the loop before it, those undone included."""

    splat_step: int
    """Steps of the splat that was scored."""

    action: Action
    """What had been done since the validation before."""

    psnr: float
    """Mean over the validation photos, in dB."""

    verdict: Verdict


class RollbackPolicy:
    """The scores of a run, and what follows from them.

    Args:
        config: How far a score may drop, and how many rounds may be undone.
    """

    def __init__(self, config: ValidationConfig) -> None:
        self.config = config
        self.scores: list[ValidationScore] = []
        self.action: Action = "training"
        self.stopped = False
        self._failed_before: Action | None = None

    @property
    def best(self) -> ValidationScore | None:
        """The score of the best state."""
        return max((each for each in self.scores if each.verdict == "best"), key=lambda each: each.psnr, default=None)

    @property
    def undone(self) -> Sequence[ValidationScore]:
        """The scores that led to a rollback."""
        return [each for each in self.scores if each.verdict == "undone"]

    @property
    def num_rounds_undone(self) -> int:
        """How many rounds were undone."""
        return sum(each.action == "round" for each in self.undone)

    def is_regression(self, psnr: float) -> bool:
        """Whether a score is more than the allowed drop below the best."""
        return self.best is not None and psnr < self.best.psnr - self.config.max_drop_db

    def record(self, psnr: float, *, step: int, splat_step: int) -> Verdict:
        """Note a score; it is undone where it is a regression."""
        verdict: Verdict = "best" if self.best is None or psnr > self.best.psnr else "kept"
        if self.is_regression(psnr):
            verdict = "undone"
        score = ValidationScore(step=step, splat_step=splat_step, action=self.action, psnr=psnr, verdict=verdict)
        self.scores.append(score)
        logger.info("step %d: %.2f dB on validation photos: %s, %s", step, psnr, score.action, verdict)
        return verdict

    def next_action(self, *, planned: bool, possible: bool) -> Action | None:
        """What comes after the last score; None, and from then on nothing, where nothing helps any more.

        Args:
            planned: Whether the schedule has a round here.
            possible: Whether enough of the run is left for a round.
        """
        possible = possible and self.num_rounds_undone < self.config.max_undone_rounds
        last = self.scores[-1]
        if last.verdict != "undone":
            self.action = "round" if planned and possible else "training"
            self._failed_before = None
            return self.action
        other: Action = "training" if last.action == "round" else "round"
        self.stopped = self._failed_before == other or (other == "round" and not possible)
        self._failed_before = last.action
        self.action = other
        return None if self.stopped else other

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "scores": [asdict(score) for score in self.scores],
            "action": self.action,
            "stopped": self.stopped,
            "failed_before": self._failed_before,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.scores = [ValidationScore(**score) for score in state["scores"]]
        self.action, self.stopped, self._failed_before = state["action"], state["stopped"], state["failed_before"]
