"""Training of the diffusion model on the answers of a frozen transformer: every sample of a batch is another view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from sparsefusion.checkpoints import SparseFusionModel, load_model
from sparsefusion.training.autoencoder import scale_of_latents
from sparsefusion.training.config import DenoiserTrainConfig
from sparsefusion.training.features import QueryFeatures
from sparsefusion.training.object_task import MODEL_FILE, NetworksTask
from sparsefusion.vldm.diffusion import MAX_TRAINING_TIME, diffusion_loss
from train_runs import EpochSampler, ParameterGroup, Processes

if TYPE_CHECKING:
    from sparsefusion.vldm.unet import Denoiser

IMAGES_PER_CALL = 32
"""Images that are encoded at a time."""


@torch.no_grad()
def with_scaled_latents(model: SparseFusionModel, images: Float[Tensor, "b 3 h w"]) -> SparseFusionModel:
    """The same networks, whose latents of images in [0, 1] have a standard deviation of 1."""
    scale = scale_of_latents(model.vae.eval(), images)
    model.vae.scale = scale
    return replace(model, config=replace(model.config, latent_scale=scale))


class DenoiserTask(NetworksTask):
    """What a training loop needs of the diffusion model.

    All latents are computed at the start, and kept in memory.

    Args:
        model: The networks, of which the denoiser is changed in place.
    """

    def __init__(
        self,
        config: DenoiserTrainConfig,
        model: SparseFusionModel,
        queries: QueryFeatures,
        *,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.model, self.queries = config, model, queries
        self.processes = processes or Processes()
        device = self.processes.device
        vae = model.vae.to(device).eval()
        with torch.no_grad():
            self.latents = torch.cat(
                [
                    vae.encode(2 * torch.stack([queries.view(at) for at in part.tolist()]).to(device) - 1)
                    for part in torch.arange(len(queries)).split(IMAGES_PER_CALL)
                ]
            )
        self.sampler = EpochSampler(len(queries), config.batch_size * self.processes.world_size, seed=config.seed)
        self.wrapped = cast("Denoiser", self.processes.wrap_model(model.denoiser.to(device).train()))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The denoiser's parameters."""
        return [ParameterGroup(parameters=dict(self.model.denoiser.named_parameters()), config=self.config.optimizer)]

    def next_batch(self) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k h w"]]:
        """Clean latents of the next queries, and their features."""
        chosen = list(self.processes.shard(self.sampler.next_batch()))
        features = torch.stack([self.queries.features(at) for at in chosen])
        return self.latents[chosen], features.to(self.processes.device)

    def losses(
        self, batch: tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k h w"]], *, step: int, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """The error of the predicted noise."""
        latents, features = batch
        count, device = len(latents), latents.device
        times = MAX_TRAINING_TIME * torch.rand(count, generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        keep = torch.rand(count, generator=generator) >= self.config.drop_condition_prob
        return {
            "diffusion": diffusion_loss(
                self.wrapped, latents, features, times.to(device), noise.to(device), keep=keep.to(device)
            )
        }

    def read_model(self, folder: Path) -> None:
        """Take over the denoiser from what was written."""
        self.model.denoiser.load_state_dict(load_model(folder / MODEL_FILE).denoiser.state_dict())
