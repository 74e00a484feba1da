"""JSON files of other programs: whatever is wrong with one, or with a number in it, is said in a sentence."""

import json
import math
from pathlib import Path
from typing import Any

from splat_recon.errors import InputError

MAX_WHOLE_DIGITS = 18
"""Whole numbers with more digits are read as floating-point ones, which may be infinite."""

MAX_PIXELS = 1_000_000
"""Most pixels of a side that a number may say."""


def read_json_file(path: Path) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    NaN and Infinity are read as such: whoever uses a number checks it.
    """
    try:
        content = path.read_bytes()
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        return json.loads(content.decode("utf-16" if wide else "utf-8-sig"), parse_int=_whole)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read: it is not in UTF-8 ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise InputError(f"{path} cannot be read: it is nested too deep") from None
    except ValueError as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def finite_number(value: Any, what: str) -> float:
    """A number, as a float.

    Args:
        value: From a JSON file.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what} must be a number, got {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{what} must be a finite number, got {_shown(value)}")
    return number


def positive_number(value: Any, what: str) -> float:
    """`finite_number` that is more than 0."""
    number = finite_number(value, what)
    if number <= 0:
        raise InputError(f"{what} must be more than 0, got {_shown(value)}")
    return number


def num_pixels(value: Any, what: str) -> int:
    """A width or height: from 1 to a million, rounded down."""
    number = positive_number(value, what)
    if not 1 <= number <= MAX_PIXELS:
        raise InputError(f"{what} must be from 1 to {MAX_PIXELS} pixels, got {_shown(value)}")
    return int(number)


def angle(value: Any, what: str, half_turn: float) -> float:
    """An angle of view, more than 0 and less than half a turn."""
    number = positive_number(value, what)
    if number >= half_turn or math.tan(number / half_turn * math.pi / 2) < 1e-9:
        raise InputError(f"{what} must be an angle of more than 0 and less than half a turn, got {_shown(value)}")
    return number


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_WHOLE_DIGITS else float(digits)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
