"""Configuration of training: pairs, losses, precision, validation; the loop's own is inherited. No torch import."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from output_files import check_range
from train_runs.config import LoopConfig
from train_runs.config import OptimizerConfig as OptimizerConfig

SIZE_MULTIPLE = 8
"""Training images have sides that are multiples of this, the autoencoder's reduction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How a pair of image files becomes tensors of one size."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("num_workers", "cache")
    """Fields that may differ when a run is continued."""

    height: int = 576
    """Height of the training images in pixels, a multiple of 8. Released code: 576."""

    width: int = 1024
    """Width of the training images in pixels, a multiple of 8. Released code: 1024."""

    framing: Literal["resize", "crop"] = "resize"
    """`resize` scales every image to height x width, whatever its aspect (as released); `crop` cuts a random window of
    that size at native resolution, the same window in every view of a sample."""

    horizontal_flip_prob: float = 0.0
    """Probability that all views of a sample are mirrored left to right. Released code: 0."""

    vertical_flip_prob: float = 0.0
    """Probability that all views of a sample are mirrored top to bottom. Released code: 0."""

    drop_reference_prob: float = 0.0
    """Probability that a sample is shown without its reference, so that one network serves both cases."""

    wrong_reference_prob: float = 0.0
    """Probability that a sample is shown with another sample's reference, so that blind copying does not pay."""

    cache: bool = False
    """Keep decoded images in memory as bytes. For small images and training on a CPU."""

    num_workers: int = 0
    """Threads that decode the next batches ahead of time; 0 decodes in the training thread. Results do not depend on
    it."""

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if value <= 0 or value % SIZE_MULTIPLE:
                raise ValueError(f"{name} must be a positive multiple of {SIZE_MULTIPLE}, got {value}")
        check_range(self, "in [0, 1]", "horizontal_flip_prob", "vertical_flip_prob")
        check_range(self, "in [0, 1]", "drop_reference_prob", "wrong_reference_prob")
        if self.drop_reference_prob + self.wrong_reference_prob > 1:
            raise ValueError("drop_reference_prob + wrong_reference_prob must be at most 1")
        check_range(self, "0 or more", "num_workers")


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Which differences between network output and clean image count, and how much."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("vgg16",)
    """Fields that may differ when a run is continued."""

    l2_weight: float = 1.0
    """Weight of the mean squared error in [-1, 1]. Released code: 1."""

    l1_weight: float = 0.0
    """Weight of the mean absolute error in [-1, 1]. Released code: none."""

    lpips_weight: float = 1.0
    """Weight of LPIPS with the VGG16 backbone. Released code: 1."""

    gram_weight: float = 1.0
    """Weight of the Gram-matrix (style) loss. Released code: 1."""

    gram_warmup_steps: int = 2000
    """The Gram loss starts after this many optimizer steps. Released code: 2000."""

    gram_crop: int = 400
    """Side in pixels of the square window the Gram loss looks at; smaller images are whole. Released code: 400."""

    gram_across_batch: bool = False
    """Compute one Gram matrix over all images of a batch, as the released code does, so that unrelated images are
    correlated with each other; otherwise one Gram matrix for each image."""

    views: Literal["all", "rendered"] = "all"
    """Which output views count: `all`, where a reference is to be reproduced as it is (as released), or only the
    `rendered` one."""

    clamp_before_loss: bool = False
    """Clamp the output to [-1, 1] before the losses, as the released code does; out-of-range pixels then get no
    gradient."""

    vgg16: Path | None = None
    """File with VGG16's weights under torchvision's names; by default torchvision's download is looked for in the cache
    of torch.hub."""

    missing_backbone: Literal["stop", "skip"] = "stop"
    """Without VGG16's weights: `stop` before training, or `skip` LPIPS and Gram with a warning."""

    def __post_init__(self) -> None:
        names = ("l2_weight", "l1_weight", "lpips_weight", "gram_weight")
        check_range(self, "0 or more", *names, "gram_warmup_steps")
        check_range(self, "positive", "gram_crop")
        if not any(getattr(self, name) for name in names):
            raise ValueError(f"at least one of {', '.join(names)} must be positive")


Trainable = Literal["released", "all", "unet", "lora", "decoder", "latent"]
"""Names of the sets of parameters that can be trained; see :mod:`difix_train.trainable`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(LoopConfig):
    """Everything that decides the result of a training run besides pairs and starting weights.

    Released code: 10000 steps (there only the schedule's length), no accumulation, no moving average, a checkpoint
    every 500 steps.
    """

    MAY_CHANGE: ClassVar[tuple[str, ...]] = (
        *LoopConfig.MAY_CHANGE,
        "validate_every",
        "validation_samples",
        "grid_samples",
    )
    """Fields that may differ when a run is continued."""

    batch_size: int = 1
    """Samples in one forward pass of each process. Released README: 1 (its code's default: 4)."""

    timestep: int = 199
    """Diffusion timestep at which the network denoises in one step, in [0, 999]. Released code: 199."""

    trainable: Trainable = "released"
    """Which parameters are trained: `released` (whole UNet, decoder LoRA, skip convolutions), `all`, `unet`, `lora`
    (every adapter, of decoder and UNet, and the skip convolutions), `decoder` (every decoder parameter) or `latent`
    (all but the skips, so that a network from scratch learns to use its latent, where alone views meet, before its
    skips)."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of forward and backward. The weights that are trained stay float32 in both cases."""

    gradient_checkpointing: bool = False
    """Recompute activations of UNet and decoder in the backward pass: less memory, more time. Released code: UNet
    only."""

    posterior_noise: bool = True
    """Draw the latent from the encoder's posterior (as released); otherwise take its mode."""

    validate_every: int = 500
    """Steps between validations on the test split; 0 for none. The last step is validated too. Released code: 100."""

    validation_samples: int = 100
    """At most this many samples are used by a validation. Released code: 100."""

    grid_samples: int = 6
    """Test samples in the picture that every validation writes, at the first, every Nth and the last step; 0 for
    none. Released code: every tenth."""

    data: DataConfig = field(default_factory=DataConfig)
    """Images and augmentation."""

    loss: LossConfig = field(default_factory=LossConfig)
    """Loss terms."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=2e-5))
    """Optimizer and learning rate. Released README: AdamW at a constant 2e-5 (its code's default: 5e-6), moments 0.9
    and 0.999, weight decay 0.01, epsilon 1e-8, gradient norm 1, no warm-up with its constant schedule."""

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)
        check_range(self, "positive", "batch_size", "validation_samples")
        check_range(self, "0 or more", "validate_every", "grid_samples")
        check_range(self, "in [0, 999]", "timestep")
