"""Which of a run's two splats to take, and what would help most here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from difix3d.distillation_config import MIN_PHOTOS_TO_DISTILL
from difix3d.fixers.config import AUTO, DEFAULT, NO_FIXER
from difix3d.report.results import CLEAR_DB, VariantResult
from difix3d.report.what_helped import MUCH_BACKGROUND
from splat_recon.config import FEW_PHOTOS

if TYPE_CHECKING:
    from difix3d.report.curves import Curves
    from difix3d.report.facts import RunFacts
    from splat_recon.evaluate import Evaluation

CLEAR_FLIP = 0.002
"""Differences of FLIP below this are called none."""

STILL_RISING_DB = 0.2
"""Gain over the last two measurements from which a longer training is likely to help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What to do with a run."""

    splat: Literal["plain", "loop"]
    """Whose splat is best.ply."""

    take: str
    """Which splat to take and why, in a sentence or two."""

    helps_most: str
    """What to try next, in a sentence."""

    @property
    def sentences(self) -> str:
        """Both, for the screen."""
        return f"{self.take} {self.helps_most}"


def decided(facts: RunFacts, results: Sequence[VariantResult], curves: Curves) -> Decision:
    """Decide by the test photos: PSNR where it differs clearly, else FLIP, else the simpler one.

    Args:
        curves: How close both trainings were as they went on.
    """
    if not facts.holds_out:
        return _without_held_out(facts)
    by_name = {result.name: result.evaluation for result in results}
    plain, loop = by_name["plain"], by_name["loop"]
    gain = loop.psnr - plain.psnr
    nearer = plain.flip is not None and loop.flip is not None and plain.flip - loop.flip >= CLEAR_FLIP
    splat: Literal["plain", "loop"] = "loop" if gain >= CLEAR_DB or (gain > -CLEAR_DB and nearer) else "plain"
    if gain >= CLEAR_DB:
        why = f"the loop's splat, {loop.psnr:.2f} dB on the test photos, {gain:+.2f} dB over plain training"
    elif gain <= -CLEAR_DB:
        why = f"plain training's splat, {plain.psnr:.2f} dB on the test photos; the loop's is {-gain:.2f} dB below"
    elif nearer:
        why = f"the loop's splat, by PSNR as good as plain training's ({loop.psnr:.2f} dB) and by FLIP nearer"
    else:
        why = f"plain training's splat, {plain.psnr:.2f} dB on the test photos; the loop's is not clearly better"
    take = f"Take best.ply: it is {why}."
    fixed = by_name.get(f"{splat}_fixed")
    if facts.fixed and fixed is not None:
        added = fixed.psnr - by_name[splat].psnr
        take += (
            f" Films of it are worth fixing once more ({added:+.2f} dB), with difix3d-enhance."
            if added >= CLEAR_DB
            else " Show it as it is: a final fix adds nothing here."
        )
    return Decision(splat=splat, take=take, helps_most=_helps_most(facts, curves, splat, by_name[splat]))


def _without_held_out(facts: RunFacts) -> Decision:
    """The splat that test photos of other runs spoke for: the one that several taught, else plain training's."""
    splat: Literal["plain", "loop"] = "loop" if facts.distilled else "plain"
    whose = "the loop's splat" if facts.distilled else "plain training's splat"
    return Decision(
        splat=splat,
        take=f"Take best.ply: it is {whose}. No photo was held out, so this run cannot tell which one is better.",
        helps_most=(
            "To measure that, run again without --split none."
            if len(facts.split.train) > MIN_PHOTOS_TO_DISTILL
            else "What would help most: more photos. From three on one can be held out to measure that."
        ),
    )


def _helps_most(facts: RunFacts, curves: Curves, splat: str, scores: Evaluation) -> str:
    measured = [each for each in curves.measurements if each["variant"] == splat] or curves.measurements
    rise = measured[-1]["psnr"] - measured[-3]["psnr"] if len(measured) >= 3 else 0.0
    if rise >= STILL_RISING_DB:
        return (
            f"What would help most: a longer training. It was still getting better at its end ({rise:+.2f} dB over its "
            f"last two measurements): --max-steps {2 * (facts.settings.max_steps or facts.step)}."
        )
    number = len(facts.split.train)
    few = number <= FEW_PHOTOS
    if few or facts.missing >= MUCH_BACKGROUND:
        return (
            f"What would help most: more photos. {number} {'was' if number == 1 else 'were'} trained on, and no "
            f"training knows what none of them shows.{_worst(scores)}"
        )
    if facts.settings.fixer.model in (NO_FIXER, DEFAULT, AUTO):
        return "What would help most: a stronger fixer, such as --model nvidia/difix_ref; longer training adds little."
    return "What would help most: more photos where the renders are worst; longer training adds little."


def _worst(scores: Evaluation) -> str:
    """The test views that are farthest from their photos, where there are several to choose from."""
    ordered = sorted(scores.per_view, key=lambda name: scores.per_view[name].psnr)
    if len(ordered) < 2:
        return ""
    worst = ordered[: 2 if len(ordered) >= 4 else 1]
    named = " and ".join(f"{name} ({scores.per_view[name].psnr:.1f} dB)" for name in worst)
    return f" They are missing most toward {named}."
