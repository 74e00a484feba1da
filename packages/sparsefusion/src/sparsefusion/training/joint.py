"""Training of the transformer and the diffusion model together, one object at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sparsefusion.cameras import depth_range
from sparsefusion.checkpoints import SparseFusionModel, load_model
from sparsefusion.data.sequence import ObjectSequence
from sparsefusion.losses import huber
from sparsefusion.training.config import JointTrainConfig
from sparsefusion.training.object_task import MODEL_FILE, NetworksTask
from sparsefusion.training.objects import TrainingObjects
from sparsefusion.vldm.diffusion import MAX_TRAINING_TIME, diffusion_loss
from train_runs import EpochSampler, ParameterGroup, Processes

"""All three networks, in single precision."""

MIN_VALID = 0.6
"""Coarse pixels count that have more valid fine ones than this share."""


@dataclass(frozen=True)
class Query:
    """One view of an object that is asked for, and the photos that it is to be found from."""

    photos: ObjectSequence
    """The photos that the transformer is given."""

    view: ObjectSequence
    """The view that is asked for, alone."""

    depths: tuple[float, float]
    """Nearest and farthest depth of the object's cameras."""

    rays: Int[Tensor, " r"]
    """Rays of the coarse grid that are asked for, counted row by row."""

    times: Float[Tensor, " b"]
    """Times of the diffusion model's samples; none where the transformer is trained alone."""

    noise: Float[Tensor, "b c y x"]
    """Their noises."""

    keep: Bool[Tensor, " b"]
    """Samples that keep their condition."""


class JointModel(nn.Module):
    """Transformer and diffusion model with their losses, as one module that processes can share.

    Args:
        model: The networks; the autoencoder is frozen.
    """

    def __init__(self, model: SparseFusionModel, config: JointTrainConfig) -> None:
        super().__init__()
        self.eft, self.config = model.eft.train(), config
        self.denoiser = model.denoiser.train() if config.diffusion_batch else None
        self.vae = model.vae.eval().requires_grad_(False)
        self.image_size, self.num = model.config.image_size, model.config.latent_size

    def forward(self, query: Query) -> dict[str, Tensor]:
        """The weighted losses of one query."""
        rgb, valid = self._targets(query.view)
        views = self.eft.encode(query.photos.rgb, query.photos.cameras)
        colors, features = self.eft.at_rays(
            views, query.view.cameras, query.depths, self.num, query.rays, image_size=self.image_size
        )
        on = valid.flatten()[query.rays, None]
        target = rgb[0].flatten(1).T[query.rays]
        losses = {"color": self.config.color_weight * huber(colors * on, target * on).mean()}
        if self.denoiser is not None:
            with torch.no_grad():
                latents = self.vae.encode(2 * query.view.rgb - 1)
            maps = features.T.view(1, -1, self.num, self.num)
            count = len(query.times)
            losses["diffusion"] = self.config.diffusion_weight * diffusion_loss(
                self.denoiser,
                latents.expand(count, -1, -1, -1),
                maps.expand(count, -1, -1, -1),
                query.times,
                query.noise,
                mask=valid.expand(count, -1, -1, -1),
                keep=query.keep,
            )
        return losses

    def _targets(self, view: ObjectSequence) -> tuple[Float[Tensor, "1 3 n n"], Float[Tensor, "1 1 n n"]]:
        """The view at the coarse grid, and where it is valid."""
        size = (self.num, self.num)
        valid = (functional.interpolate(view.valid, size, mode="area") > MIN_VALID).to(view.rgb.dtype)
        if self.eft.config.centered_rays:
            return functional.interpolate(view.rgb, size, mode="area"), valid
        # The published grid spans the centers of the outermost fine pixels.
        return functional.interpolate(view.rgb, size, mode="bilinear", align_corners=True), valid


def draw_query(
    sequence: ObjectSequence, model: SparseFusionModel, config: JointTrainConfig, generator: torch.Generator
) -> Query:
    """Choose photos, the view that is asked for, rays, times and noises."""
    most = min(config.max_contexts, len(sequence) - config.distinct_query)
    span = max(1, most - config.min_contexts + 1)
    count = min(most, config.min_contexts + int(torch.randint(span, (1,), generator=generator)))
    order = torch.randperm(len(sequence), generator=generator)
    photos = order[:count].tolist()
    others = order[count:] if config.distinct_query else order
    asked = int(others[int(torch.randint(len(others), (1,), generator=generator))])
    num = model.config.latent_size
    batch = config.diffusion_batch
    shape = (batch, model.config.unet.latent_channels, num, num)
    view = sequence.subset([asked])
    return Query(
        photos=sequence.subset(photos),
        view=view,
        depths=depth_range(sequence.cameras, model.config.eft.depth_margin),
        rays=_draw_rays(view.masks, num, config.num_rays, generator),
        times=MAX_TRAINING_TIME * torch.rand(batch, generator=generator),
        noise=torch.randn(shape, generator=generator),
        keep=torch.rand(batch, generator=generator) >= config.drop_condition_prob,
    )


def _draw_rays(mask: Float[Tensor, "1 1 h w"], num: int, count: int, generator: torch.Generator) -> Int[Tensor, " r"]:
    """Rays of the coarse grid: half of them on the object, where it has so many."""
    if not count or count >= num * num:
        return torch.arange(num * num)
    on = functional.interpolate(mask, (num, num), mode="area").flatten() > 0
    order = torch.randperm(num * num, generator=generator)
    on_object, off_object = order[on[order]], order[~on[order]]
    half = min(count // 2, len(on_object))
    return torch.cat([on_object[:half], off_object[: count - half], on_object[half : half + count]])[:count]


def _placed(query: Query, device: torch.device) -> Query:
    tensors = (value.to(device) for value in (query.rays, query.times, query.noise, query.keep))
    return Query(query.photos.to(device), query.view.to(device), query.depths, *tensors)


class JointTask(NetworksTask):
    """What a training loop needs of transformer and diffusion model.

    Args:
        model: The networks, changed in place.
    """

    def __init__(
        self,
        config: JointTrainConfig,
        model: SparseFusionModel,
        objects: TrainingObjects,
        *,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.model, self.objects = config, model, objects
        self.processes = processes or Processes()
        for part in (model.eft, model.denoiser, model.vae):
            part.to(self.processes.device)
        self.sampler = EpochSampler(len(objects), self.processes.world_size, seed=config.seed)
        self.joint = JointModel(model, config)
        self.wrapped = self.processes.wrap_model(self.joint)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The transformer's parameters that anything depends on, and the diffusion model's."""
        unused = ("encoder_model.layer4.", "encoder_model.fc.")
        eft = {f"eft.{name}": value for name, value in self.model.eft.named_parameters() if not name.startswith(unused)}
        groups = [ParameterGroup(parameters=eft, config=self.config.eft, name="eft", optimizer="eft")]
        if self.config.diffusion_batch:
            denoiser = {f"denoiser.{name}": value for name, value in self.model.denoiser.named_parameters()}
            groups.append(
                ParameterGroup(parameters=denoiser, config=self.config.denoiser, name="denoiser", optimizer="denoiser")
            )
        return groups

    def next_batch(self) -> ObjectSequence:
        """Photos of the next object."""
        position = self.sampler.state()["position"]
        index = self.processes.shard(self.sampler.next_batch())[0]
        return self.objects.read(index, position + self.processes.rank)

    def losses(self, batch: ObjectSequence, *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Differences of colors and of noises."""
        query = draw_query(batch, self.model, self.config, generator)
        return self.wrapped(_placed(query, self.processes.device))

    def read_model(self, folder: Path) -> None:
        """Take over the networks that are trained here from what was written."""
        read = load_model(folder / MODEL_FILE)
        self.model.eft.load_state_dict(read.eft.state_dict())
        if self.config.diffusion_batch:
            self.model.denoiser.load_state_dict(read.denoiser.state_dict())
