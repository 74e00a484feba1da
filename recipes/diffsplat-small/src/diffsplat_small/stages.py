"""The three stages, each a run of its own that can be killed anywhere, and the stack that they end in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffsplat import GSVAE, DiffSplatPipeline, GenerationConfig, GSRecon, GSReconConfig, MultiViewDenoiser
from diffsplat.checkpoints import GSRECON_TAG, PUBLISHED
from diffsplat.loading import DEFAULTS_FILE
from diffsplat.schedulers import SD15_NOISE_SCHEDULE, make_scheduler
from diffsplat.stock import AutoencoderKL
from diffsplat.training.autoencoder import GSVAETask, psnr_through_latents
from diffsplat.training.config import (
    DenoiserTrainConfig,
    GeneratedObjectsConfig,
    GSReconMapConfig,
    GSReconTrainConfig,
    GSVAETrainConfig,
)
from diffsplat.training.denoising import DENOISER_WEIGHTS, ENCODER_WEIGHTS, DenoiserTask
from diffsplat.training.diffusion import NoiseLevels
from diffsplat.training.maps import GSReconMapTask
from diffsplat.training.object_task import WEIGHTS
from diffsplat.training.reconstruction import GSReconTask, psnr_of_renders
from diffsplat.training.views import GeneratedViews, ViewsOfObjects
from diffsplat.words import WEIGHTS_FILE, WordEncoder
from diffsplat_small.image_prompts import judged_images, write_turntables
from diffsplat_small.judging import judged, judged_pairs
from synthetic_objects import COLORS, HELD_OUT_SEED, MATERIALS, RELATIONS, SHAPES
from train_runs import Loop, LoopConfig, OptimizerConfig

WORDS = sorted({"a", "an", *SHAPES, *COLORS, *MATERIALS, *(word for name in RELATIONS for word in name.split())})
NEVER_SHOWN = tuple(
    (color, shape)
    for row, color in enumerate(COLORS)
    for column, shape in enumerate(SHAPES)
    if (row + 2 * column) % 5 == 1
)
"""Pairs of a color and a shape that no stage sees: the held-out prompts are made of them."""
RECON_OBJECTS = GeneratedObjectsConfig(
    size=64, num_objects=1024, num_extra=2, materials=("matte", "shiny", "metal"), left_out=NEVER_SHOWN
)
TEXT_OBJECTS = replace(RECON_OBJECTS, num_objects=3072, largest_yaw_deg=0.0, num_extra=0)
NETWORK = GSReconConfig(input_res=64, patch_size=4, dim=128, num_blocks=2, num_heads=4)
VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [16, 32, 48, 64],
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "latent_channels": 16,
    "scaling_factor": 1.0,
}
NOISE_SCHEDULE = SD15_NOISE_SCHEDULE | {"rescale_betas_zero_snr": True}
"""Stable Diffusion 1.5's, stretched to no signal at all at its end: in its last level the mean over the latents still
shows through the noise, so that a network learns to read colors there, and at inference reads them from noise."""
TINY = {"num_decoder_blocks": (1, 1, 1, 1), "decoder_block_out_channels": (16, 16, 16, 16)}
DEFAULTS = {"guidance": 1.5, "image_guidance": 1.5, "num_steps": 20}
"""What generation takes where nothing else is asked for."""
DENOISER: dict[str, Any] = {
    "_class_name": "UNetMV2DConditionModel",
    "sample_size": 8,
    "in_channels": 23,
    "out_channels": 16,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 64,
    "attention_head_dim": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How long, and on how much."""

    steps: tuple[int, int, int, int] = (600, 400, 5000, 6000)
    """Steps of GSRecon by maps, of GSRecon by renders, of GSVAE and of the denoiser."""
    num_objects: tuple[int, int] = (RECON_OBJECTS.num_objects, TEXT_OBJECTS.num_objects)
    """Objects that GSRecon sees, and those that the rest sees."""

    @property
    def recon_objects(self) -> GeneratedObjectsConfig:
        """What the first stage sees."""
        return replace(RECON_OBJECTS, num_objects=self.num_objects[0])

    @property
    def text_objects(self) -> GeneratedObjectsConfig:
        """What the others see."""
        return replace(TEXT_OBJECTS, num_objects=self.num_objects[1])


Report = Callable[[str], None]

TURNTABLES = "held_out_objects"
"""In the folder of the trainings: views of objects for `diffsplat eval images`."""
LATENTS_FILE = "latents.safetensors"
"""In the folder of the trainings: what the denoiser learns from, in the units that GSVAE was trained with."""
SMALLEST_UNIT = 0.5
"""Latents of a smaller standard deviation, which tell little, are not made as large as the others."""


def optimizer(learning_rate: float, steps: int) -> OptimizerConfig:
    """Adam with a cosine that ends with the training."""
    return OptimizerConfig(
        learning_rate=learning_rate,
        beta2=0.95,
        weight_decay=0.01,
        schedule="cosine",
        warmup_steps=min(50, steps // 10),
    )


def finished(loop: Loop, name: str, report: Report) -> None:
    """Train to the end, saying where it is."""
    while not loop.done:
        loop.train_until((loop.step // 100 + 1) * 100)
        report(f"{name}: {loop.step} of {loop.config.max_steps} steps")


def loop_config(steps: int) -> LoopConfig:
    """Averages, checkpoints and log."""
    return LoopConfig(
        max_steps=steps, ema_decay=0.99, ema_warmup="power", checkpoint_every=min(100, steps), log_every=25
    )


def trained_gsrecon(out: Path, recipe: Recipe, report: Report) -> GSRecon:
    """Stage 1: patch by patch against ray-cast maps, then whole views by their renders."""
    objects = GeneratedViews(recipe.recon_objects)
    steps = recipe.steps[0]
    begun = GSReconMapTask(GSReconMapConfig(network=NETWORK, optimizer=optimizer(3e-3, steps)), objects)
    finished(Loop(begun, out / "gsrecon_maps", loop_config(steps)), "gsrecon by maps", report)
    start = load_file(out / "gsrecon_maps" / "model" / WEIGHTS)
    steps = recipe.steps[1]
    config = GSReconTrainConfig(
        network=NETWORK, optimizer=optimizer(3e-4, steps), batch_size=4, map_weight=0.005, render_weight=1.0
    )
    task = GSReconTask(config, objects, start=start)
    finished(Loop(task, out / "gsrecon", loop_config(steps)), "gsrecon", report)
    model = GSRecon(NETWORK)
    model.load_state_dict(load_file(out / "gsrecon" / "model" / WEIGHTS))
    return model.eval().requires_grad_(False)


def new_gsvae() -> GSVAE:
    """Fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return GSVAE(VAE, TINY)


def trained_gsvae(
    out: Path, recon: GSRecon, objects: ViewsOfObjects, recipe: Recipe, report: Report
) -> tuple[GSVAE, dict[str, Tensor]]:
    """Stage 2, and the latents of all objects.

    Latents are brought to a mean of 0 and a standard deviation of 1 each, but for those that hardly vary.
    """
    steps = recipe.steps[2]
    config = GSVAETrainConfig(
        optimizer=optimizer(2e-3, steps), batch_size=3, color_weight=4.0, rotation_weight=4.0, depth_weight=20.0,
        empty_weight=0.3, render_weight=2.0, render_every=4, kl_weight=1e-4, anchor_weight=0.05, precision="bfloat16",
    )  # fmt: skip
    model = new_gsvae()
    task = GSVAETask(config, model, recon, objects, kept_grids={})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        task.begin_from_nothing()
    finished(Loop(task, out / "gsvae", loop_config(steps)), "gsvae", report)
    task.read_model(out / "gsvae" / "model")
    model.eval().requires_grad_(False)
    latents = _coded(out / LATENTS_FILE, task, model)
    values = torch.stack(list(latents.values())).movedim(2, 0).flatten(1)
    mean, unit = values.mean(dim=1), values.std(dim=1).clamp(min=SMALLEST_UNIT)
    model.change_units(mean, unit)
    mean, unit = mean[:, None, None], unit[:, None, None]
    return model, {name: (values - mean) / unit for name, values in latents.items()}


def _coded(path: Path, task: GSVAETask, model: GSVAE) -> dict[str, Tensor]:
    """Latents of all objects by their names, kept in a file, as GSRecon takes minutes for them."""
    if path.is_file():
        return load_file(path)
    found = {}
    for index in range(len(task.objects)):
        batch = task.objects.batch([index])
        found[batch.ids[0]] = model.encode(task.grids(batch)[0]).contiguous()
    save_file(found, path)
    return found


def image_vae_of(gsvae: GSVAE) -> Any:
    """An image VAE with the GSVAE's own weights: it sees an image as opaque, level disks at the origin's depth.

    The denoiser needs some fixed code of its image, in the shape of the grids' latents, and learns to read this one.
    """
    state = {name: value.clone() for name, value in gsvae.vae.state_dict().items()}
    rest = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    first = state["encoder.conv_in.weight"]
    state["encoder.conv_in.bias"] += (first[:, 3:].sum(dim=(2, 3)) * rest).sum(dim=1)
    state["encoder.conv_in.weight"] = first[:, :3].contiguous()
    for name in ("weight", "bias"):
        state[f"decoder.conv_out.{name}"] = state[f"decoder.conv_out.{name}"][:3].contiguous()
    network: Any = AutoencoderKL.from_config(VAE)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def train_denoiser(
    out: Path,
    recon: GSRecon,
    gsvae: GSVAE,
    latents: dict[str, Tensor],
    objects: ViewsOfObjects,
    recipe: Recipe,
    report: Report,
) -> None:
    """Stage 3, with the text encoder: one network for prompts, images and both."""
    steps = recipe.steps[3]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        denoiser, words = MultiViewDenoiser.from_config(DENOISER), WordEncoder(WORDS, dim=64)
    config = DenoiserTrainConfig(
        optimizer=optimizer(1.5e-3, steps), batch_size=8, dropout=0.07, without_image=0.75, prediction="v_prediction"
    )
    levels = NoiseLevels.of_diffusion(make_scheduler("ddim", NOISE_SCHEDULE))
    task = DenoiserTask(
        config, denoiser, gsvae, recon, words, objects, levels=levels, train_encoder=True, kept_latents=latents,
        image_vae=image_vae_of(gsvae),
    )  # fmt: skip
    finished(Loop(task, out / "denoiser", loop_config(steps)), "denoiser", report)
    words.write_settings(out / "denoiser")


def collected(out: Path, gsvae: GSVAE) -> Path:
    """The stack in the published layout, in float16, with its own base model."""
    weights = out / "weights"
    shutil.rmtree(weights, ignore_errors=True)
    spec = PUBLISHED["sd15"]
    denoiser = f"{spec.image_tag}/checkpoints/000000/unet_ema"
    places = {
        f"{GSRECON_TAG}/checkpoints/000000/model.safetensors": load_file(out / "gsrecon" / "model" / WEIGHTS),
        f"{spec.gsvae_tag}/checkpoints/000000/model.safetensors": gsvae.state_dict(),
        f"{denoiser}/{DENOISER_WEIGHTS}": load_file(out / "denoiser" / "model" / DENOISER_WEIGHTS),
        f"base/text_encoder/{WEIGHTS_FILE}": load_file(out / "denoiser" / "model" / ENCODER_WEIGHTS),
        f"base/vae/{DENOISER_WEIGHTS}": image_vae_of(gsvae).state_dict(),
    }
    for place, values in places.items():
        (weights / place).parent.mkdir(parents=True, exist_ok=True)
        halved = {name: value.half().contiguous() for name, value in values.items()}
        save_file(halved, weights / place, metadata={"format": "pt"})
    shutil.copyfile(out / "denoiser" / "model" / "config.json", weights / denoiser / "config.json")
    shutil.copyfile(out / "denoiser" / "words.json", weights / "base" / "text_encoder" / "words.json")
    settings = {
        "scheduler/scheduler_config.json": NOISE_SCHEDULE | {"prediction_type": "v_prediction"},
        "vae/config.json": VAE,
        DEFAULTS_FILE: DEFAULTS,
    }
    for name, values in settings.items():
        (weights / "base" / name).parent.mkdir(parents=True, exist_ok=True)
        (weights / "base" / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return weights


def train_all(out: Path, recipe: Recipe, *, num_prompts: int, report: Report) -> dict[str, Any]:
    """Train what is missing, and judge.

    Args:
        out: Folder of everything.
        recipe: How long, and on how much.
        num_prompts: Held-out prompts that are judged.
        report: Called with a line now and then.

    Returns:
        What `figures.json` holds.
    """
    held = GeneratedViews(replace(RECON_OBJECTS, num_objects=32, left_out=()), first_seed=HELD_OUT_SEED)
    coded = GeneratedViews(replace(TEXT_OBJECTS, num_objects=32, left_out=()), first_seed=HELD_OUT_SEED)
    indices = list(range(min(32, num_prompts)))
    figures: dict[str, Any] = {"steps": list(recipe.steps), "num_objects": list(recipe.num_objects)}
    recon = trained_gsrecon(out, recipe, report)
    objects = GeneratedViews(recipe.text_objects)
    gsvae, latents = trained_gsvae(out, recon, objects, recipe, report)
    train_denoiser(out, recon, gsvae, latents, objects, recipe, report)
    figures["gsrecon"] = psnr_of_renders(recon, held, indices)
    figures["gsvae"] = psnr_through_latents(gsvae, recon, coded, indices)
    report(json.dumps(figures))
    weights = collected(out, gsvae)
    write_turntables(out / TURNTABLES, max(len(indices), 2), replace(TEXT_OBJECTS, left_out=()).objects)
    figures["images"] = judged_images(DiffSplatPipeline.from_pretrained(weights, image=True), out / TURNTABLES)
    report(json.dumps(figures["images"]))
    pipe = DiffSplatPipeline.from_pretrained(weights)
    figures["prompts"] = judged(pipe, num_prompts, GenerationConfig(), NEVER_SHOWN, RECON_OBJECTS.materials)
    two = replace(TEXT_OBJECTS, left_out=()).objects
    figures["pairs"] = judged_pairs(pipe, num_prompts, GenerationConfig(), two)
    report(json.dumps([figures["prompts"], figures["pairs"]]))
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures
