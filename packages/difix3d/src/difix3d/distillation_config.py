"""How several splats teach one: the settings of `distillation`; no torch here, so that command lines answer at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from difix3d.loop.config import MixtureConfig
from difix3d.loop.target_config import SpreadTargets
from output_files import check_range
from splat_recon.config import TrainConfig

MIN_PHOTOS_TO_DISTILL = 2
"""With one photo there is no place between photos, and no stereo."""

SEED_STRIDE = 1000
"""Seeds of the splats of one run are this far apart, so that runs of neighboring seeds share none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FloaterConfig:
    """Floaters: Gaussians that would hide much of views from farther away, and that no known view shows so large."""

    views: SpreadTargets = field(default_factory=lambda: SpreadTargets(num_views=60, shift=0.4, turn_degrees=10.0))
    """Those views: farther from the photos than any novel view."""

    coverage: float = 0.15
    """A floater covers more of one of them than this, as a fraction of the view. With 1 there are none."""

    ratio: float = 2.0
    """It also covers so many times as much of it as of any photo and any novel view."""

    def __post_init__(self) -> None:
        check_range(self, "positive", "coverage", "ratio", finite=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationConfig:
    """An ensemble of splats, and one more that learns from what they show together at novel views."""

    num_members: int = 1
    """Splats that are trained beside the plain one, with stereo points, and teach with it. More of them cost more than
    they teach (docs/benchmarks.md)."""

    num_members_without_stereo: int = 3
    """The same where stereo finds no points: these trainings are shorter, and their splats differ by their seeds alone
    (docs/benchmarks.md)."""

    member_length: float = 1.0
    """Length of their trainings, relative to the plain splat's. Shorter ones teach less well (docs/benchmarks.md)."""

    student_start: Literal["teacher", "points"] = "teacher"
    """What the splat that learns from them begins as: a copy of the first that teaches, or the points once more. A copy
    learns in one training what takes two from the points (docs/benchmarks.md)."""

    student_length: float = 1.0
    """Length of its training, relative to the plain splat's."""

    combine: Literal["median", "mean"] = "median"
    """How the members' renders become one."""

    contradiction: float = 0.1
    """How far a fixer may go from what all members show, in [0, 1], until a pixel of its picture counts exp(-1)."""

    floaters: FloaterConfig = field(default_factory=FloaterConfig)
    """Which Gaussians of the student are removed when it is done."""

    mixture: MixtureConfig = field(
        default_factory=lambda: MixtureConfig(novel_prob=0.6, novel_weight=1.0, alpha_threshold=0.0)
    )
    """How often a step takes a novel view, and how much it counts. Pixels of any opacity count, but for those where
    the newest of the splats shows nothing at all."""

    def __post_init__(self) -> None:
        check_range(self, "positive", "member_length", "student_length", "contradiction", finite=True)
        check_range(self, "at least 1", "num_members", "num_members_without_stereo")

    def num_beside(self, *, stereo: bool) -> int:
        """Splats that are trained beside the plain one, with stereo points or where there are none."""
        return self.num_members if stereo else self.num_members_without_stereo

    def num_steps(self, plain: TrainConfig, *, stereo: bool) -> tuple[int, ...]:
        """Steps of the members, and of the student, beside a plain splat's training, with stereo points or without."""
        members = [self.member_config(plain, index).max_steps for index in range(self.num_beside(stereo=stereo))]
        return (*members, self.student_config(plain, len(members)).max_steps)

    def member_config(self, plain: TrainConfig, member: int) -> TrainConfig:
        """The training of a member, counted from 0, before stereo changes it."""
        return _like(plain, member + 1, self.member_length)

    def student_config(self, plain: TrainConfig, num_members: int) -> TrainConfig:
        """The training of the splat that learns from so many members, before stereo changes it."""
        return _like(plain, num_members + 1, self.student_length)


def _like(plain: TrainConfig, number: int, length: float) -> TrainConfig:
    """A training like the plain splat's, with a seed of its own and a length relative to it."""
    config = dataclasses.replace(plain, seed=plain.seed + SEED_STRIDE * number)
    return config.scaled_to(max(1, round(length * plain.max_steps)))
