"""Configuration of training: pairs, losses, optimizer, precision, checkpoints. No torch import."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SIZE_MULTIPLE = 8
"""Training images have sides that are multiples of this, the autoencoder's reduction."""


def _check_range(name: str, value: int | float, low: int | float, high: int | float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}")


def _check_positive(name: str, value: int | float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


def _check_not_negative(name: str, value: int | float) -> None:
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How a pair of image files becomes tensors of one size."""

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
        for name in ("horizontal_flip_prob", "vertical_flip_prob", "drop_reference_prob", "wrong_reference_prob"):
            _check_range(name, getattr(self, name), 0, 1)
        if self.drop_reference_prob + self.wrong_reference_prob > 1:
            raise ValueError("drop_reference_prob + wrong_reference_prob must be at most 1")
        _check_not_negative("num_workers", self.num_workers)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Which differences between network output and target count, and how much."""

    l2_weight: float = 1.0
    """Weight of the mean squared error in [-1, 1]. Released code: 1."""

    l1_weight: float = 0.0
    """Weight of the mean absolute error in [-1, 1]. Released code: none."""

    log_mse_weight: float = 0.0
    """Weight of the mean over images of log(MSE), the loss whose optimum is the best mean PSNR. Released code: none."""

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

    views: Literal["all", "target"] = "all"
    """Which output views count: `all`, where a reference is to be reproduced as it is (as released), or only the
    `target`."""

    clamp_before_loss: bool = False
    """Clamp the output to [-1, 1] before the losses, as the released code does; out-of-range pixels then get no
    gradient."""

    vgg16: Path | None = None
    """File with VGG16's weights under torchvision's names; by default torchvision's download is looked for in the cache
    of torch.hub."""

    missing_backbone: Literal["stop", "skip"] = "stop"
    """Without VGG16's weights: `stop` before training, or `skip` LPIPS and Gram with a warning."""

    def __post_init__(self) -> None:
        names = ("l2_weight", "l1_weight", "log_mse_weight", "lpips_weight", "gram_weight")
        for name in (*names, "gram_warmup_steps"):
            _check_not_negative(name, getattr(self, name))
        _check_positive("gram_crop", self.gram_crop)
        if not any(getattr(self, name) for name in names):
            raise ValueError(f"at least one of {', '.join(names)} must be positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW and its learning-rate schedule."""

    learning_rate: float = 2e-5
    """Peak learning rate. Released README: 2e-5 (its code's default: 5e-6)."""

    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: `constant` (as released) or `cosine` decay to `final_lr_fraction`."""

    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly from 0. Released code: none with its constant
    schedule."""

    final_lr_fraction: float = 0.0
    """Learning rate at the last step of the cosine schedule, as a fraction of the peak."""

    beta1: float = 0.9
    """Decay of AdamW's first moment. Released code: 0.9."""

    beta2: float = 0.999
    """Decay of AdamW's second moment. Released code: 0.999."""

    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay. Released code: 0.01."""

    eps: float = 1e-8
    """AdamW's epsilon. Released code: 1e-8."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this total norm. Released code: 1."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "eps", "max_grad_norm"):
            _check_positive(name, getattr(self, name))
        for name in ("warmup_steps", "weight_decay"):
            _check_not_negative(name, getattr(self, name))
        for name in ("beta1", "beta2", "final_lr_fraction"):
            _check_range(name, getattr(self, name), 0, 1)


Trainable = Literal["released", "all", "unet", "lora", "decoder", "latent"]
"""Names of the sets of parameters that can be trained; see :mod:`difix_train.trainable`."""


TrackerName = Literal["tensorboard", "wandb"]
"""Where curves can go besides metrics.jsonl."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides the result of a training run besides pairs and starting weights."""

    max_steps: int = 10_000
    """Optimizer steps of the whole run. Released code: 10000 (there only the schedule's length)."""

    batch_size: int = 1
    """Samples in one forward pass of each process. Released README: 1 (its code's default: 4)."""

    gradient_accumulation: int = 1
    """Forward passes whose gradients are averaged into one optimizer step. Released code: 1."""

    seed: int = 0
    """Seed of sampling, augmentation, posterior noise and crops."""

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

    ema_decay: float = 0.0
    """Decay of an exponential moving average of the trained parameters, which then is what checkpoints hold for use; 0
    keeps none. Released code: none."""

    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""

    checkpoint_every: int = 500
    """Steps between checkpoints; the last step is always saved. Released code: 500."""

    keep_checkpoints: int = 2
    """Number of latest checkpoints kept in the run folder."""

    validate_every: int = 500
    """Steps between validations on the test split; 0 for none. The last step is validated too. Released code: 100."""

    validation_samples: int = 100
    """At most this many samples are used by a validation. Released code: 100."""

    grid_samples: int = 6
    """Held-out samples in the picture that every validation writes, at the first, every Nth and the last step; 0 for
    none. Released code: every tenth."""

    data: DataConfig = field(default_factory=DataConfig)
    """Images and augmentation."""

    loss: LossConfig = field(default_factory=LossConfig)
    """Loss terms."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """AdamW and learning rate."""

    def __post_init__(self) -> None:
        positive = ("max_steps", "batch_size", "gradient_accumulation", "log_every", "checkpoint_every")
        for name in (*positive, "keep_checkpoints", "validation_samples"):
            _check_positive(name, getattr(self, name))
        for name in ("seed", "validate_every", "grid_samples"):
            _check_not_negative(name, getattr(self, name))
        _check_range("timestep", self.timestep, 0, 999)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
