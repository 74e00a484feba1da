"""Training of a small image autoencoder on the photos of objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from sparsefusion.training.config import VaeTrainConfig
from sparsefusion.training.objects import TrainingObjects
from sparsefusion.vae import ImageVae
from train_runs import EpochSampler, EpochTask, ParameterGroup, Processes

VAE_FILE = "vae.safetensors"

DECODER = ("decoder.", "post_quant_conv.")
"""Names of the decoder's parameters begin like this."""


class _ThroughLatents(nn.Module):
    """Images through noisy latents and back, as one module that processes can share."""

    def __init__(self, vae: ImageVae, noise: float) -> None:
        super().__init__()
        self.vae, self.noise = vae, noise

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The decoded images, and the latents before their noise."""
        model = self.vae.model
        latents = model.encode(x).latent_dist.mode()  # type: ignore[union-attr]
        noise = self.noise * torch.randn(latents.shape, generator=generator).to(x)
        return model.decode(latents + noise).sample, latents  # type: ignore[union-attr]


class VaeTask(EpochTask):
    """What a training loop needs of the autoencoder.

    Args:
        vae: The autoencoder, changed in place; its scale plays no part.
        objects: What is trained on; every step takes one view of several objects.
    """

    def __init__(
        self,
        config: VaeTrainConfig,
        vae: ImageVae,
        objects: TrainingObjects,
        *,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.vae, self.objects = config, vae, objects
        self.processes = processes or Processes()
        vae.to(self.processes.device).train()
        for name, value in vae.model.named_parameters():
            value.requires_grad_(name.startswith(DECODER) or not config.decoder_only)
        self.sampler = EpochSampler(len(objects), config.batch_size * self.processes.world_size, seed=config.seed)
        self.wrapped = self.processes.wrap_model(_ThroughLatents(vae, config.latent_noise))

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters alike, or those of the decoder."""
        parameters = {name: value for name, value in self.vae.model.named_parameters() if value.requires_grad}
        return [ParameterGroup(parameters=parameters, config=self.config.optimizer)]

    def next_batch(self) -> Float[Tensor, "b 3 h w"]:
        """One view of each of the next objects, in [-1, 1]."""
        position = self.sampler.state()["position"]
        images = []
        for at, index in enumerate(self.processes.shard(self.sampler.next_batch())):
            seed = position + self.processes.rank * self.config.batch_size + at
            sequence = self.objects.read(index, seed)
            generator = torch.Generator().manual_seed(seed)
            images.append(sequence.rgb[int(torch.randint(len(sequence), (1,), generator=generator))])
        return 2 * torch.stack(images).to(self.processes.device) - 1

    def losses(self, batch: Float[Tensor, "b 3 h w"], *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Errors of the images, and of what the latents are to be near."""
        decoded, latents = self.wrapped(batch, generator)
        error = decoded - batch
        losses = {
            "absolute": self.config.absolute_weight * error.abs().mean(),
            "squared": self.config.squared_weight * error.square().mean(),
        }
        if not self.config.decoder_only:
            colors = functional.interpolate(batch, latents.shape[-2:], mode="area")
            losses["color"] = self.config.color_weight * (latents[:, :3] - colors).square().mean()
        return losses

    def model_writer(self) -> Callable[[Path], None]:
        """Writes the weights under diffusers' names."""
        tensors = {name: value.detach().clone().contiguous() for name, value in self.vae.model.state_dict().items()}
        return lambda folder: save_file(tensors, folder / VAE_FILE)

    def read_model(self, folder: Path) -> None:
        """Take over weights that were written."""
        self.vae.model.load_state_dict(load_file(folder / VAE_FILE))


@torch.no_grad()
def scale_of_latents(vae: ImageVae, images: Float[Tensor, "b 3 h w"]) -> float:
    """The factor that gives the latents of images in [0, 1] a standard deviation of 1."""
    return 1 / float((vae.encode(2 * images - 1) / vae.scale).std())
