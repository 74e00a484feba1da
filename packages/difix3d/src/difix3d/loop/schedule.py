"""When novel views are rendered and fixed, and when validation scores the result."""

import logging
from dataclasses import dataclass

import numpy as np

from difix3d.loop.config import ProgressiveConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A step of the run at which something happens: a round, a validation, or both."""

    step: int
    """Steps taken before it, those undone included."""

    is_round: bool
    """Whether a round is planned here."""

    may_be_round: bool
    """Whether enough of the run is left for a round."""

    is_last: bool
    """Whether the run ends here."""


def round_steps(config: ProgressiveConfig) -> tuple[int, ...]:
    """The steps after which the rounds of a run come.

    Rounds so late that less than `min_remaining` of the run would follow are left out: a splat learns from a round's
    views only in the steps after it. Rounds that fall on one step become one.
    """
    return tuple(step for step in _planned_steps(config) if step <= _last_useful_step(config))


def events(config: ProgressiveConfig, *, validates: bool) -> tuple[Event, ...]:
    """All events of a run, in order: its rounds, and for validation also steps between them, and the last one."""
    max_steps, validation = config.train.max_steps, config.validation
    rounds = round_steps(config)
    num_left_out = len(_planned_steps(config)) - len(rounds)
    if num_left_out:
        logger.warning("%d rounds are left out: too little of the run follows to learn from them", num_left_out)
    steps = set(rounds)
    if validates:
        spacing = max(1, round(validation.validate_every * max_steps))
        for step in range(max(spacing, round(validation.first * max_steps)), max_steps, spacing):
            if all(abs(step - other) > spacing / 2 for other in (*rounds, max_steps)):
                steps.add(step)
        steps.add(max_steps)
    last_useful = _last_useful_step(config) if rounds else 0
    return tuple(
        Event(step=step, is_round=step in rounds, may_be_round=step <= last_useful, is_last=step >= max_steps)
        for step in sorted(steps)
    )


def _last_useful_step(config: ProgressiveConfig) -> int:
    max_steps = config.train.max_steps
    return max_steps - max(1, round(config.min_remaining * max_steps))


def _planned_steps(config: ProgressiveConfig) -> list[int]:
    """The steps after which rounds are asked for, useful or not."""
    rounds = config.rounds
    if rounds.round_steps is not None:
        return list(rounds.round_steps)
    fractions = np.linspace(rounds.first_round, rounds.last_round, rounds.num_rounds)
    return sorted({max(1, round(float(fraction) * config.train.max_steps)) for fraction in fractions})
