"""What weights say of themselves beside their numbers: name, license, origin, how they are run, their gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from difix_model.config import TIMESTEP
from difix_model.errors import InputError
from difix_model.gate.config import GateConfig, gate_from


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsMetadata:
    """The entry `metadata` of a checkpoint's `config.json`; None and the defaults mean that nothing is said."""

    name: str | None = None
    """What the weights are called."""

    license: str | None = None
    """License that they carry, whatever the license of the code."""

    origin: str | None = None
    """Where they come from: a hub id, a file's name, or a sentence."""

    uses_reference: bool | None = None
    """Whether they make use of references. None: if views attend to each other in the network."""

    timestep: int = TIMESTEP
    """Diffusion timestep at which the network is run."""

    gate: GateConfig | None = None
    """How much of a fix is let through, where a call does not say; fitted to these weights."""

    notes: Mapping[str, Any] = field(default_factory=dict)
    """Further entries, as plain values."""

    @classmethod
    def from_dict(cls, values: Any) -> WeightsMetadata:
        """The inverse of `to_dict`.

        Raises:
            InputError: An entry is of another kind, or the gate cannot be used.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"metadata must be an object, got {repr(values)[:40]}")
        known = {each.name for each in fields(cls)} - {"notes"}
        given = {name: value for name, value in values.items() if name in known and value is not None}
        kinds = {"name": str, "license": str, "origin": str, "uses_reference": bool, "timestep": int}
        for name, value in given.items():
            if name in kinds and not isinstance(value, kinds[name]):
                raise InputError(f"{name} in the metadata must be a {kinds[name].__name__}, got {repr(value)[:40]}")
        if "gate" in given:
            given["gate"] = gate_from(given["gate"])
        return cls(**given, notes={name: value for name, value in values.items() if name not in known})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without what is not said."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("gate", "notes")}
        said = {name: value for name, value in values.items() if value is not None}
        return said | ({} if self.gate is None else {"gate": asdict(self.gate)}) | dict(self.notes)
