"""Training of a denoiser: latents of grids, noised, with their conditions dropped now and then."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffsplat.cameras import plucker_rays
from diffsplat.denoiser import MultiViewDenoiser, TextCondition
from diffsplat.gsrecon import GSRecon
from diffsplat.gsvae import GSVAE
from diffsplat.render import rendered
from diffsplat.splat_grids import SplatGrids, activated
from diffsplat.training.diffusion import (
    NoiseLevels,
    Prediction,
    diffusion_step,
    dropped_conditions,
    flow_levels,
    without_text,
)
from diffsplat.training.epochs import EpochSampler
from diffsplat.training.losses import Perceptual, render_losses
from diffsplat.training.views import GeneratedViews, ObjectViews
from train_runs import OptimizerConfig, ParameterGroup, TaskState

DENOISER_WEIGHTS = "diffusion_pytorch_model.safetensors"


class PromptEncoder(Protocol):
    """Encodes captions of objects."""

    def __call__(self, prompts: list[str]) -> TextCondition:
        """One row per caption; an empty one is the unconditional."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiserTrainConfig:
    """How a denoiser is trained. The defaults are the released ones, but for the batch size.

    The released averages have decay 0.9999 and its power warm-up; those are the loop's settings.
    """

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=1e-4, beta2=0.999, weight_decay=0.01, schedule="constant", warmup_steps=1000
        )
    )
    """Optimizer and schedule."""
    batch_size: int = 8
    """Objects per step."""
    prediction: Prediction = "epsilon"
    """What the network predicts. Released: epsilon with a text, v_prediction with an image, flow for Stable Diffusion
    3.5."""
    dropout: float = 0.05
    """Objects that lose their prompt only, both conditions, and their image only: so many each, in [0, 1/3]."""
    render_weight: float = 0.0
    """Weight of the renders of the denoised latents, by the tiny decoder. Released: 0, then 1 in its second stage."""
    min_snr: float | None = None
    """Largest weight of the render loss by signal-to-noise ratio. Released: 1 for PixArt-Sigma, none otherwise."""
    seed: int = 0
    """Of the order of the objects."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.dropout <= 1 / 3:
            raise ValueError(f"dropout must be in [0, 1/3], got {self.dropout}")


class DenoiserTask:
    """What a training loop needs of a denoiser."""

    def __init__(
        self,
        config: DenoiserTrainConfig,
        model: MultiViewDenoiser,
        gsvae: GSVAE,
        recon: GSRecon,
        encoder: PromptEncoder,
        objects: GeneratedViews,
        *,
        levels: NoiseLevels | None = None,
        perceptual: Perceptual | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            config: How it is trained.
            model: What is trained.
            gsvae: Frozen.
            recon: Frozen.
            encoder: Frozen text encoders.
            objects: Views to train on.
            levels: Noise levels; needed unless a flow is trained.
            perceptual: LPIPS for the render loss.

        Raises:
            ValueError: Noise levels are missing, or the network takes an image.
        """
        if config.prediction != "flow" and levels is None:
            raise ValueError("a diffusion needs its noise levels")
        if model.takes_image:
            raise ValueError("networks with an image need latents of images, which generated views have none of")
        self.config, self.model, self.objects = config, model, objects
        self.gsvae, self.recon = gsvae.eval().requires_grad_(False), recon.eval().requires_grad_(False)
        self.encoder, self.levels, self.perceptual = encoder, levels, perceptual
        self.sampler = EpochSampler(len(objects), config.batch_size, seed=config.seed)

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters of the network alike."""
        trained = dict(self.model.network.named_parameters())
        return [ParameterGroup(parameters=trained, config=self.config.optimizer)]

    def next_batch(self) -> ObjectViews:
        """Views of the next objects."""
        return self.objects.batch(self.sampler.next_batch())

    @torch.no_grad()
    def latents(self, batch: ObjectViews) -> Float[Tensor, "b v l h w"]:
        """What diffusion sees of objects."""
        grids = self.recon(batch.images, *batch.input_cameras).channels()
        return self.gsvae.scaled(self.gsvae.encode(grids.flatten(0, 1))).unflatten(0, grids.shape[:2])

    def losses(self, batch: ObjectViews, *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The diffusion's squared error and, if asked for, errors of renders."""
        config = self.config
        latents = self.latents(batch)
        num = len(latents)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        if config.prediction == "flow" or self.levels is None:
            share = flow_levels(num, generator)
            signal, noisy, timesteps = 1 - share, share, 1000 * share
        else:
            timesteps = torch.randint(len(self.levels.signal), (num,), generator=generator)
            signal, noisy = self.levels.signal[timesteps], self.levels.noise[timesteps]
        dropped = dropped_conditions(torch.rand(num, generator=generator), config.dropout)
        with torch.no_grad():
            text = without_text(self.encoder(list(batch.captions)), self.encoder([""] * num), dropped.text)
        size = batch.rgb.shape[-1]
        found = diffusion_step(
            self.model, latents, noise, signal_weight=signal, noise_weight=noisy, timesteps=timesteps,
            prediction=config.prediction, rays=plucker_rays(size, size, *batch.input_cameras), text=text,
        )  # fmt: skip
        terms = {"diffusion": found.loss.mean()}
        if config.render_weight:
            grids = self.gsvae.decode_tiny(self.gsvae.unscaled(found.clean.flatten(0, 1)))
            parts = SplatGrids.from_channels(grids.unflatten(0, found.clean.shape[:2]))
            views = rendered(activated(parts, *batch.input_cameras), batch.T_world_cam, batch.fxfycxcy, size, size)
            errors = sum(render_losses(views, batch.rgb, batch.mask, perceptual=self.perceptual).values())
            weight = torch.ones(num)
            if config.min_snr is not None:
                weight = (signal / noisy).square().clamp(max=config.min_snr)
            terms["render"] = config.render_weight * (weight.to(latents) * errors).mean()
        return terms

    def state(self) -> TaskState:
        """Where it is in the data."""
        return TaskState(values=self.sampler.state())

    def load_state(self, state: TaskState) -> None:
        """Go on from there."""
        self.sampler.load_state(state.values)

    def model_writer(self) -> Callable[[Path], None]:
        """Writes weights and configuration as published ones are."""
        tensors = {name: value.detach().clone().contiguous() for name, value in self.model.network.state_dict().items()}
        config: dict[str, Any] = dict(self.model.network.config)  # type: ignore[call-overload]

        def write(folder: Path) -> None:
            save_file(tensors, folder / DENOISER_WEIGHTS)
            named = {"_class_name": type(self.model.network).__name__} | config
            (folder / "config.json").write_text(json.dumps(named, indent=2, default=list) + "\n", encoding="utf-8")

        return write

    def read_model(self, folder: Path) -> None:
        """Take over weights that were written."""
        self.model.network.load_state_dict(load_file(folder / DENOISER_WEIGHTS))
