"""What a training step costs: steps per second, peak memory, and the share of waiting for images.

On a CPU the embedded architecture, on CUDA the published one with random weights; every row in a process of its own. On
a CPU that others use as well, compare rows by the processor's seconds.

    uv run python benchmarks/train_step.py [--device cuda] [--out runs/train_step]
    uv run python benchmarks/train_step.py --estimate    # count the memory of the CUDA rows, on no device

What is measured has no loss with a backbone of its own. What is counted names LPIPS and Gram apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from difix_model import DifixNetwork, PairRecord, write_pairs
from difix_model.config import PROMPT
from difix_train import (
    DataConfig,
    DifixTask,
    LossConfig,
    Objective,
    PairDataset,
    TrainConfig,
    preset,
    start_from_preset,
)
from difix_train.config import Trainable
from difix_train.losses.vgg import VggFeatures
from difix_train.trainable import freeze_all_but, trainable_parameters
from train_runs import Loop, Processes

NUM_IMAGES = 8
BACKBONE = "LPIPS and Gram"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One setting."""

    height: int
    width: int
    batch: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False
    trainable: Trainable = "released"
    unet_lora_rank: int = 0
    num_workers: int = 1
    loss_views: Literal["all", "rendered"] = "all"


CPU_ROWS = (
    Row(height=96, width=128),
    Row(height=96, width=128, batch=4),
    Row(height=96, width=128, batch=4, checkpointing=True),
    Row(height=96, width=128, batch=4, precision="bfloat16"),
    Row(height=192, width=256),
    Row(height=192, width=256, checkpointing=True),
    Row(height=192, width=256, precision="bfloat16"),
    Row(height=192, width=256, trainable="lora", unet_lora_rank=16),
    Row(height=192, width=256, num_workers=0),
    Row(height=192, width=256, batch=4),
    Row(height=192, width=256, batch=4, checkpointing=True),
    Row(height=192, width=256, batch=4, precision="bfloat16"),
    Row(height=192, width=256, batch=4, precision="bfloat16", checkpointing=True),
)
LORA = {
    "precision": "bfloat16",
    "checkpointing": True,
    "trainable": "lora",
    "unet_lora_rank": 16,
    "loss_views": "rendered",
}
CUDA_ROWS = (
    Row(height=576, width=1024, precision="bfloat16", num_workers=4),
    Row(height=576, width=1024, precision="bfloat16", checkpointing=True, num_workers=4),
    Row(height=576, width=1024, batch=4, precision="bfloat16", checkpointing=True, num_workers=4),
    Row(height=576, width=1024, num_workers=4),
    Row(height=576, width=1024, num_workers=4, **LORA),
    Row(height=512, width=512, num_workers=4, **LORA),
)


def measure(row: Row, device: str, steps: int, folder: Path, *, preset_name: str | None = None) -> dict[str, float]:
    """Train some steps on files, the first two for warming up."""
    preset_name = preset_name or ("sd-turbo" if device == "cuda" else "embedded")
    torch.set_num_threads(1)
    data = DataConfig(height=row.height, width=row.width, num_workers=row.num_workers)
    config = TrainConfig(
        batch_size=row.batch,
        precision=row.precision,
        gradient_checkpointing=row.checkpointing,
        trainable=row.trainable,
        data=data,
        loss=LossConfig(lpips_weight=0, gram_weight=0, views=row.loss_views),
    )
    dataset = PairDataset.from_file(_pairs(folder, row), "train", data)
    start = start_from_preset(preset(preset_name), prompts=[PROMPT], seed=0)
    if row.unet_lora_rank:
        start.network.add_unet_lora(row.unet_lora_rank, alpha=float(row.unet_lora_rank))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    processes = Processes(device)
    task = DifixTask(start.network, start.text_embeddings, dataset, config, processes=processes)
    loop = Loop(task, None, config, processes=processes)
    loop.train_until(2)
    waited, begun, worked = loop.seconds_waiting, time.perf_counter(), time.process_time()
    loop.train_until(2 + steps)
    seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
    else:
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    return {
        "steps_per_second": steps / seconds,
        "processor_seconds_per_step": worked / steps,
        "peak_gb": peak,
        "waiting_fraction": (loop.seconds_waiting - waited) / seconds,
    }


def estimated_gb(row: Row) -> dict[str, float]:
    """Memory of a step of the published architecture in gigabytes, counted on no device.

    The sum of what is kept for the backward pass (weights that are kept as they are not counted), the activations of
    the block that needs most of them where blocks are recomputed, and weights, gradients and moments in float32. LPIPS
    and Gram, which share VGG16, are named apart; what they keep is let go before blocks are recomputed, so that the sum
    is a little too high there. Temporary buffers and fragmentation are not in it.
    """
    dtype = torch.bfloat16 if row.precision == "bfloat16" else torch.float32
    with torch.device("meta"):
        network = DifixNetwork(preset("sd-turbo").network()).to(dtype)
        if row.unet_lora_rank:
            network.add_unet_lora(row.unet_lora_rank, alpha=float(row.unet_lora_rank))
            network.to(dtype)
    trained = trainable_parameters(network, row.trainable)
    freeze_all_but(network, trained)
    network.train()
    blocks = [*network.unet.down_blocks, network.unet.mid_block, *network.unet.up_blocks]
    blocks += [network.vae.decoder.mid_block, *network.vae.decoder.up_blocks]
    kept = _Kept(network)
    by_block = kept.of_blocks(blocks)
    x = torch.empty(row.batch, 2, 3, row.height, row.width, device="meta", dtype=dtype)
    text = torch.empty(77, 1024, device="meta", dtype=dtype)

    def run() -> float:
        kept.sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
            network(x, text_embedding=text, clamp=False, decode="target" if row.loss_views == "rendered" else "all")
        return kept.total

    attention = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = lambda q, k, v, **_: _FusedAttention.apply(q, k, v)
    try:
        return _summed(network, trained, row, run, by_block)
    finally:
        torch.nn.functional.scaled_dot_product_attention = attention


def _summed(network, trained, row: Row, run: Callable[[], float], by_block: dict[int, float]) -> dict[str, float]:
    everything = run()
    largest = max(by_block.values())
    if row.checkpointing:
        network.unet.enable_gradient_checkpointing()
        network.vae.gradient_checkpointing = True
    activations = run() + largest if row.checkpointing else everything
    weights = 4e-9 * sum(parameter.numel() for parameter in network.parameters())
    states = 3 * 4e-9 * sum(parameter.numel() for parameter in trained.values())
    parts = {"weights": weights, "gradients and moments": states, "activations": activations}
    return parts | {BACKBONE: _backbone_gb(row)}


def _backbone_gb(row: Row) -> float:
    """VGG16, and what LPIPS and Gram keep for the backward pass; not the target's features, which are let go."""
    with torch.device("meta"):
        vgg = VggFeatures()
    objective = Objective(LossConfig(l2_weight=0, gram_warmup_steps=0), vgg=vgg).to("meta")
    num_views = 1 if row.loss_views == "rendered" else 2
    x_pred = torch.empty(row.batch, num_views, 3, row.height, row.width, device="meta", requires_grad=True)
    kept = _Kept(vgg)
    with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
        objective(x_pred, x_pred.detach(), step=1, generator=torch.Generator())
    return kept.total + 4e-9 * sum(parameter.numel() for parameter in vgg.parameters())


class _FusedAttention(torch.autograd.Function):
    """What fused attention on a GPU keeps: its inputs and its output, no matrix of scores; forward only."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out


class _Kept:
    """Bytes that the backward pass needs, by storage."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.sizes: dict[int, int] = {}
        self._weights = {id(parameter) for parameter in network.parameters()}

    @property
    def total(self) -> float:
        return 1e-9 * sum(self.sizes.values())

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in self._weights:
            storage = tensor.untyped_storage()
            self.sizes[storage._cdata] = storage.nbytes()
        return tensor

    def of_blocks(self, blocks: list[torch.nn.Module]) -> dict[int, float]:
        """What each block adds, filled in by the next forward pass without recomputation."""
        added: dict[int, float] = {}
        before: dict[int, float] = {}
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda *_, number=number: before.__setitem__(number, self.total))
            block.register_forward_hook(
                lambda *_, number=number: added.setdefault(number, self.total - before[number]) and None
            )
        return added


def _pairs(folder: Path, row: Row) -> Path:
    rng = np.random.default_rng(0)
    names = ("image", "target", "reference")
    records = []
    for index in range(NUM_IMAGES):
        paths = {name: folder / f"{name}_{index}.png" for name in names}
        for path in paths.values():
            small = rng.integers(0, 256, (row.height // 8, row.width // 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((row.width, row.height), Image.Resampling.BICUBIC).save(path)
        records.append(
            PairRecord(
                id=f"{index}",
                split="train",
                image=paths["image"],
                target_image=paths["target"],
                ref_image=paths["reference"],
                prompt=PROMPT,
            )
        )
    write_pairs(folder / "pairs.json", records)
    return folder / "pairs.json"


def table(results: list[dict]) -> str:
    """The rows as Markdown."""
    lines = [
        "| size | batch | precision | trained | recomputed | loaders | steps/s | processor s/step | peak GB "
        "| waiting for images |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        row = Row(**result["row"])
        trained = f"adapters, rank {row.unet_lora_rank}" if row.unet_lora_rank else row.trainable
        lines.append(
            f"| {row.width}x{row.height} | {row.batch} | {row.precision} | {trained} | "
            f"{'yes' if row.checkpointing else 'no'} | {row.num_workers} | {result['steps_per_second']:.3f} | "
            f"{result['processor_seconds_per_step']:.2f} | "
            f"{result['peak_gb']:.2f} | {result['waiting_fraction']:.1%} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/train_step"))
    parser.add_argument("--estimate", action="store_true", help="count the CUDA rows' memory without a device")
    parser.add_argument("--row", help="JSON of one row, measured in this process")
    arguments = parser.parse_args()
    if arguments.row:
        with tempfile.TemporaryDirectory() as folder:
            row = Row(**json.loads(arguments.row))
            print(json.dumps(measure(row, arguments.device, arguments.steps, Path(folder))))
        return 0
    if arguments.estimate:
        for row in CUDA_ROWS:
            parts = estimated_gb(row)
            shown = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
            total = sum(parts.values())
            print(f"{row}: {total:.1f} GB, {total - parts[BACKBONE]:.1f} without {BACKBONE} ({shown})", flush=True)
        return 0
    results, failed = [], []
    for row in CUDA_ROWS if arguments.device == "cuda" else CPU_ROWS:
        command = [sys.executable, __file__, "--device", arguments.device, "--steps", str(arguments.steps)]
        command += ["--row", json.dumps(dataclasses.asdict(row))]
        process = subprocess.run(command, check=False, capture_output=True, text=True)
        if process.returncode:
            # A row that does not fit into the memory, say, does not cost the others.
            failed.append(row)
            print(f"failed: {row}\n{process.stderr}", file=sys.stderr, flush=True)
            continue
        output = process.stdout
        results.append({"row": dataclasses.asdict(row), **json.loads(output.splitlines()[-1])})
        print(table(results[-1:]).splitlines()[-1], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"train_step_{arguments.device}.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
