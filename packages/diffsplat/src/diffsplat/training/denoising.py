"""Training of a denoiser: latents of grids, noised, with their conditions dropped now and then."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffsplat.cameras import plucker_rays
from diffsplat.denoiser import MultiViewDenoiser, TextCondition
from diffsplat.gsrecon import GSRecon
from diffsplat.gsvae import GSVAE
from diffsplat.sampling import ControlCondition
from diffsplat.splat_grids import SplatGrids
from diffsplat.training.config import DenoiserTrainConfig
from diffsplat.training.diffusion import (
    NoiseLevels,
    diffusion_step,
    dropped_conditions,
    flow_levels,
    without_text,
)
from diffsplat.training.losses import Perceptual, render_losses
from diffsplat.training.object_task import ObjectTask, weights_of
from diffsplat.training.views import ObjectViews, ViewsOfObjects
from train_runs import ParameterGroup

DENOISER_WEIGHTS = "diffusion_pytorch_model.safetensors"
ENCODER_WEIGHTS = "text_encoder.safetensors"


def network_writer(network: Any, class_name: str) -> Callable[[Path], None]:
    """Writes a network's weights and configuration, as they are now, the way published ones are."""
    tensors, config = weights_of(network), {"_class_name": class_name, **dict(network.config)}

    def write(folder: Path) -> None:
        save_file(tensors, folder / DENOISER_WEIGHTS)
        (folder / "config.json").write_text(json.dumps(config, indent=2, default=list) + "\n", encoding="utf-8")

    return write


@runtime_checkable
class PromptEncoder(Protocol):
    """Encodes captions of objects."""

    def __call__(self, prompts: list[str]) -> TextCondition:
        """One row per caption; an empty one is the unconditional."""
        ...


class DenoiserTask(ObjectTask):
    """What a training loop needs of a denoiser."""

    def __init__(
        self,
        config: DenoiserTrainConfig,
        model: MultiViewDenoiser,
        gsvae: GSVAE,
        recon: GSRecon,
        encoder: PromptEncoder,
        objects: ViewsOfObjects,
        *,
        levels: NoiseLevels | None = None,
        train_encoder: bool = False,
        kept_latents: dict[str, Tensor] | None = None,
        perceptual: Perceptual | None = None,
        image_vae: nn.Module | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            config: How it is trained.
            model: What is trained.
            gsvae: Frozen.
            recon: Frozen.
            encoder: Encodes captions.
            objects: Views to train on.
            levels: Noise levels; needed unless a flow is trained.
            train_encoder: Train the encoder with the network; it must be a module then.
            kept_latents: Latents of objects by their names; those of others are added when they are first needed,
                which saves GSRecon and GSVAE from the second epoch on. None keeps nothing.
            perceptual: LPIPS for the render loss.
            image_vae: Frozen; encodes view 0 as the image of a network that takes one.

        Raises:
            ValueError: Noise levels or the image VAE are missing.
        """
        if config.prediction != "flow" and levels is None:
            raise ValueError("a diffusion needs its noise levels")
        if model.takes_image and image_vae is None:
            raise ValueError("a network that takes an image needs an image VAE")
        super().__init__(model, objects, batch_size=config.batch_size, seed=config.seed)
        self.config, self.model = config, model
        self.gsvae, self.recon = gsvae.eval().requires_grad_(False), recon.eval().requires_grad_(False)
        self.encoder, self.levels, self.perceptual = encoder, levels, perceptual
        self.image_vae: Any = image_vae.eval().requires_grad_(False) if image_vae is not None else None
        self._kept = kept_latents
        self.trained_encoder = encoder if train_encoder and isinstance(encoder, nn.Module) else None

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters of the network, and of its encoder where that is trained, alike."""
        trained = dict(self.model.network.named_parameters())
        if self.trained_encoder is not None:
            trained |= {f"text_encoder.{name}": value for name, value in self.trained_encoder.named_parameters()}
        return [ParameterGroup(parameters=trained, config=self.config.optimizer)]

    @torch.no_grad()
    def latents(self, batch: ObjectViews) -> Float[Tensor, "b v l h w"]:
        """What diffusion sees of objects."""
        if self._kept is not None and all(name in self._kept for name in batch.ids):
            return torch.stack([self._kept[name] for name in batch.ids])
        grids = self.recon(batch.images, *batch.input_cameras).channels()
        found = self.gsvae.scaled(self.gsvae.encode(grids.flatten(0, 1))).unflatten(0, grids.shape[:2])
        if self._kept is not None:
            self._kept |= dict(zip(batch.ids, found, strict=True))
        return found

    def control(self, batch: ObjectViews) -> ControlCondition | None:
        """A ControlNet and its maps, in the training of one."""
        return None

    @torch.no_grad()
    def image_latents(
        self, batch: ObjectViews, dropped: Bool[Tensor, " b"], generator: torch.Generator
    ) -> Float[Tensor, "b l h w"]:
        """Latents of view 0 as an image, sampled as in the released training, with the image VAE's shift taken off."""
        found = self.image_vae.encode(2 * batch.rgb[:, 0] - 1).latent_dist
        noise = torch.randn(found.mean.shape, generator=generator).to(found.mean)
        shift = float(self.image_vae.config.get("shift_factor") or 0.0)
        latents = float(self.image_vae.config["scaling_factor"]) * (found.mean + found.std * noise - shift)
        return torch.where(dropped[:, None, None, None], 0.0, latents)

    def losses(self, batch: ObjectViews, *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The diffusion's squared error and, if asked for, errors of renders."""
        config = self.config
        latents = self.latents(batch)
        num = len(latents)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        if config.prediction == "flow" or self.levels is None:
            level = flow_levels(num, generator)
            signal, noisy, timesteps = 1 - level, level, 1000 * level
        else:
            timesteps = torch.randint(len(self.levels.signal), (num,), generator=generator)
            signal, noisy = self.levels.signal[timesteps], self.levels.noise[timesteps]
        dropped = dropped_conditions(torch.rand(num, generator=generator).to(latents.device), config.dropout)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained_encoder is not None):
            text = without_text(self.encoder(list(batch.captions)), self.encoder([""] * num), dropped.text)
        image = None
        if self.model.takes_image:
            without = torch.rand(num, generator=generator).to(latents.device) < config.without_image
            image = self.image_latents(batch, dropped.image | without, generator)
        size = batch.rgb.shape[-1]
        found = diffusion_step(
            self.model, latents, noise, signal_weight=signal, noise_weight=noisy,
            timesteps=timesteps.to(latents.device), prediction=config.prediction,
            rays=plucker_rays(size, size, *batch.input_cameras), text=text, image_latents=image,
            control=self.control(batch),
        )  # fmt: skip
        terms = {"diffusion": found.loss.mean()}
        if config.render_weight:
            grids = self.gsvae.decode_tiny(self.gsvae.unscaled(found.clean.flatten(0, 1)))
            parts = SplatGrids.from_channels(grids.unflatten(0, found.clean.shape[:2]))
            errors = sum(
                render_losses(batch.seen_in(parts), batch.rgb, batch.mask, perceptual=self.perceptual).values()
            )
            weight = torch.ones(num)
            if config.min_snr is not None:
                weight = (signal / noisy).square().clamp(max=config.min_snr)
            terms["render"] = config.render_weight * (weight.to(latents) * errors).mean()
        return terms

    def model_writer(self) -> Callable[[Path], None]:
        """Writes weights and configuration as published ones are."""
        write_network = network_writer(self.model.network, type(self.model.network).__name__)
        words = None if self.trained_encoder is None else weights_of(self.trained_encoder)

        def write(folder: Path) -> None:
            write_network(folder)
            if words is not None:
                save_file(words, folder / ENCODER_WEIGHTS)

        return write

    def read_model(self, folder: Path) -> None:
        """Take over weights that were written."""
        self.model.network.load_state_dict(load_file(folder / DENOISER_WEIGHTS))
        if self.trained_encoder is not None:
            self.trained_encoder.load_state_dict(load_file(folder / ENCODER_WEIGHTS))
