"""How the UNet is trained on coarse images. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseConfig:
    """How the UNet is trained."""

    max_steps: int = 10_000
    """Optimizer steps."""

    batch_size: int = 32
    """Pairs per step."""

    crop_prob: float = 0.5
    """Probability that a batch is shown in part only: three quarters of each side, the same window of all images."""

    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate, which falls to a hundredth of it along a cosine."""

    warmup_steps: int = 200
    """Steps over which it rises first."""

    weight_decay: float = 0.02
    """AdamW's decoupled weight decay."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this total norm."""

    ema_decay: float = 0.995
    """Decay of the moving average of the weights, which is what is kept."""

    damage_prob: float = 0.9
    """Probability that a render is damaged, in windows or as a whole, so that only the reference tells what was there.
    This is what teaches the views to look at each other: real damage alone does not, as too little of it can be mended
    by copying. Falls linearly to `last_damage_prob` during the curriculum."""

    last_damage_prob: float = 0.1
    """What that probability has come down to at the end of the curriculum, and stays at."""

    curriculum: float = 0.6
    """Share of the steps over which damage becomes rarer and changes of tone more frequent, in (0, 1]."""

    drop_reference_prob: float = 0.1
    """Probability that a batch is shown without references."""

    wrong_reference_prob: float = 0.1
    """Probability that a batch is shown with references of other pairs, which nothing should be taken from."""

    tone_prob: float = 0.5
    """Probability that the tones of a pair are changed, alike in all its images: colours exchanged, surfaces of one
    colour blackened, contrast raised, brightness bent. What is black is then no sign of a hole. Rises linearly from 0
    during the curriculum: with many changes of tone from the start, views did not learn to look at each other."""

    stranger_prob: float = 0.2
    """Probability that a window of render and photo shows what the reference does not: another pair's, or the same in
    the dark. What the reference does not show is then no sign of damage. Rises from 0 during the curriculum too."""

    clean_prob: float = 0.15
    """Probability that a pair's photo stands in the place of its render: there is nothing to correct then."""

    harm_weight: float = 1.0
    """Where an image comes out worse than it went in, by how much counts so many times more, at least 0."""

    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of forward and backward; the weights stay float32."""

    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        if min(self.max_steps, self.batch_size) < 1:
            raise ValueError("max_steps and batch_size must be at least 1")
        probabilities = ("crop_prob", "damage_prob", "last_damage_prob", "tone_prob", "stranger_prob", "clean_prob")
        for name in probabilities:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.drop_reference_prob + self.wrong_reference_prob <= 1:
            raise ValueError("drop_reference_prob + wrong_reference_prob must be in [0, 1]")
        if self.harm_weight < 0:
            raise ValueError(f"harm_weight must be at least 0, got {self.harm_weight}")
        if not 0 < self.curriculum <= 1:
            raise ValueError(f"curriculum must be in (0, 1], got {self.curriculum}")
