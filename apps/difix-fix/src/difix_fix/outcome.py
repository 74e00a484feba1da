"""What became of a run's images, in a sentence or two."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from difix_model.gate.verdict import FixVerdict


def say_what_changed(verdicts: Sequence[FixVerdict], noun: str) -> None:
    """Say how many images were changed, why others were kept, and what to do where none was."""
    if not verdicts:
        return
    from difix_model.gate.verdict import verdict_summary, what_to_try

    for sentence in (verdict_summary(verdicts, noun), what_to_try(verdicts)):
        if sentence:
            print(sentence[0].upper() + sentence[1:], file=sys.stderr)
