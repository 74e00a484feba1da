"""Numbers of configurations, and the ranges that they must be in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from output_files import check_range


@dataclass
class Config:
    some_value: float | None = 1.0
    not_given: float | None = None


@pytest.mark.parametrize(
    ("wanted", "inside", "outside"),
    [
        ("in [0, 1]", (0, 0.5, 1), (-0.1, 1.1, math.inf)),
        ("in (0, 1]", (0.1, 1), (0, 1.1)),
        ("in [0, 1)", (0, 0.9), (-1, 1)),
        ("at least 16", (16, math.inf), (15.9,)),
        ("at least 0 and finite", (0, 5), (-1, math.inf)),
        ("0 or more", (0, math.inf), (-1,)),
        ("positive", (0.1, math.inf), (0, -1)),
    ],
)
def test_a_number_is_in_its_range_or_refused_by_name(wanted: str, inside: tuple, outside: tuple) -> None:
    for value in inside:
        check_range(Config(some_value=value), wanted, "some_value", "not_given")
    for value in (*outside, math.nan):
        with pytest.raises(ValueError, match=f"^some_value must be .*, got {value}$"):
            check_range(Config(some_value=value), wanted, "some_value")


def test_flags_infinity_and_what_has_to_be_given() -> None:
    with pytest.raises(ValueError, match=r"^--some-value must be zero or more, got inf$"):
        check_range(Config(some_value=math.inf), "zero or more", "some_value", prefix="--", finite=True)
    with pytest.raises(ValueError, match=r"^gate\.some_value must be at least 2, got 1\.0$"):
        check_range(Config(), "at least 2", "some_value", prefix="gate.")
    with pytest.raises(TypeError):
        check_range(Config(some_value=None), "at least 2", "some_value")


def test_a_range_in_other_words_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no range 'at most 5'"):
        check_range(Config(), "at most 5", "some_value")
