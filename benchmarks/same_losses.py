"""Losses and weights of short seeded trainings, to the bit: run it on two revisions and compare what it prints.

    uv run python benchmarks/same_losses.py > after.txt
    git worktree add ../before REVISION
    cp benchmarks/same_losses.py ../before/benchmarks/
    (cd ../before && uv run --frozen python benchmarks/same_losses.py) > before.txt
    diff before.txt after.txt

A change that is not meant to change results shows no difference. A tiny fixer is trained on pairs of noise, with all
that the result of a step depends on: accumulation, moving average, cosine schedule with warm-up, augmentation,
references that are dropped or wrong, and a second part after a save and a load. Compare on one machine: the bits are
those of a CPU with one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

SIDE = 32


def write_pairs(folder: Path) -> Path:
    """Pairs of noise, with and without a reference, as a pairs file."""
    rng = np.random.default_rng(0)
    splits: dict[str, dict[str, dict[str, str]]] = {"train": {}, "test": {}}
    for number in range(7):
        entry = {"prompt": "remove degradation"}
        for key in ("image", "target_image", *(("ref_image",) if number % 3 else ())):
            entry[key] = f"{key}_{number}.png"
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / entry[key])
        splits["train" if number < 5 else "test"][f"pair_{number}"] = entry
    path = folder / "pairs.json"
    path.write_text(json.dumps(splits), encoding="utf-8")
    return path


def digest(path: Path) -> str:
    """Of all tensors of a file of weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        found.update(name.encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:32]


def train_fixer(folder: Path) -> None:
    """Twelve steps of a tiny network, stopped and resumed after seven."""
    from difix_train import DataConfig, LossConfig, OptimizerConfig, RunSettings, TrainConfig, open_run

    config = TrainConfig(
        max_steps=12,
        batch_size=2,
        gradient_accumulation=2,
        ema_decay=0.9,
        trainable="all",
        log_every=1,
        checkpoint_every=7,
        validate_every=6,
        loss=LossConfig(lpips_weight=0.0, gram_weight=0.0, l1_weight=0.3),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=3),
        data=DataConfig(
            height=SIDE, width=SIDE, drop_reference_prob=0.3, wrong_reference_prob=0.3, horizontal_flip_prob=0.5
        ),
    )
    settings = RunSettings(pairs=write_pairs(folder), out=folder / "run", preset="tiny", config=config)
    for part in (dataclasses.replace(settings, stop_at=7), dataclasses.replace(settings, resume=True)):
        run = open_run(part)
        while not run.done:
            run.advance()
    for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        if values["kind"] == "train":
            print(
                "fixer", values["step"], values["loss"].hex(), values["grad_norm"].hex(), values["learning_rate"].hex()
            )
        else:
            print("fixer", values["step"], *(f"{name} {row['psnr'].hex()}" for name, row in values["after"].items()))
    print("fixer weights", digest(folder / "run" / "model" / "model.safetensors"))


def main() -> None:
    """Train, and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train_fixer(Path(folder))


if __name__ == "__main__":
    main()
