"""From nothing to the weights that come with the project: generated pairs, training, and a checkpoint folder.

    uv run python benchmarks/embedded_weights.py --out runs/weights                       # CPU, an hour of one core
    uv run python benchmarks/embedded_weights.py --out runs/weights --device cuda          # larger and longer
    uv run python benchmarks/embedded_weights.py --out runs/weights --sweep                # size, scenes and time
    uv run python benchmarks/embedded_quality.py table --model runs/weights/model --pairs ...

Pairs are made once (`pairs/` for training, `held_out/` for the figures at the end) and taken from there afterwards;
`--pairs` takes other folders. What is trained, and why only that, is told in `difix_train.coarse`. The folder `model/`
is what `DifixPipeline.from_pretrained` and `--fixer` take.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from difix_model.network import DifixNetwork
    from difix_model.pairs import PairRecord
    from difix_train.coarse.config import CoarseConfig
    from difix_train.coarse.pairs import CoarsePairs

STRATEGIES = ("sparse", "underfit")
TRAIN_SEED, HELD_OUT_SEED = 2000, 5000
SIZE, NUM_VIEWS, SPLAT_STEPS = 192, 20, 500
"""Longer side of the generated photos, photos per scene, steps of a splat."""

CHANNELS = (32, 64)
"""Of the shipped UNet's levels."""

CPU: dict[str, Any] = {"max_steps": 1500, "batch_size": 16, "cells": (8, 8, 8, 6)}
CUDA: dict[str, Any] = {"max_steps": 10_000, "batch_size": 64, "cells": (8, 8, 6, 4)}
"""What differs by device."""

SWEEP = [
    {"channels": (32, 64), "scenes": 26},
    {"channels": (32, 64), "scenes": 52},
    {"channels": (32, 64), "scenes": None},
    {"channels": (16, 32), "scenes": None},
    {"channels": (48, 96), "scenes": None},
    {"channels": (64, 128), "scenes": None},
]
"""Sizes and numbers of scenes (None: all) that are compared, after the same number of steps."""

METADATA = {
    "name": "difix-small",
    "license": "Apache-2.0",
    "origin": "trained from scratch on generated scenes only; see MODEL_CARD.md",
    "uses_reference": True,
    "timestep": 199,
    "gate": {
        "max_change": 0.05,
        "evidence": {
            "doubted_change": 0.004,
            "believed_change": 0.015,
            "doubted_share": 0.1,
            "believed_share": 0.3,
        },
    },
}


def make_pairs(out: Path, first_seed: int, scenes: int, *, test: bool, processes: int) -> None:
    """Pairs of generated scenes; a finished folder is left alone, a begun one is gone on with."""
    command = [
        *(sys.executable, "-m", "difix3d_pairs_app", "--out", str(out), "--generated", str(scenes)),
        *("--first-seed", str(first_seed), "--num-views", str(NUM_VIEWS), "--max-steps", str(SPLAT_STEPS)),
        *("--max-size", str(SIZE), "--test-share", "1" if test else "0", "--num-processes", str(processes)),
        *("--strategies", *STRATEGIES),
    ]
    if not (out / "pairs.json").is_file():
        subprocess.run(command, check=True)


def read_folders(folders: Sequence[Path]) -> list[PairRecord]:
    """All pairs of folders of pairs, of either split."""
    from difix_model.pairs import read_pairs

    return [record for folder in folders for record in read_pairs(folder / "pairs.json")]


def of_scenes(records: Sequence[PairRecord], count: int | None) -> list[PairRecord]:
    """The pairs of the first so many scenes."""
    names = sorted({record.id.split("/")[0] for record in records})[:count]
    return [record for record in records if record.id.split("/")[0] in names]


def new_network(channels: tuple[int, ...], seed: int = 0) -> tuple[DifixNetwork, torch.Tensor]:
    """A network at the identity, and the embedding that stands for the prompt."""
    from difix_model.identity import small_config, start_at_identity
    from difix_model.network import DifixNetwork

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DifixNetwork(small_config(channels))
        start_at_identity(network)
        embedding = torch.randn(4, network.config.unet.cross_attention_dim)
    network.vae.requires_grad_(False)
    return network, embedding


def scores(network: DifixNetwork, embedding: torch.Tensor, held_out: CoarsePairs) -> dict[str, float]:
    """Mean gain on pairs of unseen scenes with the right, a wrong and no reference, and the share that is harmed."""
    from difix_train.coarse.training import coarse_gain

    network.to("cpu")
    gains = {
        kind: coarse_gain(network, held_out, text_embedding=embedding, references=kind)
        for kind in ("right", "wrong", "none")
    }
    means = {kind: round(float(gain.mean()), 3) for kind, gain in gains.items()}
    return means | {"harmed": round(float((gains["right"] < 0).float().mean()), 3)}


def trained(
    pairs: dict[int, CoarsePairs],
    held_out: CoarsePairs,
    config: CoarseConfig,
    channels: tuple[int, ...],
    device: str,
    say: Callable[[dict[str, Any]], None],
) -> tuple[DifixNetwork, torch.Tensor]:
    """Train a network; its loss is told seven times on the way, its scores at the end."""
    from difix_train.coarse.training import train_coarse

    network, embedding = new_network(channels)
    start = time.time()
    every = max(1, config.max_steps // 8)

    def on_step(step: int, loss: float) -> None:
        if step % every == 0 and step < config.max_steps:
            say({"step": step, "seconds": round(time.time() - start), "loss": round(loss, 3)})

    train_coarse(network, pairs, config, text_embedding=embedding, device=device, on_step=on_step)
    size = sum(parameter.numel() for parameter in network.unet.parameters())
    row = {"step": config.max_steps, "seconds": round(time.time() - start), "parameters": size}
    say(row | scores(network, embedding, held_out))
    return network, embedding


def milliseconds(network: DifixNetwork, embedding: torch.Tensor) -> float:
    """Of one 256x192 render with a reference, the best of five, on the threads at hand."""
    x = torch.rand(1, 2, 3, 192, 256) * 2 - 1
    times = []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            network(x, text_embedding=embedding, decode="target")
            times.append(time.perf_counter() - start)
    return round(1000 * min(times), 1)


def main() -> None:
    """Make what is missing, train, and write the model."""
    from difix_model.formats.checkpoint import save_checkpoint
    from difix_train.coarse.config import CoarseConfig
    from difix_train.coarse.pairs import coarse_pairs

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, nargs="+", help="folders of pairs to train on, instead of making them")
    parser.add_argument("--held-out", type=Path, help="folder of pairs of other scenes, instead of making them")
    parser.add_argument("--num-scenes", type=int, default=104)
    parser.add_argument("--num-held-out", type=int, default=14)
    parser.add_argument("--num-processes", type=int, default=1, help="scenes that are made at a time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--sweep", action="store_true", help="compare sizes and numbers of scenes instead")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train_folders, test_folder = options.pairs or [options.out / "pairs"], options.held_out or options.out / "held_out"
    if not options.pairs:
        processes = options.num_processes
        make_pairs(train_folders[0], TRAIN_SEED, options.num_scenes, test=False, processes=processes)
    if not options.held_out:
        make_pairs(test_folder, HELD_OUT_SEED, options.num_held_out, test=True, processes=options.num_processes)
    config = CoarseConfig(**(CUDA if options.device.startswith("cuda") else CPU))
    if options.max_steps:
        config = dataclasses.replace(config, max_steps=options.max_steps)
    records = read_folders(train_folders)
    held_out = coarse_pairs(read_folders([test_folder]), (8,))[8]
    log = options.out / ("sweep.jsonl" if options.sweep else "training.jsonl")
    for choice in SWEEP if options.sweep else [{"channels": CHANNELS, "scenes": None}]:

        def say(row: dict[str, Any], choice: dict[str, Any] = choice) -> None:
            line = json.dumps(choice | row)
            print(line, flush=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

        pairs = coarse_pairs(of_scenes(records, choice["scenes"]), config.cells)
        network, embedding = trained(pairs, held_out, config, choice["channels"], options.device, say)
        if options.sweep:
            say({"milliseconds": milliseconds(network, embedding)})
            continue
        folder = options.out / "model"
        save_checkpoint(
            folder,
            network,
            text_embedding=embedding,
            prompt="remove degradation",
            metadata=METADATA,
            dtype=torch.float16,
        )
        print(folder)


if __name__ == "__main__":
    main()
