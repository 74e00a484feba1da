"""How far a run has come."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a phase of the run has come."""

    phase: str
    """What is being done, in words."""

    done: int
    """Pieces of the phase that are done."""

    total: int
    """Pieces of the phase in all."""

    note: str = ""
    """What is worth knowing at this moment, in a few words."""
