"""The stock diffusers UNet with reference attention installed on this instance."""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from difix_model.config import UNetConfig
from difix_model.lora import UNET_ADAPTER, add_lora
from difix_model.reference_attention import ReferenceAttention

LORA_SUFFIXES = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut"),
)
"""Endings of the layers that carry adapters, where a configuration asks for them."""


def build_unet(config: UNetConfig, *, latent_channels: int) -> UNet2DConditionModel:
    """Build the denoiser with freshly initialized weights; parameter names are diffusers' own."""
    unet = UNet2DConditionModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        attention_head_dim=config.num_heads,  # type: ignore[arg-type]  # diffusers: the number of heads.
        cross_attention_dim=config.cross_attention_dim,
        norm_num_groups=config.norm_num_groups,
        down_block_types=config.down_block_types,
        up_block_types=config.up_block_types,
        transformer_layers_per_block=config.transformer_layers_per_block,
        use_linear_projection=config.use_linear_projection,
        upcast_attention=config.upcast_attention,
    )
    unet.set_attn_processor(ReferenceAttention())
    if config.lora_rank:
        add_lora(unet, lora_targets(unet), rank=config.lora_rank, alpha=config.lora_alpha, adapter=UNET_ADAPTER)
    return unet


def lora_targets(unet: UNet2DConditionModel) -> list[str]:
    """Return the names of the layers that carry adapters, or would."""
    names = {name.removesuffix(".base_layer") for name, _ in unet.named_modules()}
    return sorted(name for name in names if name.endswith(tuple(f".{suffix}" for suffix in LORA_SUFFIXES)))


def predict_noise(
    unet: UNet2DConditionModel,
    z: Float[Tensor, "b v c h w"],
    timestep: int,
    text_embedding: Float[Tensor, "b n d"],
    *,
    joint: bool,
) -> Float[Tensor, "b v c h w"]:
    """Predict the noise in the latents of all views.

    Args:
        unet: A network from `build_unet`.
        text_embedding: One per sample, shared by its views.
        joint: Whether self-attention runs across the views of a sample.
    """
    num_views = z.shape[1]
    # Filled where the latents are: diffusers would bring a number over to the device in mid-network.
    timesteps = torch.full((z.shape[0] * num_views,), timestep, device=z.device)
    noise = unet(
        rearrange(z, "b v c h w -> (b v) c h w"),
        timesteps,
        encoder_hidden_states=text_embedding.repeat_interleave(num_views, dim=0),
        cross_attention_kwargs={"num_views": num_views if joint else 1},
        return_dict=False,
    )[0]
    return rearrange(noise, "(b v) c h w -> b v c h w", v=num_views)
