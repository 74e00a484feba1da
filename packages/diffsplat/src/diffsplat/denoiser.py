"""Multi-view denoisers: stock diffusers networks whose self-attention spans the views of an object."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.errors import InputError
from diffsplat.multiview_attention import make_multiview
from diffsplat.stock import ControlNetModel, PixArtTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

NetworkKind = Literal["unet", "pixart", "sd3"]

NETWORK_CLASSES: dict[NetworkKind, Any] = {
    "unet": UNet2DConditionModel,
    "pixart": PixArtTransformer2DModel,
    "sd3": SD3Transformer2DModel,
}

PLUCKER_CHANNELS = 6

FULL_SIZES: dict[NetworkKind, dict[str, Any]] = {
    "unet": {
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    },
    "pixart": {
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "cross_attention_dim": 1152,
        "caption_channels": 4096,
        "patch_size": 2,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "num_embeds_ada_norm": 1000,
        "use_additional_conditions": False,
    },
    "sd3": {
        "sample_size": 32,
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    },
}
"""Sizes of the networks that were fine-tuned."""

_RENAMED_BLOCKS = (("BlockMV2D", "Block2D"), ("MidBlockMV2DCrossAttn", "MidBlock2DCrossAttn"))


def stock_config(config: dict[str, Any]) -> dict[str, Any]:
    """A published configuration in the words of stock diffusers: other names of block types, no private keys."""

    def renamed(value: Any) -> Any:
        if isinstance(value, str):
            for theirs, stock in _RENAMED_BLOCKS:
                value = value.replace(theirs, stock)
        elif isinstance(value, list | tuple):
            value = tuple(renamed(item) for item in value)
        return value

    unknown = {"view_concat_condition", "input_concat_plucker", "input_concat_binary_mask", "num_views"}
    return {key: renamed(value) for key, value in config.items() if not key.startswith("_") and key not in unknown}


def kind_of(config: dict[str, Any]) -> NetworkKind:
    """Which network a configuration is of, by its class name or, without one, by its fields."""
    name = str(config.get("_class_name", ""))
    if name.startswith("UNet") or "down_block_types" in config:
        return "unet"
    if name.startswith("SD3") or "joint_attention_dim" in config:
        return "sd3"
    if name.startswith("PixArt") or "caption_channels" in config:
        return "pixart"
    raise InputError(
        f"a denoiser's config.json names the class {name or 'of nothing'}, which is none of DiffSplat's: "
        "UNetMV2DConditionModel, PixArtTransformerMV2DModel or an SD3 transformer"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class TextCondition:
    """What text encoders make of one prompt per object."""

    embeds: Float[Tensor, "b m d"]
    """One vector per token."""
    mask: Int[Tensor, "b m"] | None = None
    """1 where there is a token; None where all count."""
    pooled: Float[Tensor, "b p"] | None = None
    """One vector for the whole prompt; Stable Diffusion 3 only."""

    def repeated(self, times: int) -> TextCondition:
        """The same for `times` consecutive samples of each object."""
        return self._mapped(lambda values: values.repeat_interleave(times, dim=0))

    def joined(self, other: TextCondition) -> TextCondition:
        """These objects and then the other's."""
        return self._mapped(lambda *both: torch.cat(both), other)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> TextCondition:
        """On another device, in another precision."""
        return self._mapped(lambda values: values.to(device, dtype if values.is_floating_point() else None))

    def _mapped(self, change: Callable[..., Tensor], *others: TextCondition) -> TextCondition:
        """A condition of what is made of each field, together with the same one of others; None where one is None."""
        fields = {name: [getattr(each, name) for each in (self, *others)] for name in ("embeds", "mask", "pooled")}
        made: dict[str, Any] = {n: None if any(v is None for v in vs) else change(*vs) for n, vs in fields.items()}
        return TextCondition(**made)


class _MultiView(nn.Module):
    """A stock network, whose self-attention is given the views of an object at a time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network
        self._views = make_multiview(network)

    def _timesteps(self, timesteps: Tensor, num_samples: int, num_views: int) -> Tensor:
        """One per view, of one for all, per object, or per view; the attention is told of how many views."""
        self._views.num_views = num_views
        if timesteps.ndim == 0 or timesteps.shape[0] == 1:
            return timesteps.reshape(1).expand(num_samples)
        return timesteps if timesteps.shape[0] == num_samples else timesteps.repeat_interleave(num_views)


class MultiViewDenoiser(_MultiView):
    """A stock network with multi-view attention, called with views."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MultiViewDenoiser:
        """A network with fresh weights, from a published or stock configuration."""
        kind = kind_of(config)
        return cls(NETWORK_CLASSES[kind].from_config({**stock_config(config)}))

    @classmethod
    def full_size(cls, kind: NetworkKind, *, with_image: bool) -> MultiViewDenoiser:
        """The published size, with its input channels."""
        size = FULL_SIZES[kind]
        channels = size["in_channels"] + PLUCKER_CHANNELS + int(with_image)
        return cls.from_config({**size, "in_channels": channels})

    @property
    def kind(self) -> NetworkKind:
        """Which network it is."""
        return next(kind for kind, network in NETWORK_CLASSES.items() if isinstance(self.network, network))

    @property
    def in_channels(self) -> int:
        """Input channels: latent, rays and, with an image, a mask."""
        return int(self.network.config["in_channels"])

    @property
    def latent_channels(self) -> int:
        """Channels of the latents that it denoises."""
        out = int(self.network.config["out_channels"])
        return out // 2 if self.kind == "pixart" else out

    @property
    def takes_image(self) -> bool:
        """Whether it is one with an image as a further view."""
        return self.in_channels == self.latent_channels + PLUCKER_CHANNELS + 1

    def forward(
        self,
        x: Float[Tensor, "bv c h w"],
        timesteps: Tensor,
        text: TextCondition,
        *,
        num_views: int,
        residuals: tuple[list[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "bv l h w"]:
        """Predict for every view what the network was trained to.

        Args:
            x: Views of one object after another: latent, rays, mask.
            timesteps: One per object, or one per view.
            text: One per object.
            num_views: Views per object.
            residuals: What a ControlNet adds to a UNet's connections.
        """
        per_view, timesteps = text.repeated(num_views), self._timesteps(timesteps, len(x), num_views)
        more: dict[str, Any] = {}
        if self.kind == "sd3":
            more["pooled_projections"] = per_view.pooled
        elif per_view.mask is not None:
            more["encoder_attention_mask"] = per_view.mask
        if self.kind == "pixart":
            more["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
        if residuals is not None:
            more["down_block_additional_residuals"], more["mid_block_additional_residual"] = residuals
        found = self.network(x, timestep=timesteps, encoder_hidden_states=per_view.embeds, **more, return_dict=False)
        return found[0][:, : self.latent_channels]


class MultiViewControlNet(_MultiView):
    """A stock ControlNet with multi-view attention."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MultiViewControlNet:
        """A network with fresh weights."""
        known = {"up_block_types", "out_channels", "sample_size", "center_input_sample"}
        return cls(ControlNetModel.from_config({k: v for k, v in stock_config(config).items() if k not in known}))

    @classmethod
    def from_denoiser(
        cls, denoiser: MultiViewDenoiser, *, embedding_channels: tuple[int, ...] = (16, 32, 96, 256)
    ) -> MultiViewControlNet:
        """A new network that begins as the encoder of a UNet, and adds nothing yet.

        Args:
            denoiser: With a UNet.
            embedding_channels: Widths of the layers that bring a control map to the latents' size; each but the first
                halves it.
        """
        return cls(
            ControlNetModel.from_unet(
                denoiser.network, conditioning_channels=3, conditioning_embedding_out_channels=embedding_channels
            )
        )

    def forward(
        self,
        x: Float[Tensor, "bv c h w"],
        timesteps: Tensor,
        text: TextCondition,
        control: Float[Tensor, "bv 3 y x"],
        *,
        num_views: int,
        scale: float = 1.0,
    ) -> tuple[list[Tensor], Tensor]:
        """What is to be added to the UNet's connections.

        Args:
            x: As for the denoiser.
            timesteps: One per object, or one per view.
            text: One per object.
            control: The map for view 0 and white images for the others, in [0, 1].
            num_views: Views per object.
            scale: The residuals' weight.
        """
        down, mid = self.network(
            x,
            self._timesteps(timesteps, len(x), num_views),
            encoder_hidden_states=text.repeated(num_views).embeds,
            controlnet_cond=control,
            conditioning_scale=scale,
            return_dict=False,
        )
        return list(down), mid


def control_views(control: Float[Tensor, "b 3 y x"], num_views: int) -> Float[Tensor, "bv 3 y x"]:
    """A control map as that of view 0 of each object; the other views get white images."""
    views = torch.ones(control.shape[0], num_views, *control.shape[1:], dtype=control.dtype, device=control.device)
    views[:, 0] = control
    return views.flatten(0, 1)


def resized_rays(rays: Float[Tensor, "n c=6 h w"], height: int, width: int) -> Float[Tensor, "n c=6 y x"]:
    """Rays at the latents' size, bilinearly and without antialiasing, as the networks were trained."""
    return functional.interpolate(rays, size=(height, width), mode="bilinear", align_corners=False)


def load_widened(denoiser: MultiViewDenoiser, state: dict[str, Tensor], *, where: Path | str) -> None:
    """Start from weights of the image model: input channels that it has not are zeros, a position embedding is cut.

    Raises:
        InputError: The weights do not fit otherwise.
    """
    from diffsplat.checkpoints import load_into

    own, start = denoiser.network.state_dict(), dict(state)
    for name in ("conv_in.weight", "pos_embed.proj.weight"):
        if name in start and name in own and start[name].shape[1] < own[name].shape[1]:
            wide = torch.zeros_like(own[name])
            wide[:, : start[name].shape[1]] = start[name]
            start[name] = wide
    if denoiser.kind == "pixart":
        start.pop("pos_embed.pos_embed", None)
    load_into(denoiser.network, start, where=where)


def read_network_config(path: Path) -> dict[str, Any]:
    """A network's configuration from a JSON file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a network's configuration: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no configuration of a network")
    return found
