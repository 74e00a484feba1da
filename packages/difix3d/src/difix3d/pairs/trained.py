"""What `sparse` and `underfit` share: training Gaussians and rendering pairs on the way."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from difix3d.pairs.config import PairsConfig
from difix3d.pairs.made import MadePair, ranked_references
from splat_recon.config import AdcConfig, TrainConfig, mcmc_config
from splat_recon.scene.scene import Scene
from splat_recon.trainer import SplatTrainer
from splat_recon.views.view_set import ViewSet

MCMC_PROB = 0.35
"""Share of trainings with MCMC density control; the others use adaptive density control."""

MIN_GAUSSIANS, MAX_GAUSSIANS = 3000, 12_000
"""The cap on the number of Gaussians is drawn between these: enough for images of about 200 pixels."""

RANDOM_BACKGROUND_PROB = 0.3
"""Share of trainings with a random background colour at each step, which closes holes."""


def pairs_on_the_way(
    scene: Scene,
    train_names: list[str],
    target_names: list[str],
    shares: tuple[float, ...],
    label: str,
    config: PairsConfig,
    rng: np.random.Generator,
) -> Iterator[MadePair]:
    """Train on some photos and render others at given shares of the schedule.

    Args:
        scene: The scene.
        train_names: Photos to train on; references come from them.
        target_names: Photos to render; `targets_per_render` of them each time.
        shares: Where in the schedule to render.
        label: Prefix of the pairs' names.
        config: Length of the schedule and number of targets.
        rng: Draws settings and targets.
    """
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.select(train_names)), _train_config(config, rng))
    for share in sorted(shares):
        trainer.train_until(max(1, round(share * config.max_steps)))
        chosen = rng.permutation(len(target_names))[: config.targets_per_render]
        for i in sorted(chosen):
            target = target_names[i]
            rgb = trainer.render(scene.view(target).camera).rgb.clamp(0, 1).numpy()
            yield MadePair(
                name=f"{label}_{round(100 * share):03d}_{target.rsplit('.', 1)[0].replace('/', '_')}",
                degraded_u8=(rgb * 255 + 0.5).astype(np.uint8),
                target=target,
                reference=ranked_references(scene, target, train_names)[0],
            )


def _train_config(config: PairsConfig, rng: np.random.Generator) -> TrainConfig:
    cap_max = int(rng.integers(MIN_GAUSSIANS, MAX_GAUSSIANS))
    if rng.random() < MCMC_PROB:
        base = dataclasses.replace(mcmc_config(cap_max), init_scale=float(rng.uniform(0.3, 1.0)))
    else:
        base = TrainConfig(strategy=AdcConfig(cap_max=cap_max))
    return dataclasses.replace(
        base.scaled_to(config.max_steps),
        sh_degree=int(rng.choice([0, 1, 3])),
        random_background=bool(rng.random() < RANDOM_BACKGROUND_PROB),
        seed=int(rng.integers(2**31)),
    )
