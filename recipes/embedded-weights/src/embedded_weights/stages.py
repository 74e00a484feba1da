"""The three stages, each a run of its own that can be killed anywhere, and the folder that is shipped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model import DifixNetwork, GateConfig, WeightsMetadata, save_checkpoint, small_config
from difix_model.config import PROMPT
from difix_model.gate.config import EvidenceConfig
from difix_model.identity import scale_detail, start_at_identity
from embedded_weights.coarse_pairs import CoarsePairs
from embedded_weights.config import RecipeConfig, StageConfig
from embedded_weights.prediction import mean_gains
from embedded_weights.task import CoarseTask
from train_runs import Loop, RunFolder

REPORT_EVERY = 250
"""Steps whose mean loss is reported."""

METADATA = WeightsMetadata(
    name="difix-small",
    license="Apache-2.0",
    origin="trained from scratch on generated scenes only; see MODEL_CARD.md",
    uses_reference=True,
    gate=GateConfig(evidence=EvidenceConfig()),
)

Report = Callable[[dict[str, Any]], None]
"""Takes what happened, as plain values."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Pairs by the size of their images."""

    small: Sequence[CoarsePairs]
    """For stage 1."""

    all: Sequence[CoarsePairs]
    """For stages 2 and 3."""

    held_out: Sequence[CoarsePairs]
    """Generated scenes to validate on."""

    captured: Sequence[CoarsePairs] = ()
    """Captured scenes to validate on; may be empty."""


def new_network(channels: Sequence[int], seed: int = 0) -> tuple[DifixNetwork, Float[Tensor, "t d"]]:
    """A network at the identity, and the embedding that stands for the prompt."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DifixNetwork(small_config(tuple(channels)))
        start_at_identity(network)
        embedding = torch.randn(4, network.config.unet.cross_attention_dim)
    network.vae.requires_grad_(False)
    return network, embedding


def train_stage(
    folder: Path,
    network: DifixNetwork,
    text_embedding: Float[Tensor, "t d"],
    pairs: Sequence[CoarsePairs],
    data: Data,
    config: StageConfig,
    *,
    device: str,
    report: Report,
) -> dict[str, float]:
    """Train the network in place for one stage, or take over what an earlier call has trained.

    Args:
        folder: Run folder of the stage, which an interrupted one is continued from.
        network: Initialized at the identity, or what an earlier stage ended with; on the CPU afterwards.
        text_embedding: Embedding of the prompt.
        pairs: What is trained on.
        data: What is validated on.
        config: The stage.
        device: Where to compute.
        report: Is given losses on the way and gains at the end.

    Returns:
        Gains on held-out pairs, see :func:`embedded_weights.prediction.mean_gains`.
    """
    run = RunFolder(folder)
    task = CoarseTask(network, pairs, config, text_embedding=text_embedding, device=device)
    loop = Loop(task, run, config)
    scores = folder / "metrics.json"
    if not loop.done:
        scores.unlink(missing_ok=True)
    while not loop.done:
        first = len(loop.history)
        loop.train_until(loop.step - loop.step % REPORT_EVERY + REPORT_EVERY)
        losses = [record.loss for record in loop.history[first:]]
        if losses:
            mean = round(sum(losses) / len(losses), 3)
            report({"stage": folder.name, "step": loop.step, "seconds": round(loop.seconds), "loss": mean})
    task.read_model(run.model)  # The moving average.
    network.to("cpu")
    if scores.is_file():
        return json.loads(scores.read_text(encoding="utf-8"))
    gains = mean_gains(network, text_embedding, data.held_out, data.captured)
    run.write_json(scores.name, gains)
    report({"stage": folder.name, "step": loop.step, **gains})
    return gains


def train_all(
    out: Path, data: Data, recipe: RecipeConfig, *, device: str, report: Report
) -> tuple[DifixNetwork, Float[Tensor, "t d"]]:
    """All three stages.

    Args:
        out: Below it each stage has its run folder.
        data: What is trained and validated on.
        recipe: The stages.
        device: Where to compute.
        report: As for :func:`train_stage`.

    Returns:
        The finished network, and the embedding of its prompt.

    Raises:
        RuntimeError: No attempt of stage 1 succeeded.
    """
    network, embedding = _pretrained(out, data, recipe, device=device, report=report)
    for name, config in (("stage2", recipe.main), ("stage3", recipe.identity_fine_tuning)):
        train_stage(out / name, network, embedding, data.all, data, config, device=device, report=report)
    scale_detail(network, recipe.detail_factor)
    return network, embedding


def _pretrained(
    out: Path, data: Data, recipe: RecipeConfig, *, device: str, report: Report
) -> tuple[DifixNetwork, Float[Tensor, "t d"]]:
    """Stage 1, with as many seeds as it takes."""
    for seed in range(recipe.max_attempts):
        network, embedding = new_network(recipe.channels, seed)
        stage1 = dataclasses.replace(recipe.reference_pretraining, seed=seed)
        gains = train_stage(
            out / f"stage1_seed{seed}", network, embedding, data.small, data, stage1, device=device, report=report
        )
        if gains["right"] - gains["wrong"] >= recipe.min_reference_gain_db:
            return network, embedding
    raise RuntimeError(f"after {recipe.max_attempts} attempts the reference still makes no difference: make more pairs")


def save_model(folder: Path, network: DifixNetwork, text_embedding: Float[Tensor, "t d"]) -> None:
    """Write the folder that is shipped, in half precision."""
    save_checkpoint(
        folder, network, text_embedding=text_embedding, prompt=PROMPT, metadata=METADATA, dtype=torch.float16
    )
