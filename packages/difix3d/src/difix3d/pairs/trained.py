"""What the strategies share: training Gaussians and rendering pairs on the way."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from difix3d.pairs.config import PairsConfig
from difix3d.pairs.generated import GeneratedPair, ranked_references
from output_files import output_names
from splat_recon.config import MIN_GAUSSIANS, AdcConfig, TrainConfig, mcmc_config
from splat_recon.few_photos import config_for_photos
from splat_recon.scene.scene import Scene, View
from splat_recon.trainer import SplatTrainer
from splat_recon.views.view_set import ViewSet
from splat_render.device import chosen_device
from splat_render.output import RenderOutput

MCMC_PROB = 0.35
"""Share of trainings with MCMC density control; the others use adaptive density control."""

GAUSSIANS_PER_PIXEL = (0.1, 0.4)
"""The cap on the number of Gaussians is drawn between these fractions of a photo's pixels."""

REGULARIZED_PROB = 0.5
"""Fraction of trainings that are as `config_for_photos` says, where there are few photos."""

RANDOM_BACKGROUND_PROB = 0.3
"""Share of trainings with a random background color at each step, which closes holes."""


def new_trainer(scene: Scene, views: Sequence[View], config: PairsConfig, rng: np.random.Generator) -> SplatTrainer:
    """A trainer with drawn settings, starting from the scene's points.

    Args:
        config: Length of the schedule, and where to train.
    """
    device = chosen_device(config.device)
    return SplatTrainer(scene, ViewSet.from_views(views), train_config(views, config, rng), device=device)


def render_at_checkpoints(
    trainer: SplatTrainer,
    train_names: list[str],
    target_names: list[str],
    fractions: tuple[float, ...],
    label: str,
    config: PairsConfig,
    rng: np.random.Generator,
) -> Iterator[GeneratedPair]:
    """Train and render photos at given fractions of the schedule.

    Args:
        train_names: Photos that its views come from; references are chosen among them.
        target_names: Photos to render; `targets_per_render` of them each time.
        label: Prefix of the pairs' names.
    """
    scene = trainer.scene
    stems = output_names(scene.names, ending="", flat=True)
    for fraction in sorted(fractions):
        trainer.train_until(max(1, round(fraction * config.max_steps)))
        chosen = rng.permutation(len(target_names))[: config.targets_per_render]
        for i in sorted(chosen):
            target = target_names[i]
            output = trainer.render(scene.view(target).camera)
            name = f"{label}_{round(100 * fraction):03d}_{stems[target]}"
            yield pair_of_render(name, label, scene, target, output, train_names)


def pair_of_render(
    name: str, label: str, scene: Scene, target: str, output: RenderOutput, train_names: list[str]
) -> GeneratedPair:
    """A render of a test view, with the training photo that suits it best."""
    return GeneratedPair(
        name=name,
        label=label,
        degraded_u8=as_bytes(output),
        target=target,
        reference=ranked_references(scene, target, train_names)[0],
        coverage=coverage(output),
        trained_on=tuple(train_names),
    )


def as_bytes(output: RenderOutput) -> UInt8[np.ndarray, "h w 3"]:
    """The image of a render."""
    return (output.rgb.clamp(0, 1).cpu().numpy() * 255 + 0.5).astype(np.uint8)


def coverage(output: RenderOutput) -> float:
    """Mean opacity of a render, in [0, 1]."""
    return float(output.alpha.double().mean())


def train_config(views: Sequence[View], config: PairsConfig, rng: np.random.Generator) -> TrainConfig:
    """Drawn settings of a training on some views."""
    num_pixels = views[0].camera.width * views[0].camera.height
    cap_max = max(MIN_GAUSSIANS, round(float(rng.uniform(*GAUSSIANS_PER_PIXEL)) * num_pixels))
    if rng.random() < MCMC_PROB:
        base = dataclasses.replace(mcmc_config(cap_max), init_scale=float(rng.uniform(0.3, 1.0)))
    else:
        base = TrainConfig(strategy=AdcConfig(cap_max=cap_max))
    if rng.random() < REGULARIZED_PROB:
        # Without a near plane: floaters are what a fixer learns to take away.
        base = config_for_photos(views, base)
    return dataclasses.replace(
        base.scaled_to(config.max_steps),
        sh_degree=int(rng.choice([0, 1, 3])),
        random_background=bool(rng.random() < RANDOM_BACKGROUND_PROB),
        seed=int(rng.integers(2**31)),
    )
