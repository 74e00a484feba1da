"""What the gate lets through, as data that travels with the weights; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from difix_model.errors import InputError
from output_files import check_range


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceConfig:
    """Which changes count as evidence. Changes are root mean squares over colors, in [0, 1]."""

    cells: int = 32
    """Cells along the longer side of the image; a change is averaged over about three of them."""

    low_change: float = 0.02
    """Coarse changes up to this are no evidence."""

    high_change: float = 0.06
    """Coarse changes from this on are."""

    low_coverage: float = 0.2
    """With evidence in this fraction of the image or less, nothing is let through, in [0, 1]."""

    high_coverage: float = 0.4
    """With evidence in this fraction of the image or more, what is found is let through in full, in [0, 1]."""

    hysteresis: float = 0.8
    """How far `low_change` is lowered for images with high coverage, in [0, 1]; `high_change` goes down three quarters
    as far."""

    palette_drift: float = 0.6
    """With a reference: a fix whose colors as a whole move away from the reference's by this fraction of their own
    change is not let through at all, from a third of it on less and less. Above 0; from 1 on it has hardly any
    effect."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "cells", prefix="evidence.")
        for low, high in (("low_change", "high_change"), ("low_coverage", "high_coverage")):
            if not 0 <= getattr(self, low) < getattr(self, high) <= 1:
                raise ValueError(
                    f"evidence.{low} and evidence.{high} must be in [0, 1] and increase, got {getattr(self, low)} and "
                    f"{getattr(self, high)}"
                )
        check_range(self, "in [0, 1]", "hysteresis", prefix="evidence.")
        check_range(self, "above 0", "palette_drift", prefix="evidence.")


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """What the gate lets through."""

    strength: float = 1.0
    """Fraction of the change, in [0, 1]; 0 returns the render."""

    detail_strength: float = 1.0
    """Fraction of the change's fine part (what `blur_radius` smooths away), in [0, 1], on top of `strength`."""

    blur_radius: int = 4
    """Pixels over which a change is averaged to tell its coarse part from its fine part, at least 1."""

    max_change: float = 1.0
    """No channel of a pixel changes by more than about this; approached smoothly. In (0, 1]."""

    trusted_change: float = 0.0
    """Root mean square change of an image from which it is let through in full; below, in proportion, since a network
    that finds little to fix had a good image before it. 0 trusts every change."""

    dark_level: float = 0.0
    """Where the brightest channel, averaged over `blur_radius`, is below this, nothing is brightened, or in proportion
    from half of it on: black things look like holes. Holes that the opacity shows are filled all the same. In [0, 1];
    0 for no such care."""

    evidence: EvidenceConfig | None = None
    """Lets a change through only where there is evidence for it; None does so everywhere."""

    def __post_init__(self) -> None:
        check_range(self, "in [0, 1]", "strength", "detail_strength", "dark_level", prefix="gate.")
        check_range(self, "at least 1", "blur_radius", prefix="gate.")
        check_range(self, "in (0, 1]", "max_change", prefix="gate.")
        check_range(self, "at least 0", "trusted_change", prefix="gate.")


DEFAULT_GATE = GateConfig(evidence=EvidenceConfig())
"""For weights that bring no gate that looks at evidence."""

GateName = Literal["auto", "checkpoint", "off"]
"""Where a gate comes from: the default, unless the weights' own looks at evidence as well; the weights' own, if they
bring one; none."""

GATES: tuple[GateName, ...] = get_args(GateName)

GateChoice = GateConfig | GateName
"""A gate, or where to take one from."""


def gate_from(settings: Mapping[str, Any] | None) -> GateConfig | None:
    """Read the settings that travel in a checkpoint's metadata.

    Raises:
        InputError: If they are unknown or out of range.
    """
    if settings is None:
        return None
    given = dict(settings)
    try:
        evidence = given.pop("evidence", None)
        return GateConfig(**given, evidence=None if evidence is None else EvidenceConfig(**evidence))
    except (TypeError, ValueError) as error:
        raise InputError(f"the gate of these weights cannot be used: {error}") from error


def chosen_gate(choice: GateChoice, own: GateConfig | None) -> GateConfig | None:
    """Return the gate that is meant."""
    if isinstance(choice, GateConfig):
        return choice
    careful = own if own is not None and own.evidence is not None else DEFAULT_GATE
    gates = {"checkpoint": own, "auto": careful, "off": None}
    if choice not in gates:
        raise InputError(f"gate must be a GateConfig or one of {', '.join(gates)}, got {choice!r}")
    return gates[choice]
