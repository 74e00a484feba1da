"""Settings of the method, as `--pipeline.*` flags; the docstrings are their help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RELEASED_EVERY = 2000
"""Steps between two rounds of the released plugin."""


@dataclass
class RoundsConfig:
    """When novel views are rendered and fixed."""

    first: int = RELEASED_EVERY
    """Steps of a run from scratch before the first round; a run that begins with --load-checkpoint of a finished model
    begins with a round. Released code: at step 0."""

    every: int = RELEASED_EVERY
    """Steps between two rounds. Released code: 2000."""

    last: float = 0.95
    """Fraction of the run after which no round begins: its views could not be learned from."""

    keep: int = 1
    """How many of the newest rounds take part in training. Released code: 1."""

    def __post_init__(self) -> None:
        if self.first < 1 or self.every < 1 or self.keep < 1 or not 0 <= self.last <= 1:
            raise ValueError("first, every and keep must be at least 1, and last in [0, 1]")


@dataclass
class TargetsConfig:
    """Where novel views go."""

    kind: Literal["between", "eval", "file"] = "between"
    """between: the middle of neighboring photos. eval: the evaluation photos' poses, as in the released code; scores
    there then say nothing of other places. file: those of `path`."""

    path: Path | None = None
    """For `file`: a COLMAP folder, transforms.json, cameras.json or nerfstudio's camera_path.json, in the world of the
    data (nerfstudio's own frame for camera_path.json)."""

    num_views: int = 32
    """For `between`: at most so many views."""

    def __post_init__(self) -> None:
        if (self.kind == "file") != (self.path is not None):
            raise ValueError("targets of kind file need a path, and only they do")
        if self.num_views < 1:
            raise ValueError(f"num_views must be at least 1, got {self.num_views}")


@dataclass
class SteppingConfig:
    """How far novel views move per round."""

    step_distance: float = 0.25
    """Length of a step in camera extents (largest distance of a camera from their mean). Released code: 0.5 world
    units, whatever the scale."""

    rotation_weight: float = 1.0
    """How many extents count as much as one radian when poses are compared. Released code: 1."""

    def __post_init__(self) -> None:
        if self.step_distance <= 0 or self.rotation_weight < 0:
            raise ValueError("step_distance must be positive and rotation_weight at least 0")


@dataclass
class MixtureConfig:
    """How photos and fixed views share the training steps."""

    novel_prob: float = 0.4
    """Probability that a step uses fixed views, in [0, 1]. Released code: 0.4."""

    novel_weight: float = 1.0
    """Factor of the color loss at steps with fixed views. Released code: 1."""

    alpha_threshold: float = 0.5
    """Pixels of a fixed view count where the render's opacity is above this. Released code: all count."""

    def __post_init__(self) -> None:
        if not (0 <= self.novel_prob <= 1 and 0 <= self.alpha_threshold < 1 and self.novel_weight >= 0):
            raise ValueError("novel_prob must be in [0, 1], alpha_threshold in [0, 1), novel_weight at least 0")


@dataclass
class FixerConfig:
    """What fixes novel views."""

    model: str = "default"
    """Weights: default (small ones that come with difix-model), a folder, a hub id such as nvidia/difix_ref, a .pkl
    with `base`, or none: views are trained on as they were rendered."""

    base: str | None = None
    """For a .pkl: what it was trained from."""

    gate: Literal["auto", "checkpoint", "off"] = "auto"
    """How much of a fix is let through: auto keeps renders that are good; checkpoint takes what the weights bring; off
    takes every fix whole, as the released code does."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating-point type of the network; auto: bfloat16 on CUDA, float32 elsewhere."""

    device: str | None = None
    """Where the network runs; by default where the model is trained."""

    offload: bool = False
    """Keep the network on the CPU between rounds, for the sake of the GPU's memory."""

    num_references: int = 1
    """How many of the nearest photos each view is fixed with. Released code: 1."""

    batch_size: int = 4
    """How many views are fixed at a time. Released code: 1."""

    def __post_init__(self) -> None:
        if self.num_references < 1 or self.batch_size < 1:
            raise ValueError("num_references and batch_size must be at least 1")
