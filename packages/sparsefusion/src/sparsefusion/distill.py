"""Fitting a field to a few photos, to the transformer's images and to samples of the diffusion model.

Every iteration takes two optimizer steps: one on an input photo, one on a cached view of the scene's cameras or of a
circle around the object. Cached views are compared with the transformer's image at first. Later the field's own render
is encoded, noised to a random time and denoised again, and compared with what comes of it: the less noise, the less it
counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sparsefusion.cameras import Cameras
from sparsefusion.config import DistillConfig
from sparsefusion.errors import InputError
from sparsefusion.field.network import Field
from sparsefusion.field.render import FieldImage, render_image
from sparsefusion.losses import PerceptualDistance, huber, opacity_penalty
from sparsefusion.vae import ImageVae
from sparsefusion.vldm.diffusion import Noise, Sample, sample_plms
from sparsefusion.vldm.unet import Denoiser


@runtime_checkable
class Draws(Protocol):
    """Where a distillation's random numbers come from; asked in the order in which they are used."""

    def input_view(self, count: int) -> int:
        """Index of an input photo."""
        ...

    def cached_view(self, count: int) -> int:
        """Index of a cached view."""
        ...

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Numbers in [0, 1)."""
        ...

    def time(self, most: float) -> float:
        """A time between 0 and ``most``."""
        ...

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal noise of another tensor's shape."""
        ...

    def get_state(self) -> Tensor:
        """What a later draw depends on, as bytes."""
        ...

    def set_state(self, state: Tensor) -> None:
        """Go on from a state."""
        ...


class SeededDraws:
    """Draws from one generator on the CPU, moved to the device that they are used on."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device

    def input_view(self, count: int) -> int:
        """Index of an input photo."""
        return int(torch.randint(count, (1,), generator=self.generator))

    def cached_view(self, count: int) -> int:
        """Index of a cached view."""
        return int(torch.randint(count, (1,), generator=self.generator))

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator).to(self.device)

    def time(self, most: float) -> float:
        """A time between 0 and ``most``."""
        return min(torch.rand(1, generator=self.generator).item(), most)

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal noise of another tensor's shape."""
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype).to(like.device)

    def get_state(self) -> Tensor:
        """The generator's state."""
        return self.generator.get_state()

    def set_state(self, state: Tensor) -> None:
        """Go on from a state."""
        self.generator.set_state(state)


@dataclass(frozen=True)
class PosedImages:
    """Photos of an object with masks, and their cameras in the field's axes."""

    rgb: Float[Tensor, "n 3 h w"]
    """Colors in [0, 1], black outside of the object."""

    masks: Float[Tensor, "n 1 h w"]
    """1 on the object, 0 elsewhere."""

    cameras: Cameras
    """Cameras, in the field's axes."""

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class CachedViews:
    """What the transformer says about the views that the field is distilled from."""

    rgb: Float[Tensor, "n 3 h w"]
    """Its images, upsampled to the images' size."""

    features: Float[Tensor, "n c y x"]
    """Its features, at the latents' size."""

    cameras: Cameras
    """Cameras, in the field's axes."""

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class Diffusion:
    """The parts that samples come from."""

    denoiser: Denoiser
    vae: ImageVae


@dataclass(frozen=True)
class FusionRecord:
    """What one comparison with a sample was like."""

    view: int
    """Index of the cached view."""

    time: float
    """The time that the render was noised to."""

    weight: float
    """Weight of the difference to the sample."""

    rendered: Float[Tensor, "1 3 h w"]
    """The field's render."""

    sampled: Float[Tensor, "1 3 h w"]
    """The sample, decoded."""

    sample: Sample
    """The sample, as latents."""

    latents: Float[Tensor, "1 c y x"]
    """The render's own latents."""


@dataclass
class LossHistory:
    """Losses of every iteration so far."""

    input: list[float] = field(default_factory=list)
    """Loss on the input photo, colors and opacity against the mask."""

    opacity: list[float] = field(default_factory=list)
    """Penalty of the opacity in the input photo's render."""

    cached: list[float] = field(default_factory=list)
    """Loss on the cached view, without its penalty of opacity."""


class Distillation:
    """A field that is being fitted; resumable between any two iterations.

    On a CPU, ``train_until(n)`` in any number of calls, with or without `state_dict` and `load_state_dict` between
    them, ends in the same bits.

    Args:
        field: What is fitted; changed in place.
        inputs: The photos.
        cached: What the transformer says. None fits the photos alone.
        diffusion: What samples come from. None goes on with the transformer's images after
            `DistillConfig.diffusion_start`.
        perceptual: Distance between renders and samples; None leaves it out.
        config: Settings.
        draws: Random numbers; by default from seed 0.
    """

    def __init__(
        self,
        field: Field,
        inputs: PosedImages,
        cached: CachedViews | None = None,
        diffusion: Diffusion | None = None,
        *,
        perceptual: PerceptualDistance | None = None,
        config: DistillConfig | None = None,
        draws: Draws | None = None,
    ) -> None:
        self.field = field
        self.inputs = inputs
        self.cached = cached
        self.diffusion = diffusion
        self.perceptual = perceptual
        self.config = config = config or DistillConfig()
        self.draws = draws or SeededDraws(0, inputs.rgb.device)
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(field.encoder.parameters()), "lr": config.grid_lr},
                {"params": list(field.sigma_net.parameters()), "lr": config.network_lr},
            ]
        )
        self.step = 0
        self.history = LossHistory()
        self.last_fusion: FusionRecord | None = None

    def train_until(self, step: int) -> None:
        """Run iterations until ``step`` of them are done, at most `DistillConfig.max_steps`.

        Raises:
            InputError: A loss is not finite; the optimizer has not stepped on it.
        """
        while self.step < min(step, self.config.max_steps):
            self._set_learning_rates()
            loss, opacity = self._input_step()
            self.history.input.append(loss)
            self.history.opacity.append(opacity)
            if self.cached is not None:
                self.history.cached.append(self._cached_step(self.cached))
            self.step += 1

    def _set_learning_rates(self) -> None:
        config = self.config
        factor = config.lr_decay ** (self.step // config.lr_decay_every)
        for group, lr in zip(self.optimizer.param_groups, (config.grid_lr, config.network_lr), strict=True):
            group["lr"] = lr * factor

    def render(self, camera: Cameras, size: int | None = None) -> FieldImage:
        """Render the field without gradients, with samples in the middle.

        Args:
            camera: One camera, in the field's axes.
            size: Side of the render; `DistillConfig.image_size` by default.
        """
        with torch.no_grad():
            return render_image(self.field, camera, size or self.config.image_size, image_size=self.config.image_size)

    def _training_render(self, camera: Cameras) -> FieldImage:
        return render_image(
            self.field,
            camera,
            self.config.render_size,
            image_size=self.config.render_size if self.config.centered_rays else self.config.image_size,
            uniform=self.draws.uniform,
        )

    def _input_step(self) -> tuple[float, float]:
        config = self.config
        at = self.draws.input_view(len(self.inputs))
        out = self._training_render(self.inputs.cameras[at])
        size = (config.render_size, config.render_size)
        mode = "area" if config.centered_rays else "nearest"
        rgb, mask = (
            functional.interpolate(part[at, None], size, mode=mode) for part in (self.inputs.rgb, self.inputs.masks)
        )
        loss = config.color_weight * huber(out.rgb, rgb).mean() + config.mask_weight * huber(out.alpha, mask).mean()
        opacity = config.opacity_weight * opacity_penalty(out.alpha)
        self._optimize(loss + opacity)
        return loss.item(), opacity.item()

    def _cached_step(self, cached: CachedViews) -> float:
        config = self.config
        at = self.draws.cached_view(len(cached))
        out = self._training_render(cached.cameras[at])
        rgb, alpha = (_upsample(part, config.image_size) for part in (out.rgb, out.alpha))
        if self.step <= config.diffusion_start or self.diffusion is None:
            target = cached.rgb[at, None]
            mask = (target.mean(dim=1, keepdim=True) > config.mask_threshold).to(target.dtype)
            loss = config.color_weight * huber(rgb, target).mean() + config.mask_weight * huber(alpha, mask).mean()
        else:
            loss = self._fusion_loss(self.diffusion, cached, at, rgb)
        self._optimize(loss + config.opacity_weight * opacity_penalty(alpha))
        return loss.item()

    def _fusion_loss(self, diffusion: Diffusion, cached: CachedViews, at: int, rgb: Tensor) -> Tensor:
        config = self.config
        time = self.draws.time(config.max_time)
        latents, sample, sampled = sample_image(
            diffusion, rgb, cached.features[at, None], time, max_steps=config.num_sampling_steps, noise=self.draws.noise
        )
        weight = 1 - sample.alpha_bar
        loss = weight * (rgb - sampled).abs().mean()
        if self.step >= config.perceptual_start and self.perceptual is not None:
            loss = loss + config.perceptual_weight * self.perceptual(2 * rgb - 1, 2 * sampled - 1)
        self.last_fusion = FusionRecord(at, time, weight, rgb.detach(), sampled, sample, latents)
        return loss

    def _optimize(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise InputError(f"the loss of iteration {self.step} is not finite; check the photos, masks and cameras")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything that later iterations depend on, but for what the constructor was given."""
        return {
            "field": self.field.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "draws": self.draws.get_state(),
            "step": self.step,
            "history": {name: list(getattr(self.history, name)) for name in ("input", "opacity", "cached")},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of `state_dict`."""
        self.field.load_state_dict(state["field"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.draws.set_state(state["draws"])
        self.step = int(state["step"])
        self.history = LossHistory(**{name: list(values) for name, values in state["history"].items()})


@torch.no_grad()
def sample_image(
    diffusion: Diffusion,
    rgb: Float[Tensor, "1 3 s s"],
    features: Float[Tensor, "1 k y x"],
    time: float,
    *,
    max_steps: int,
    noise: Noise,
) -> tuple[Float[Tensor, "1 c y x"], Sample, Float[Tensor, "1 3 s s"]]:
    """What the diffusion model makes of an image: encoded, noised to a time, denoised and decoded.

    Args:
        rgb: The image, in [0, 1].
        time: How far it is noised, in [0, 1).
        max_steps: See `sample_plms`.

    Returns:
        The image's latents, the sample, and the sample as an image in [0, 1].
    """
    latents = diffusion.vae.encode(2 * rgb - 1)
    sample = sample_plms(diffusion.denoiser, latents, features, time, max_steps=max_steps, noise=noise)
    return latents, sample, ((diffusion.vae.decode(sample.clean) + 1) / 2).clamp(0, 1)


def _upsample(image: Float[Tensor, "1 c h w"], size: int) -> Float[Tensor, "1 c s s"]:
    if image.shape[-1] == size:
        return image
    return functional.interpolate(image, (size, size), mode="bilinear", align_corners=False)


def choose_inputs(count: int, num_views: int, index: int, seed: int = 0) -> Sequence[int]:
    """Which photos of a sequence are the inputs: the published choice for its index in its category.

    Args:
        seed: Base seed.
    """
    generator = torch.Generator().manual_seed(seed + index)
    return torch.randperm(count, generator=generator)[:num_views].tolist()
