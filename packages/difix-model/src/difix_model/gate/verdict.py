"""What became of one image's fix: how much it changed, how much was let through, and why not all; no torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "passed", "no_change", "low_coverage", "palette_drift", "small_change", "local", "limited", "not_asked"
]
"""Why no more of a fix was let through: `passed` says that nearly all was."""

PASSED = 0.95
"""Fraction of a change from which it counts as let through."""

_REASONS: dict[Reason, str] = {
    "passed": "let through",
    "no_change": "the fixer proposed no change",
    "low_coverage": "only redrawn detail: too little of the image changes coarsely",
    "palette_drift": "its colors move away from the reference photo's",
    "small_change": "the whole change is too small to be trusted",
    "local": "let through only where the change is coarse",
    "limited": "held by the strength, the mask or the limits",
    "not_asked": "not fixed: the fixer leaves even the views farthest from any photo as they are",
}

_KEPT: dict[Reason, str] = {"passed": "the proposed change is too small to be seen"}
"""Of images that look the same: where the reason is another one than that of a part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FixVerdict:
    """What became of one image's fix. Changes are mean absolute differences from the render, in [0, 1]."""

    proposed_change: float | None
    """How far the fixer's own image is from the render; None where it was not asked."""

    applied_change: float
    """How far the result is from the render."""

    reason: Reason = "passed"
    """Why it is no more."""

    coverage: float | None = None
    """Fraction of the image where the proposed change is coarse, in [0, 1]; None where no gate measured it."""

    palette_drift: float | None = None
    """How far the colors move away from the reference's, as a fraction of how far they move, in [-1, 1]; None without
    a reference or a gate that measures it."""

    @property
    def let_through(self) -> float | None:
        """Fraction of the proposed change that is in the result; None where nothing was proposed."""
        if not self.proposed_change:
            return None
        return min(1.0, self.applied_change / self.proposed_change)

    def sentence(self) -> str:
        """For a report; changes on the scale of 0 to 255."""
        why = _REASONS[self.reason]
        if self.reason in ("no_change", "not_asked") or self.proposed_change is None:
            return why
        if self.reason == "passed":
            return f"changed by {255 * self.applied_change:.1f} of 255"
        measured = f" ({self.coverage:.0%})" if self.reason == "low_coverage" and self.coverage is not None else ""
        return (
            f"changed by {255 * self.applied_change:.1f} of 255, {255 * self.proposed_change:.1f} proposed: "
            f"{why}{measured}"
        )


NOT_ASKED = FixVerdict(proposed_change=None, applied_change=0.0, reason="not_asked")
"""Of a view that was left as rendered without asking the fixer."""


VISIBLE = 0.05 / 255
"""Mean change from which an image counts as changed: less rounds to none."""

GATED: tuple[Reason, ...] = ("low_coverage", "palette_drift", "small_change", "local")
"""Reasons that are the gate's."""


def verdict_summary(verdicts: Sequence[FixVerdict], noun: str) -> str:
    """How many images were changed and how far, and why the others were kept; a sentence's worth.

    Args:
        verdicts: One per image.
        noun: What the images are, such as "novel view".
    """
    changed = [verdict for verdict in verdicts if verdict.applied_change >= VISIBLE]
    plural = "" if len(verdicts) == 1 else "s"
    sentence = f"changed {len(changed)} of {len(verdicts)} {noun}{plural}"
    if changed:
        applied = sum(verdict.applied_change for verdict in changed) / len(changed)
        sentence += f" (mean {255 * applied:.1f} of 255)"
    kept: Counter[Reason] = Counter(verdict.reason for verdict in verdicts if verdict.applied_change < VISIBLE)
    partly: Counter[Reason] = Counter(verdict.reason for verdict in changed if verdict.reason != "passed")
    parts = [f"{count} kept: {_KEPT.get(reason, _REASONS[reason])}" for reason, count in kept.most_common()]
    parts += [f"{count} in part: {_REASONS[reason]}" for reason, count in partly.most_common()]
    return "; ".join((sentence, *parts))


def nothing_but_gated(verdicts: Sequence[FixVerdict]) -> bool:
    """Whether no image was changed, and most were kept by the gate."""
    if not verdicts or any(verdict.applied_change >= VISIBLE for verdict in verdicts):
        return False
    return Counter(verdict.reason for verdict in verdicts).most_common(1)[0][0] in GATED


def what_to_try(verdicts: Sequence[FixVerdict]) -> str | None:
    """What to do where nothing was changed, naming the commands' flags; None where something was, or nothing was asked.

    Args:
        verdicts: One per image.
    """
    if not verdicts or any(verdict.applied_change >= VISIBLE for verdict in verdicts):
        return None
    reason = Counter(verdict.reason for verdict in verdicts).most_common(1)[0][0]
    if reason in GATED:
        return (
            "Nothing was changed: the gate keeps what it finds good, or finds no evidence against. --gate off shows "
            "what the weights propose; other weights are named with --model, such as nvidia/difix_ref."
        )
    if reason == "limited":
        return "Nothing was changed: --strength or the mask let nothing through."
    return "Nothing was changed: these weights propose nothing here. Name others with --model (nvidia/difix_ref)."
