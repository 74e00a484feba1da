"""What became of a run's images, in a sentence or two, and what to do next."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from commands import as_flag, ended
from difix_fix.cli import FixSettings

if TYPE_CHECKING:
    from difix_model import FixVerdict


def say_what_changed(verdicts: Sequence[FixVerdict], noun: str) -> None:
    """Say how many images were changed, why others were kept, and what to do where none was."""
    if not verdicts:
        return
    from difix_model.gate.verdict import verdict_summary, what_to_try

    for sentence in (verdict_summary(verdicts, noun), what_to_try(verdicts)):
        if sentence:
            print(sentence[0].upper() + sentence[1:], file=sys.stderr)


def ended_with(made: Path, settings: FixSettings, verdicts: Sequence[FixVerdict]) -> None:
    """Say what was made, and what to do next: look, or where the gate kept everything, do without it."""
    from difix_model.gate.verdict import nothing_but_gated

    if nothing_but_gated(verdicts):
        ended(made, "difix-fix", *_again(settings, gate="off", out=_beside(settings.out, "ungated")))
    else:
        fixer = settings.fixer
        base = () if fixer.base is None else ("--base", fixer.base)
        ended(made, "difix-fix", "serve", "--model", fixer.model, *base, "--gate", fixer.gate, extra="serve")


def _again(settings: FixSettings, **others: object) -> list[str]:
    """The flags of a command, with some of them changed."""
    words: list[str] = []
    given = [(each, getattr(part, each.name)) for part in (settings, settings.fixer) for each in fields(part)]
    for name, default, value in ((each.name, each.default, others.get(each.name, value)) for each, value in given):
        if value in (default, False, None) or name in ("resume", "fixer"):
            continue
        words += [as_flag(name), *([] if value is True else [str(value)])]
    return words


def _beside(path: Path, mark: str) -> Path:
    return path.with_name(f"{path.stem}_{mark}{path.suffix}")
