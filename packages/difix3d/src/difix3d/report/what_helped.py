"""What each part of a run was worth on the test photos, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from difix3d.report.results import CLEAR_DB, VariantResult

if TYPE_CHECKING:
    from difix3d.report.facts import RunFacts

FROM_POINTS = "one splat, from the points"
WITH_STEREO = "one splat, with stereo"
TAUGHT = "the splat that learned from them"
"""Names of what distillation is made of (`RunFacts.parts`)."""

FEW_POINTS = 100
"""Fewer points than this per training photo make a poor start."""

MUCH_BACKGROUND = 0.1
"""From this fraction on, the background is what many test pixels show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartOfRun:
    """One part of a run."""

    name: str
    """start, background, loop or fixer."""

    did: str
    """What it did, in a sentence or two."""

    gain_db: float | None
    """What it added to the mean PSNR of test photos, in dB; None where this run does not measure it."""

    advice: str = ""
    """What to do about it; empty where nothing suggests itself."""

    def gain(self) -> str:
        """For a table."""
        if self.gain_db is None:
            return "not measured in this run"
        shown = round(self.gain_db, 2) + 0.0  # No minus before zero.
        return f"{shown:+.2f} dB" + (" (no clear difference)" if abs(self.gain_db) < CLEAR_DB else "")


def what_helped(facts: RunFacts, results: Sequence[VariantResult]) -> list[PartOfRun]:
    """Start, background, loop and fixer, in the order in which they act."""
    psnr = {result.name: result.evaluation.psnr for result in results}
    parts = [_start(facts), _background(facts), _loop(facts, psnr), _fixer(facts, results, psnr)]
    # How close renders are to photos that were trained on tells of no part what it is worth.
    return parts if facts.holds_out else [replace(part, gain_db=None, advice="") for part in parts]


def _start(facts: RunFacts) -> PartOfRun:
    did = "Training went on from a finished splat." if facts.points is None else facts.points.sentence()
    gain, advice = None, ""
    if facts.stereo is not None:
        did += f" {facts.stereo}"
    if WITH_STEREO in facts.parts:
        gain = facts.parts[WITH_STEREO] - facts.parts[FROM_POINTS]
        did += _figure(facts, "one splat with stereo against one without")
        if gain < -CLEAR_DB:
            advice = "Stereo did harm here: --stereo off does without it."
    elif facts.one_place:
        advice = (
            "All photos were taken from about one place, where nothing tells how far away things are: take some from "
            "a few steps aside."
        )
    elif facts.points is not None and facts.points.at_random:
        advice = "With points of structure from motion (splat-recon sfm finds them) training starts where things are."
    elif facts.points is not None and facts.points.num_kept < FEW_POINTS * facts.points.num_train:
        photos = f"{facts.points.num_train} photo" + "s" * (facts.points.num_train != 1)
        advice = (
            f"{facts.points.num_kept} points are few for {photos}: photos that overlap more, "
            "taken closer to each other, help most."
        )
    return PartOfRun(name="start", did=did, gain_db=gain, advice=advice)


def _figure(facts: RunFacts, what: str) -> str:
    """What the figure beside a part compares; nothing where there is none."""
    return f" The figure is {what}." if facts.holds_out else ""


def _background(facts: RunFacts) -> PartOfRun:
    red, green, blue = (round(255 * value) for value in facts.config.train.background)
    did = f"The color behind everything is #{red:02x}{green:02x}{blue:02x}; {facts.transparency:.0%} of the light in "
    did += f"the loop's {facts.side} views comes from it."
    advice = ""
    if facts.missing >= MUCH_BACKGROUND:
        advice = (
            "Much of the test views is empty: no training photo shows these places well enough. Add photos toward "
            "them; no fixer can know what is there."
        )
    return PartOfRun(name="background", did=did, gain_db=None, advice=advice)


def _loop(facts: RunFacts, psnr: Mapping[str, float]) -> PartOfRun:
    gain = psnr["loop"] - psnr["plain"]
    if facts.settings.loop == "distillation":
        base = facts.parts.get(WITH_STEREO, facts.parts.get(FROM_POINTS))
        gain = gain if base is None else psnr["loop"] - base
        did = f"One splat learned from several at {facts.num_novel} novel views."
        if facts.num_floaters:
            did += f" Floaters removed from it, which hid places that no photo shows: {facts.num_floaters}."
        did += _figure(facts, "that splat against one")
    elif facts.num_rounds:
        did = f"{facts.num_rounds_learned} of {facts.num_rounds} rounds of novel views joined the training."
        did += _figure(facts, "against plain training")
    else:
        return PartOfRun(name="loop", did="No round of novel views.", gain_db=None)
    advice = ""
    if gain < -CLEAR_DB and facts.parts.get(WITH_STEREO, psnr["plain"]) - psnr["plain"] > CLEAR_DB:
        scene = facts.settings.scene or "SCENE"
        advice = (
            f"One splat with stereo came closer than what several taught: splat-recon train --scene {scene} makes one."
        )
    elif psnr["loop"] - psnr["plain"] < -CLEAR_DB:
        advice = "The loop did harm here: keep plain.ply"
        advice += "." if facts.distilled else ", or have harm undone by validation (--validation.fraction)."
    return PartOfRun(name="loop", did=did, gain_db=gain, advice=advice)


def _fixer(facts: RunFacts, results: Sequence[VariantResult], psnr: Mapping[str, float]) -> PartOfRun:
    if not facts.fixed:
        return PartOfRun(
            name="fixer",
            did="No fixer was at work.",
            gain_db=None,
            advice="With pretrained weights, --model nvidia/difix_ref fixes what novel views show.",
        )
    did = "Renders went through the fixer once more at the end."
    did += _figure(facts, "the loop with and without that")
    gain = psnr["loop_fixed"] - psnr["loop"]
    verdicts = [verdict for result in results if result.name == "loop_fixed" for verdict in result.verdicts.values()]
    advice = ""
    if verdicts:
        reason, count = Counter(verdict.reason for verdict in verdicts).most_common(1)[0]
        mostly = 2 * count > len(verdicts)
        if mostly and reason in ("low_coverage", "palette_drift", "small_change") and gain < CLEAR_DB:
            advice = (
                "The gate held most fixes back for want of evidence. --gate off shows the fixer's own pictures: keep "
                "them if they are closer to the photos."
            )
    if gain < -CLEAR_DB:
        advice = "The final fix did harm here: show loop.ply as it is."
    return PartOfRun(name="fixer", did=did, gain_db=gain, advice=advice)
