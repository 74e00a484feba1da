"""Flags that mean the same in every command, and the names of parameters as flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
"""Where to compute."""


@dataclass(frozen=True, kw_only=True)
class DeviceFlags:
    """Where to compute."""

    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one that can be used."""


def as_flag(name: str) -> str:
    """The flag of a parameter: max_size is --max-size."""
    return f"--{name.replace('_', '-')}"


def as_flags(sentence: str, parameters: Mapping[str, str]) -> str:
    """A sentence of a library with its parameters as flags: names, and how they are typed.

    A name with an underscore is replaced wherever it stands alone; one that is also an English word only before "must",
    which is how configs speak of their fields.
    """
    for name in sorted(parameters, key=len, reverse=True):
        after = "" if "_" in name else r"(?= must\b)"
        sentence = re.sub(rf"(?<![\w./-]){re.escape(name)}(?![\w./-]){after}", parameters[name], sentence)
    return sentence
