"""Numbers that a user gave, and the ranges that they must be in."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

_INTERVAL = re.compile(r"in ([\[(])(.+), (.+)([\])])")


def check_range(config: Any, wanted: str, *names: str, prefix: str = "", finite: bool = False) -> None:
    """Refuse fields whose numbers are out of range, NaN always; None where it is the default counts as not given.

    Args:
        config: A dataclass.
        wanted: In the words of the message: ``in [A, B]``, with round brackets for an end that does not belong to it,
            ``at least A``, ``0 or more``, ``zero or more``, ``above 0`` or ``positive``; ``and finite`` may follow.
        prefix: What the message puts before a name; ``--`` makes flags of names.
        finite: Refuse infinity even where the words allow it.

    Raises:
        ValueError: One is not; the message has its name and what was wanted.
    """
    optional = {field.name for field in dataclasses.fields(config) if field.default is None}
    for name in names:
        if name in optional and getattr(config, name) is None:
            continue
        value = getattr(config, name)
        if not _is_in(value, wanted) or (finite and not math.isfinite(value)):
            shown = f"--{name.replace('_', '-')}" if prefix == "--" else prefix + name
            raise ValueError(f"{shown} must be {wanted}, got {value}")


def _is_in(value: float, wanted: str) -> bool:
    if match := _INTERVAL.fullmatch(wanted):
        low, high = float(match[2]), float(match[3])
        return low <= value <= high and (match[1] == "[" or value > low) and (match[4] == "]" or value < high)
    if wanted.endswith(" and finite"):
        return math.isfinite(value) and _is_in(value, wanted.removesuffix(" and finite"))
    if wanted in ("positive", "above 0"):
        return value > 0
    if wanted in ("0 or more", "zero or more"):
        return value >= 0
    if not wanted.startswith("at least "):
        raise ValueError(f"there is no range {wanted!r}")
    return value >= float(wanted.removeprefix("at least "))
