"""How the size of the embedded weights' UNet and the number of scenes decide what stage 1 of their recipe ends in.

    uv run python -m embedded_weights --out runs/weights                  # makes the pairs
    uv run python benchmarks/embedded_sizes.py --weights runs/weights --out runs/sizes

Prints a line of JSON for each size and number of scenes: gains on held-out scenes, and milliseconds of one 256x192
render with a reference. Interrupted, it goes on where it stood.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model import DifixNetwork, PairRecord, read_pairs
from embedded_weights.coarse_pairs import coarse_pairs
from embedded_weights.config import RecipeConfig
from embedded_weights.scenes import HELD_OUT, SMALL
from embedded_weights.stages import Data, new_network, train_stage

CHOICES: list[dict[str, Any]] = [
    *({"channels": size, "scenes": None, "seed": seed} for seed in (0, 1) for size in ((32, 64), (16, 32), (64, 128))),
    *({"channels": (32, 64), "scenes": scenes, "seed": seed} for seed in (0, 1) for scenes in (40, 140)),
]
"""Sizes and numbers of scenes (None: all small ones) that are compared, with two seeds each."""


def of_scenes(records: list[PairRecord], count: int | None) -> list[PairRecord]:
    """The pairs of the first so many scenes."""
    names = sorted({record.id.split("/")[0] for record in records})[:count]
    return [record for record in records if record.id.split("/")[0] in names]


def milliseconds(network: DifixNetwork, embedding: Float[Tensor, "t d"]) -> float:
    """Of one 256x192 render with a reference, the best of five."""
    x = torch.rand(1, 2, 3, 192, 256) * 2 - 1
    times = []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            network(x, text_embedding=embedding, decode="target")
            times.append(time.perf_counter() - start)
    return round(1000 * min(times), 1)


def main() -> None:
    """Train stage 1 for every choice, and print its gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="the recipe's --out, for its pairs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    encoder, _ = new_network(RecipeConfig().channels)
    records = read_pairs(options.weights / SMALL.folder / "pairs.json")
    held_out = coarse_pairs(read_pairs(options.weights / HELD_OUT.folder / "pairs.json"), encoder)
    for choice in CHOICES:
        network, embedding = new_network(choice["channels"], choice["seed"])
        small = coarse_pairs(of_scenes(records, choice["scenes"]), encoder)
        data = Data(small=small, all=small, held_out=held_out)
        name = "_".join(str(part) for part in (*choice["channels"], choice["scenes"] or "all", choice["seed"]))
        gains = train_stage(
            options.out / name,
            network,
            embedding,
            small,
            data,
            dataclasses.replace(RecipeConfig().reference_pretraining, seed=choice["seed"]),
            device=options.device,
            report=lambda row: None,
        )
        print(json.dumps(choice | gains | {"milliseconds": milliseconds(network, embedding)}), flush=True)


if __name__ == "__main__":
    main()
