"""Architectures for training from scratch, by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from difix_model.config import NetworkConfig, tiny_config
from difix_train.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """An architecture and how its weights begin."""

    network: Callable[[], NetworkConfig]
    """Gives the architecture; called when it is needed, so that the list of presets costs no import."""

    description: str
    """One line for people."""

    initialize: Literal["random", "identity"] = "random"
    """How weights begin: as the modules draw them, or so that the network returns its input and harms nothing."""

    num_text_tokens: int = 4
    """Tokens of the fixed random embedding that stands for a prompt: a small network has no text encoder."""


def _embedded_network() -> NetworkConfig:
    from difix_model.identity import small_config

    return small_config()


PRESETS: dict[str, Preset] = {
    "embedded": Preset(
        network=_embedded_network,
        description="the architecture of the weights that come with difix-model; trains on a CPU",
        initialize="identity",
    ),
    "tiny": Preset(network=tiny_config, description="milliseconds per step on a CPU; for tests"),
    "sd-turbo": Preset(
        network=NetworkConfig, description="the published architecture, 950 million parameters", num_text_tokens=77
    ),
}


def preset(name: str) -> Preset:
    """The preset called ``name``."""
    if name not in PRESETS:
        raise InputError(f"there is no preset '{name}': choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
