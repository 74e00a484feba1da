"""Flags that mean the same in every command, and the names of parameters as flags."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
"""Where to compute."""

Gate = Literal["auto", "checkpoint", "off"]
"""Which gate says how much of a fix is let through."""


@dataclass(frozen=True, kw_only=True)
class DeviceFlags:
    """Where to compute."""

    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one that can be used."""


@dataclass(frozen=True, kw_only=True)
class FixerFlags(DeviceFlags):
    """Which weights fix, and how much of what they propose is let through."""

    model: str = "default"
    """Weights: default (those that come with the project), the folder of a training run or of one of its checkpoints, a
    folder in the published layout, a hub id such as nvidia/difix_ref, or a model_<step>.pkl of the released trainer.
    Weights carry their own licenses."""

    base: str | None = None
    """Only for a .pkl: what it was trained from, as a folder or hub id (stabilityai/sd-turbo for the released ones)."""

    gate: Gate = "auto"
    """The gate: how much of a fix is let through. auto keeps good renders and lets through what changes bad ones;
    checkpoint takes the gate that the weights bring, if any; off lets everything through."""


def as_flag(name: str) -> str:
    """The flag of a parameter: max_size is --max-size."""
    return f"--{name.replace('_', '-')}"


def as_flags(sentence: str, parameters: Iterable[str]) -> str:
    """A sentence of a library with its parameters as flags.

    A name with an underscore is replaced wherever it stands alone; one that is also an English word only before "must",
    which is how configs speak of their fields.
    """
    for name in sorted(parameters, key=len, reverse=True):
        after = "" if "_" in name else r"(?= must\b)"
        sentence = re.sub(rf"(?<![\w./-]){re.escape(name)}(?![\w./-]){after}", as_flag(name), sentence)
    return sentence
