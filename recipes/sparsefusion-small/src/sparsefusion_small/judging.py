"""Figures of the parts on generated objects that no training saw."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sparsefusion import (
    Diffusion,
    EpipolarTransformer,
    ModelConfig,
    ObjectSequence,
    SparseFusionModel,
    cache_views,
    choose_inputs,
)
from sparsefusion.config import EftMode, small_distillation
from sparsefusion.data.generated import HELD_OUT_SEED, generated_sequence
from sparsefusion.distill import sample_image
from sparsefusion.results import nearest_input
from sparsefusion.scores import score
from sparsefusion.vae import ImageVae
from sparsefusion.vldm.diffusion import noise_like

NUM_INPUTS = 2

SAMPLED_TIMES = (0.3, 0.6, 0.95)
"""Samples of the diffusion model are judged that start from noise of these times."""

VIEWS_SAMPLED = 2
"""Views of every object that are sampled."""


def held_out(count: int, image_size: int) -> Iterator[tuple[ObjectSequence, list[int]]]:
    """Objects in a ring of cameras, and their input photos."""
    for at in range(count):
        sequence = generated_sequence(HELD_OUT_SEED + at, image_size=image_size)
        yield sequence, list(choose_inputs(len(sequence), NUM_INPUTS, at))


def eft_figures(eft: EpipolarTransformer, config: ModelConfig, count: int) -> dict[str, float]:
    """Mean PSNR of held-out views, from two photos: of the nearest photo, and of the transformer in both modes."""
    modes: tuple[EftMode, ...] = ("eval", "train")
    found: dict[str, list[float]] = {name: [] for name in ("psnr_nearest_input", *(f"psnr_eft_{m}" for m in modes))}
    for sequence, chosen in held_out(count, config.image_size):
        asked = [at for at in range(len(sequence)) if at not in chosen]
        inputs = sequence.subset(chosen)
        for mode in modes:
            views = cache_views(
                eft,
                inputs.rgb,
                inputs.cameras,
                sequence.cameras,
                sequence.cameras[asked],
                latent_size=config.latent_size,
                mode=mode,
            )
            found[f"psnr_eft_{mode}"] += [
                score(views.rgb[place, None], sequence.rgb[at, None]).psnr for place, at in enumerate(asked)
            ]
        found["psnr_nearest_input"] += [
            score(sequence.rgb[nearest_input(sequence.cameras, chosen, at), None], sequence.rgb[at, None]).psnr
            for at in asked
        ]
    return {name: sum(values) / len(values) for name, values in found.items()}


@torch.no_grad()
def vae_psnr(vae: ImageVae, count: int) -> float:
    """Mean PSNR of images through latents and back."""
    values = []
    for at in range(count):
        rgb = generated_sequence(HELD_OUT_SEED + at, num_views=2, image_size=64).rgb
        again = ((vae.decode(vae.encode(2 * rgb - 1)) + 1) / 2).clamp(0, 1)
        values += [score(again[view, None], rgb[view, None]).psnr for view in range(len(rgb))]
    return sum(values) / len(values)


def sample_figures(model: SparseFusionModel, count: int) -> dict[str, float]:
    """Mean PSNR of held-out views, as samples of the diffusion model that start from the transformer's images."""
    config = small_distillation(model.config.image_size)
    diffusion = Diffusion(model.denoiser.eval(), model.vae.eval())
    found: dict[str, list[float]] = {f"psnr_samples_from_{time}": [] for time in SAMPLED_TIMES}
    for place, (sequence, chosen) in enumerate(held_out(count, model.config.image_size)):
        asked = [at for at in range(len(sequence)) if at not in chosen][:VIEWS_SAMPLED]
        inputs = sequence.subset(chosen)
        views = cache_views(
            model.eft,
            inputs.rgb,
            inputs.cameras,
            sequence.cameras,
            sequence.cameras[asked],
            latent_size=model.config.latent_size,
            mode=model.config.eft_mode,
        )
        for time in SAMPLED_TIMES:
            noise = noise_like(torch.Generator().manual_seed(place))
            for view, at in enumerate(asked):
                _, _, image = sample_image(
                    diffusion,
                    views.rgb[view, None],
                    views.features[view, None],
                    time,
                    max_steps=config.num_sampling_steps,
                    noise=noise,
                )
                found[f"psnr_samples_from_{time}"].append(score(image, sequence.rgb[at, None]).psnr)
    return {name: sum(values) / len(values) for name, values in found.items()}
