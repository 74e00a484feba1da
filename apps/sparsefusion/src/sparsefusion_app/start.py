"""What a reconstruction begins with: the object, the networks, and the distillations under their settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefusion import DistillConfig, FieldConfig, InputError, ModelConfig
from sparsefusion.config import SMALL_IMAGE_SIZE, small_distillation, small_field
from sparsefusion_app.cli import (
    CPU_IMAGE_SIZE,
    CPU_MAX_STEPS,
    CPU_SAMPLES,
    CUDA_IMAGE_SIZE,
    CUDA_MAX_STEPS,
    ReconstructSettings,
)

if TYPE_CHECKING:
    from sparsefusion import Distillation, ObjectSequence, SparseFusionModel
    from sparsefusion.data.colmap import WorldTransform
    from sparsefusion.losses import PerceptualDistance

PUBLISHED_FUSION_START = 1000 / 3000
"""Share of the iterations after which samples of the diffusion model are fitted."""

RADIUS_MARGIN = 0.95
"""Own objects are scaled to fill at most this share of what small networks look at."""


@dataclass(frozen=True)
class Networks:
    """The networks of a run."""

    model: SparseFusionModel | None
    """The networks; None where there are none."""

    with_diffusion: bool
    """Whether the diffusion model is among them."""

    @property
    def is_small(self) -> bool:
        """Whether they take small images."""
        return self.model is not None and self.model.config.image_size < SMALL_IMAGE_SIZE

    def image_size(self, settings: ReconstructSettings, device: str) -> int:
        """Side of the images, in pixels."""
        if self.model is None:
            return settings.image_size or (CUDA_IMAGE_SIZE if device == "cuda" else CPU_IMAGE_SIZE)
        size = self.model.config.image_size
        if settings.image_size not in (None, size):
            raise InputError(f"the networks take images of {size} pixels: leave --image-size out, or give --model none")
        return size


def load_networks(settings: ReconstructSettings) -> Networks:
    """Read the networks that were asked for."""
    from sparsefusion import SparseFusionModel, build_model, load_denoiser, load_eft, load_model, load_vae
    from sparsefusion.checkpoints import EMBEDDED_MODEL

    if settings.networks == "none":
        return Networks(None, False)
    if settings.eft is None:
        return Networks(load_model(EMBEDDED_MODEL if settings.networks == "embedded" else Path(settings.model)), True)
    eft = load_eft(settings.eft)
    if settings.vldm is None or settings.vae is None:
        import torch

        with torch.device("meta"):  # Never run: only the transformer is.
            rest = build_model(ModelConfig())
        return Networks(SparseFusionModel(eft, rest.denoiser, rest.vae, ModelConfig()), False)
    denoiser, vae = load_denoiser(settings.vldm), load_vae(settings.vae)
    return Networks(SparseFusionModel(eft, denoiser, vae, ModelConfig()), True)


def read_object(
    settings: ReconstructSettings, size: int, networks: Networks
) -> tuple[ObjectSequence, list[int], WorldTransform | None]:
    """The object, its input photos, and how a COLMAP world was moved."""
    from sparsefusion import choose_inputs

    transform = None
    if settings.scene is not None:
        from sparsefusion import read_colmap_object
        from sparsefusion.data.colmap import MAX_OBJECT_RADIUS

        radius = MAX_OBJECT_RADIUS
        if networks.model is not None:
            radius = min(radius, RADIUS_MARGIN * networks.model.config.eft.depth_margin)
        found = read_colmap_object(settings.scene, image_size=size, max_radius=radius)
        sequence, transform = found.sequence, found.transform
    elif settings.dataset == "generated":
        from sparsefusion.data.generated import HELD_OUT_SEED, generated_sequence

        sequence = generated_sequence(HELD_OUT_SEED + settings.index, image_size=size)
    elif settings.dataset == "co3d":
        from sparsefusion import Co3dCategory

        assert settings.root is not None
        sequence = Co3dCategory(settings.root, settings.category, image_size=size).read(settings.index)
    else:
        sequence = _read_toy(settings, size)
    if settings.inputs:
        return sequence, list(settings.inputs), transform
    if settings.views > len(sequence):
        raise InputError(f"--views {settings.views}: {sequence.name} has only {len(sequence)} photos")
    return sequence, list(choose_inputs(len(sequence), settings.views, settings.index)), transform


def _read_toy(settings: ReconstructSettings, size: int) -> ObjectSequence:
    from sparsefusion import read_toy

    assert settings.root is not None
    sequences = read_toy(settings.root, settings.category)
    if settings.index >= len(sequences):
        raise InputError(f"--index {settings.index}: {settings.category} has {len(sequences)} sequences, from 0")
    sequence = sequences[settings.index]
    if sequence.rgb.shape[-1] != size:
        raise InputError(
            f"{sequence.name} has images of {sequence.rgb.shape[-1]} pixels and not {size}: give --image-size "
            f"{sequence.rgb.shape[-1]}, and networks that take it"
        )
    return sequence


def configs(settings: ReconstructSettings, networks: Networks, size: int, device: str) -> tuple[
    DistillConfig, FieldConfig
]:  # fmt: skip
    """Settings of the distillation and of the field, where flags do not say otherwise."""
    on_cpu = device == "cpu"
    if networks.is_small:
        assert networks.model is not None
        small = small_distillation(size)
        config = small_distillation(size, settings.max_steps or small.max_steps)
        field = small_field(min(FieldConfig().bound, networks.model.config.eft.depth_margin))
    else:
        steps = settings.max_steps or (CPU_MAX_STEPS if on_cpu else CUDA_MAX_STEPS)
        start = int(steps * PUBLISHED_FUSION_START)
        quick = on_cpu and networks.model is None
        config = DistillConfig(
            max_steps=steps,
            diffusion_start=start,
            perceptual_start=start,
            image_size=size,
            render_size=max(16, size // (4 if quick else 2)),
        )
        samples = CPU_SAMPLES if on_cpu else FieldConfig().num_steps
        field = FieldConfig(num_steps=samples, num_importance=samples)
    config = replace(
        config,
        render_size=settings.render_size or config.render_size,
        num_sampling_steps=settings.sampling_steps or config.num_sampling_steps,
    )
    if settings.samples is not None:
        field = replace(field, num_steps=settings.samples, num_importance=settings.samples)
    return config, field


def start_distillations(
    settings: ReconstructSettings,
    networks: Networks,
    sequence: ObjectSequence,
    chosen: list[int],
    perceptual: PerceptualDistance | None,
    device: str,
) -> tuple[Distillation, Distillation | None]:
    """The distillation, and one of the photos alone to compare it with, where that is wanted."""
    from sparsefusion import start_distillation

    config, field = configs(settings, networks, sequence.rgb.shape[-1], device)

    def started(model: SparseFusionModel | None) -> Distillation:
        return start_distillation(
            sequence,
            chosen,
            model,
            config=config,
            field=field,
            mode=settings.eft_mode,
            perceptual=perceptual,
            seed=settings.seed,
            with_diffusion=networks.with_diffusion,
            device=device,
        )

    compare = settings.compare == "yes" or (settings.compare == "auto" and settings.networks == "embedded")
    return started(networks.model), started(None) if compare and networks.model is not None else None
