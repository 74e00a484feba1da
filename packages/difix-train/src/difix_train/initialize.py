"""How the weights of a network trained from scratch begin: named functions that a preset chooses from."""

from __future__ import annotations

from collections.abc import Callable

from difix_model.network import DifixNetwork

Initializer = Callable[[DifixNetwork], None]
"""Changes a freshly built network in place; runs under a seeded generator."""


def keep_random(network: DifixNetwork) -> None:
    """Leave the modules' own random initialization."""


def start_at_identity(network: DifixNetwork) -> None:
    """Make the network return its input, so that training begins where nothing is harmed."""
    from difix_model import identity

    identity.start_at_identity(network)


INITIALIZERS: dict[str, Initializer] = {"random": keep_random, "identity": start_at_identity}
