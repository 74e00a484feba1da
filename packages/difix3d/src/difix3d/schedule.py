"""When novel views are rendered and fixed."""

import logging
from dataclasses import dataclass

import numpy as np

from difix3d.config import EvenRounds, Rounds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One rendering and fixing of novel views."""

    index: int
    """Place in the schedule, from 0."""

    start_step: int
    """Number of optimizer steps that precede it."""


def rounds(config: Rounds, *, max_steps: int, min_remaining: float) -> tuple[Round, ...]:
    """The rounds of a run, in order.

    Rounds so late that less than `min_remaining` of the run would follow are dropped, with a message in the log: a
    splat learns from a round's views only in the steps after it. Rounds that fall on one step become one.

    Args:
        config: When rounds are wanted.
        max_steps: Length of the run.
        min_remaining: Fraction of the run that must follow a round.
    """
    if isinstance(config, EvenRounds):
        fractions = np.linspace(config.first, config.last, config.num_rounds)
        wanted = sorted({max(1, round(float(fraction) * max_steps)) for fraction in fractions})
    else:
        wanted = list(config.steps)
    last_useful = max_steps - max(1, round(min_remaining * max_steps))
    useful = [step for step in wanted if step <= last_useful]
    if len(useful) < len(wanted):
        logger.warning(
            "%d of %d rounds dropped: after step %d too little of the %d steps is left to learn from a round",
            len(wanted) - len(useful),
            len(wanted),
            last_useful,
            max_steps,
        )
    return tuple(Round(index=index, start_step=step) for index, step in enumerate(useful))
