"""The four stages, each a run of its own that can be killed anywhere, and the file that they end in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from sparsefusion import (
    EftConfig,
    ModelConfig,
    SparseFusionModel,
    UNetConfig,
    VaeConfig,
    build_model,
    load_model,
    save_model,
)
from sparsefusion.training.autoencoder import VAE_FILE, VaeTask
from sparsefusion.training.config import DenoiserTrainConfig, GeneratedObjectsConfig, JointTrainConfig, VaeTrainConfig
from sparsefusion.training.denoiser import DenoiserTask, with_scaled_latents
from sparsefusion.training.features import QueryFeatures
from sparsefusion.training.joint import JointTask
from sparsefusion.training.object_task import MODEL_FILE
from sparsefusion.training.objects import PrecastObjects
from sparsefusion_small.judging import eft_figures, sample_figures, vae_psnr
from train_runs import Loop, LoopConfig, OptimizerConfig

NETWORKS = ModelConfig(
    eft=EftConfig(
        encoder_width=16,
        encoder_tail=False,
        hidden=64,
        num_layers=2,
        num_depths=12,
        dropout=0.0,
        depth_margin=2.1,
        centered_rays=True,
    ),
    unet=UNetConfig(dim=32, dim_mults=(1, 2, 4), num_resnet_blocks=1, cond_channels=64, num_heads=4, head_dim=32),
    vae=VaeConfig(block_channels=(16, 32, 64)),
    latent_scale=1.0,
    image_size=64,
)
"""Latents of 16 x 16 for images of 64 x 64."""

IMAGES_FOR_SCALE = 64

QUERIES_PER_OBJECT = 8
"""Views of every object that the diffusion model is trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How long, and on how much."""

    steps: tuple[int, int, int, int] = (9000, 700, 4000, 2000)
    """Steps of the transformer, of the autoencoder, of the diffusion model, and of the autoencoder's decoder alone."""
    num_objects: int = 1000
    """Objects that transformer and autoencoder are trained on."""
    num_diffusion_objects: int = 300
    """Of these, the objects that the diffusion model is trained on."""
    num_judged: int = 20
    """Unseen objects that the figures are measured on."""


Report = Callable[[str], None]


def _optimizer(learning_rate: float, steps: int) -> OptimizerConfig:
    """Adam with a cosine that ends with the training."""
    return OptimizerConfig(
        learning_rate=learning_rate,
        beta2=0.99,
        weight_decay=0.0,
        schedule="cosine",
        warmup_steps=min(200, max(1, steps // 10)),
    )


def _finish(loop: Loop, name: str, report: Report) -> None:
    """Train to the end, saying where it is."""
    while not loop.done:
        loop.train_until((loop.step // 200 + 1) * 200)
        terms = ", ".join(f"{key} {value:.4f}" for key, value in loop.history[-1].terms.items()) if loop.history else ""
        report(f"{name}: {loop.step} of {loop.config.max_steps} steps; {terms}")


def _loop_config(steps: int, accumulation: int = 1) -> LoopConfig:
    return LoopConfig(
        max_steps=steps,
        gradient_accumulation=accumulation,
        ema_decay=0.998,
        ema_warmup="power",
        checkpoint_every=min(400, steps),
        log_every=50,
        keep_checkpoints=1,
    )


def _fresh(config: ModelConfig) -> SparseFusionModel:
    """Networks with the same first weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(config)


def trained_eft(out: Path, recipe: Recipe, objects: PrecastObjects, report: Report) -> Path:
    """Stage 1: the transformer alone, on some rays of every query."""
    steps = recipe.steps[0]
    config = JointTrainConfig(
        eft=_optimizer(1e-3, steps), min_contexts=2, max_contexts=3, diffusion_batch=0, num_rays=96, distinct_query=True
    )
    _finish(Loop(JointTask(config, _fresh(NETWORKS), objects), out / "eft", _loop_config(steps, 2)), "eft", report)
    return out / "eft" / "model" / MODEL_FILE


def trained_vae(out: Path, recipe: Recipe, objects: PrecastObjects, report: Report) -> Path:
    """Stage 2: the autoencoder."""
    steps = recipe.steps[1]
    config = VaeTrainConfig(optimizer=_optimizer(1.5e-3, steps))
    _finish(Loop(VaeTask(config, _fresh(NETWORKS).vae, objects), out / "vae", _loop_config(steps)), "vae", report)
    return out / "vae" / "model" / VAE_FILE


def trained_decoder(
    out: Path, model: SparseFusionModel, recipe: Recipe, objects: PrecastObjects, report: Report
) -> Path:
    """Stage 4: the autoencoder's decoder for longer, which leaves the latents as they are."""
    steps = recipe.steps[3]
    config = VaeTrainConfig(optimizer=_optimizer(1e-3, steps), batch_size=4, decoder_only=True)
    _finish(Loop(VaeTask(config, model.vae, objects), out / "decoder", _loop_config(steps)), "decoder", report)
    return out / "decoder" / "model" / VAE_FILE


def trained_denoiser(
    out: Path, start: SparseFusionModel, recipe: Recipe, objects: PrecastObjects, report: Report
) -> SparseFusionModel:
    """Stage 3: the diffusion model, on answers of the transformer that are computed once."""
    steps = recipe.steps[2]
    images = torch.cat([objects.read(at).rgb[:1] for at in range(min(IMAGES_FOR_SCALE, len(objects)))])
    model = with_scaled_latents(start, images)
    report("features")
    queries = QueryFeatures(out / "features", model.eft, model.config, objects, num_queries=QUERIES_PER_OBJECT)
    config = DenoiserTrainConfig(optimizer=_optimizer(1e-3, steps), batch_size=8)
    task = DenoiserTask(config, model, queries)
    _finish(Loop(task, out / "denoiser", _loop_config(steps)), "denoiser", report)
    return load_model(out / "denoiser" / "model" / MODEL_FILE)


def train_all(out: Path, recipe: Recipe, report: Report = print) -> Path:
    """All stages; those that are finished already are not repeated.

    Args:
        report: Told where it is.

    Returns:
        The file of the weights, in half precision; figures.json beside its folder.
    """
    report("objects")

    def precast(count: int) -> PrecastObjects:
        return PrecastObjects(
            out / "objects", GeneratedObjectsConfig(image_size=NETWORKS.image_size, num_objects=count)
        )

    objects = precast(recipe.num_objects)
    start = _fresh(NETWORKS)
    start.eft.load_state_dict(load_model(trained_eft(out, recipe, objects, report)).eft.state_dict())
    start.vae.model.load_state_dict(load_file(trained_vae(out, recipe, objects, report)))
    figures = eft_figures(start.eft, NETWORKS, recipe.num_judged)
    mode = "train" if figures["psnr_eft_train"] > figures["psnr_eft_eval"] else "eval"
    some = precast(min(recipe.num_objects, recipe.num_diffusion_objects))
    model = trained_denoiser(out, replace(start, config=replace(NETWORKS, eft_mode=mode)), recipe, some, report)
    model.vae.model.load_state_dict(load_file(trained_decoder(out, model, recipe, objects, report)))
    figures |= {"psnr_vae": vae_psnr(model.vae.eval(), recipe.num_judged)} | sample_figures(model, recipe.num_judged)
    weights = out / "weights" / MODEL_FILE
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, weights, note="trained on generated objects by recipes/sparsefusion-small")
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return weights
