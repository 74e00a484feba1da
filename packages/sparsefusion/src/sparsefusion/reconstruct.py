"""From a sequence and its chosen photos to a distillation that is ready to run."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparsefusion.cache import cache_views
from sparsefusion.cameras import concatenate
from sparsefusion.checkpoints import SparseFusionModel
from sparsefusion.config import DistillConfig, EftMode, FieldConfig
from sparsefusion.data.sequence import ObjectSequence
from sparsefusion.distill import Diffusion, Distillation, PosedImages, SeededDraws
from sparsefusion.errors import InputError, first_problems
from sparsefusion.field.network import Field
from sparsefusion.losses import PerceptualDistance

MIN_INPUTS = 2
"""Photos that are needed: one view says nothing about depth."""


def start_distillation(
    sequence: ObjectSequence,
    chosen: Sequence[int],
    model: SparseFusionModel | None = None,
    *,
    config: DistillConfig | None = None,
    field: FieldConfig | None = None,
    mode: EftMode | None = None,
    perceptual: PerceptualDistance | None = None,
    seed: int = 0,
    with_diffusion: bool = True,
    device: torch.device | str = "cpu",
) -> Distillation:
    """Everything that a distillation begins with; the same arguments give the same bits.

    Args:
        sequence: All photos of the object with their cameras; photos that are not chosen lend their cameras only.
        model: The networks; None fits a field to the photos alone.
        config: Settings of the distillation; its image size must be that of the photos.
        mode: How the transformer runs; by default as its checkpoint says.
        with_diffusion: False keeps to the transformer's images throughout.

    Raises:
        InputError: There are too few photos, or they do not see the object.
    """
    config = config or DistillConfig()
    problems = _problems(sequence, chosen, config)
    if problems:
        raise InputError(f"{sequence.name}: {first_problems(problems)}")
    generator = torch.Generator().manual_seed(seed)
    tilts = config.circle_tilt * (2 * torch.rand(config.num_circle, generator=generator) - 1)
    start = Field(field or FieldConfig(), generator=generator).to(device)
    cameras = sequence.cameras
    inputs = sequence.subset(chosen)
    turned = inputs.cameras.relative_to(cameras[0], "axes").to(device)
    photos = PosedImages(inputs.rgb.to(device), inputs.masks.to(device), turned)
    cached = diffusion = None
    if model is not None:
        every = cameras
        if config.num_circle and len(cameras) > MIN_INPUTS:
            every = concatenate([cameras, sequence.circle(config.num_circle, tilts=tilts)])
        cached = cache_views(
            model.eft.to(device),
            photos.rgb,
            inputs.cameras.to(device),
            cameras.to(device),
            every.to(device),
            latent_size=config.image_size // model.config.latent_factor,
            mode=mode or model.config.eft_mode,
            seed=seed,
        )
        if with_diffusion:
            denoiser = model.denoiser.to(device).requires_grad_(False)
            diffusion = Diffusion(denoiser, model.vae.to(device).requires_grad_(False))
    return Distillation(
        start, photos, cached, diffusion, perceptual=perceptual, config=config, draws=SeededDraws(seed + 1, device)
    )


def _problems(sequence: ObjectSequence, chosen: Sequence[int], config: DistillConfig) -> list[str]:
    """What is wrong with the photos."""
    problems = []
    outside = [at for at in chosen if not 0 <= at < len(sequence)]
    if outside:
        problems.append(f"photos {outside} are not there, it has {len(sequence)}, from 0")
    if len(set(chosen)) < MIN_INPUTS:
        problems.append(f"{len(set(chosen))} input photo is not enough, at least {MIN_INPUTS} are needed")
    if sequence.rgb.shape[-1] != config.image_size:
        problems.append(f"photos are {sequence.rgb.shape[-1]} pixels wide and the settings say {config.image_size}")
    if problems:
        return problems
    empty = [sequence.names[at] for at in chosen if not (sequence.masks[at] > 0).any()]
    if empty:
        problems.append(f"the masks of {', '.join(empty)} are empty")
    middle = torch.zeros(1, 3)
    blind = [sequence.names[at] for at in chosen if sequence.cameras[at].depths(middle).item() <= 0]
    if blind:
        problems.append(f"the cameras of {', '.join(blind)} have the object behind them: poses and photos do not fit")
    return problems
