"""When novel views are rendered and fixed."""

from dataclasses import dataclass

import numpy as np

from difix3d.loop.config import EvenRounds, Rounds


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One rendering and fixing of novel views."""

    index: int
    """Place in the schedule, from 0."""

    start_step: int
    """Number of optimizer steps that precede it."""


def rounds(config: Rounds, *, max_steps: int, min_remaining: float) -> tuple[Round, ...]:
    """The rounds of a run, in order.

    Rounds so late that less than `min_remaining` of the run would follow are left out: a splat learns from a round's
    views only in the steps after it. Rounds that fall on one step become one.

    Args:
        config: When rounds are wanted.
        max_steps: Length of the run.
        min_remaining: Fraction of the run that must follow a round.
    """
    last_useful = max_steps - max(1, round(min_remaining * max_steps))
    useful = [step for step in wanted_steps(config, max_steps=max_steps) if step <= last_useful]
    return tuple(Round(index=index, start_step=step) for index, step in enumerate(useful))


def wanted_steps(config: Rounds, *, max_steps: int) -> list[int]:
    """The steps after which rounds are asked for, useful or not."""
    if not isinstance(config, EvenRounds):
        return list(config.steps)
    fractions = np.linspace(config.first, config.last, config.num_rounds)
    return sorted({max(1, round(float(fraction) * max_steps)) for fraction in fractions})
