"""The random numbers of a training: one generator per purpose, so that drawing more for one leaves the others alone."""

import hashlib

import torch
from jaxtyping import UInt8
from torch import Tensor

GENERATORS = ("init", "views", "density", "background")
"""The purposes that seeds are counted by; dropout came later."""

ON_DEVICE = ("density", "dropout")
"""These draw numbers for each Gaussian, and live where those do."""

DROPOUT_SEED = 1 << 48
"""What is added to the seed for the generator of dropout, far from the others'."""


def seeded_generators(seed: int, *, device: str, rank: int = 0) -> dict[str, torch.Generator]:
    """The generators of a training by purpose.

    Args:
        seed: Of the training. A GPU draws other numbers than a CPU from the same one.
        rank: Of this process among those that train together, each of which has Gaussians of its own.
    """
    # The multiplier keeps neighboring seeds of different runs apart.
    seeds = {name: seed * len(GENERATORS) + index for index, name in enumerate(GENERATORS)}
    seeds["dropout"] = seed + DROPOUT_SEED
    return {
        name: torch.Generator(device=device).manual_seed(value + (rank << 40))
        if name in ON_DEVICE
        else torch.Generator().manual_seed(value)
        for name, value in seeds.items()
    }


def load_generator(generator: torch.Generator, state: UInt8[Tensor, " n"]) -> None:
    """Go on from a saved state; one of another kind of device gives a seed, since it cannot be gone on from."""
    if generator.get_state().numel() == state.numel():
        generator.set_state(state)
    else:
        digest = hashlib.blake2b(state.numpy().tobytes(), digest_size=7).digest()
        generator.manual_seed(int.from_bytes(digest, "little"))
