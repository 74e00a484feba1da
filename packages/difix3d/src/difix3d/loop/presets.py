"""The constants of the released code and of the paper; no torch here."""

from collections.abc import Iterable
from dataclasses import replace

from difix3d.loop.config import (
    RELEASED_FIX_STEPS,
    MixtureConfig,
    ProgressiveConfig,
    RoundsConfig,
    SteppingConfig,
    ValidationConfig,
)
from difix3d.loop.target_config import HeldOutTargets
from splat_recon.config import AdcConfig, LearningRates, TrainConfig

RELEASED_STEPS = 60_000
"""Steps of the released code's run."""

PAPER_STEPS, PAPER_FIX_EVERY = 30_000, 1500
"""The paper fixes novel views every 1500 steps; it does not say of how many: 30 000 is gsplat's run."""

RELEASED_LEARNING_RATES = LearningRates(
    means=1.6e-4 / 10, scales=5e-3 / 5, quats=1e-3 / 5, opacities=5e-2 / 5, sh0=2.5e-3 / 50, sh_rest=2.5e-3 / 20 / 50
)
"""The released code's rates, for going on from a finished splat; it takes them from scratch too."""


def released_train_config(max_steps: int, strategy: AdcConfig | None = None, *, seed: int = 42) -> TrainConfig:
    """The released code's training of the splat: gsplat's intervals in 60 000 steps and lower rates, scaled.

    Args:
        strategy: Density control, its intervals those of a run of 60 000 steps; None: gsplat's.
    """
    config = TrainConfig(max_steps=RELEASED_STEPS, strategy=strategy or AdcConfig(), seed=seed)
    return replace(config, learning_rates=RELEASED_LEARNING_RATES).scaled_to(max_steps)


def released_config(train: TrainConfig) -> ProgressiveConfig:
    """The released code's constants around a given training of the splat, to whose length its rounds are scaled."""
    return ProgressiveConfig(
        train=train,
        rounds=_rounds_after(RELEASED_FIX_STEPS, train.max_steps / RELEASED_STEPS),
        targets=HeldOutTargets(),
        stepping=SteppingConfig(step_distance=0.5, unit="world", max_turn_degrees=None),
        mixture=MixtureConfig(novel_prob=0.3, novel_weight=0.3, captured_weight=1.5),
        validation=ValidationConfig(fraction=0),
        fix_batch_size=1,
    )


def paper_config(train: TrainConfig) -> ProgressiveConfig:
    """The paper's schedule, a round every 1500 of 30 000 steps, scaled; what it does not say is the released code's."""
    steps = range(PAPER_FIX_EVERY, PAPER_STEPS + 1, PAPER_FIX_EVERY)
    return replace(released_config(train), rounds=_rounds_after(steps, train.max_steps / PAPER_STEPS))


def _rounds_after(steps: Iterable[int], factor: float) -> RoundsConfig:
    scaled = tuple(sorted({max(1, round(step * factor)) for step in steps}))
    return RoundsConfig(round_steps=scaled, num_probe_views=0, learn_unchanged=True)
