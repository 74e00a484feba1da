"""How the UNet is trained on coarse images, and the recipe of the shipped weights. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from train_runs import LoopConfig, OptimizerConfig


def stage_optimizer(learning_rate: float = 1e-3, warmup_steps: int = 200) -> OptimizerConfig:
    """AdamW, its learning rate falling to a hundredth along a cosine."""
    return OptimizerConfig(
        learning_rate=learning_rate,
        schedule="cosine",
        warmup_steps=warmup_steps,
        final_lr_fraction=0.01,
        weight_decay=0.02,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig(LoopConfig):
    """One stage of training."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("log_every", "checkpoint_every", "keep_checkpoints")
    """Fields that may differ when a stage is continued; not the number of steps, which the curriculum follows."""

    batch_size: int = 32
    """Pairs per step."""

    crop_prob: float = 0.5
    """Probability that a batch is shown in part only: three quarters of each side, the same window of all images."""

    corruption_prob: float = 0.9
    """Probability that a render is corrupted, in windows or as a whole, so that only the reference shows what was
    there. This is what trains attention across views: renders alone do not, as too little in them can be restored by
    copying. Falls linearly to `final_corruption_prob` during the curriculum."""

    final_corruption_prob: float = 0.1
    """What that probability has come down to at the end of the curriculum, and stays at."""

    curriculum: float = 0.6
    """Fraction of the steps over which corruption becomes rarer and color jitter more frequent, in (0, 1]."""

    drop_reference_prob: float = 0.1
    """Probability that a batch is shown without references."""

    wrong_reference_prob: float = 0.1
    """Probability that a batch is shown with references of other pairs, which nothing should be taken from."""

    color_jitter_prob: float = 0.5
    """Probability that the colors of a pair are jittered, alike in all its images: channels permuted, surfaces of one
    color blackened, contrast raised, gamma changed. Black is then no sign of a hole. Rises linearly from 0 during the
    curriculum: with much jitter from the start, views did not learn to attend to each other."""

    disocclusion_prob: float = 0.2
    """Probability that a window of render and photo shows what the reference does not: another pair's, or the same in
    the dark. What the reference does not show is then no sign of a corruption. Rises from 0 during the curriculum."""

    clean_prob: float = 0.15
    """Probability that a pair's photo takes the place of its render: there is nothing to correct then."""

    regression_weight: float = 1.0
    """Where an image comes out worse than it went in, by how much counts so many times more, at least 0."""

    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of forward and backward; the weights stay float32."""

    optimizer: OptimizerConfig = field(default_factory=stage_optimizer)
    """AdamW; the cosine spans the warm-up as well."""

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        probabilities = ("crop_prob", "corruption_prob", "final_corruption_prob", "color_jitter_prob")
        for name in (*probabilities, "disocclusion_prob", "clean_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.drop_reference_prob + self.wrong_reference_prob <= 1:
            raise ValueError("drop_reference_prob + wrong_reference_prob must be in [0, 1]")
        if self.regression_weight < 0:
            raise ValueError(f"regression_weight must be at least 0, got {self.regression_weight}")
        if not 0 < self.curriculum <= 1:
            raise ValueError(f"curriculum must be in (0, 1], got {self.curriculum}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeConfig:
    """All of the training, by default that of the shipped weights."""

    channels: tuple[int, ...] = (32, 64)
    """Of the UNet's levels."""

    reference_pretraining: StageConfig = StageConfig(
        max_steps=1500,
        ema_decay=0.995,
        ema_warmup="ratio_from_zero",
        color_jitter_prob=0.3,
        disocclusion_prob=0.0,
        regression_weight=0.0,
    )
    """Stage 1, on small pairs: views learn to attend to each other."""

    min_reference_gain_db: float = 0.02
    """Stage 1 has succeeded where the right reference is better than a wrong one by so many dB on held-out scenes:
    where it has not, the two agree to 0.001 dB. Stage 2 widens the gap."""

    max_attempts: int = 5
    """Seeds that stage 1 is tried with, 0 and up: whether it succeeds within its steps depends on chance."""

    main: StageConfig = StageConfig(
        max_steps=12_000,
        ema_decay=0.995,
        ema_warmup="ratio_from_zero",
        corruption_prob=0.6,
        curriculum=0.5,
        regression_weight=0.0,
        optimizer=stage_optimizer(8e-4),
    )
    """Stage 2, on the artifacts of splats, with ever more color jitter, and windows that no reference shows."""

    identity_fine_tuning: StageConfig = StageConfig(
        max_steps=6000,
        ema_decay=0.995,
        ema_warmup="ratio_from_zero",
        corruption_prob=0.1,
        curriculum=0.001,
        disocclusion_prob=0.3,
        clean_prob=0.3,
        regression_weight=0.3,
        optimizer=stage_optimizer(5e-4, warmup_steps=100),
    )
    """Stage 3: good renders are left as they are, and dark things that are no holes."""

    detail_factor: float = 0.4
    """What the finished network sees of the detail there is (`difix_model.identity.scale_detail`). Captured scenes have
    more than generated ones; on renders of their training photos it does least harm so."""
