"""Start a small network at the identity: untrained, it returns its input, in stock modules only.

The image travels through three channels of the encoder's first convolution, the finest skip connection and the
decoder's last block. There it stands as [R, -R, G, -G, B, -B, C, -C] in one group of the last group norm, where the
constants C make the group's scale known, and SiLU(u) - SiLU(-u) = u undoes the last non-linearity. Everything else
the network adds to that. The attention layers start as a look-up by similarity across views: queries and keys share
their weights, and what is found is added as it is.
"""

import torch
from torch import Tensor, nn

from difix_model.config import NetworkConfig, UNetConfig, VaeConfig
from difix_model.network import DifixNetwork

GROUP = 8
"""Channels of the group norm's group that carries the image: three colours and the constant, each with its negative."""

CONSTANT = 8.0
"""The constant C; the larger, the closer the start is to the identity."""

IMAGE_SCALE = 0.5
"""Size of the image in its channels, so that C stays moderate."""

LOOK_UP_SHARE = 0.5
"""How strongly the attention layers add what they find in both views."""


def small_config() -> NetworkConfig:
    """Architecture of the embedded weights: Difix's own, narrow enough for one CPU thread."""
    return NetworkConfig(
        unet=UNetConfig(
            block_out_channels=(64, 128),
            layers_per_block=1,
            num_heads=(2, 4),
            cross_attention_dim=32,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        ),
        vae=VaeConfig(
            block_out_channels=(16, 24, 32, 64),
            layers_per_block=1,
            latent_channels=16,
            norm_num_groups=2,
            scaling_factor=1.0,
            lora_rank=0,
        ),
    )


@torch.no_grad()
def start_at_identity(network: DifixNetwork) -> None:
    """Set the weights so that the network returns its input to within about 1 / 100 of the range.

    Args:
        network: A freshly initialised network with `norm_num_groups = block_out_channels[0] / 8` in its autoencoder.

    Raises:
        ValueError: If the autoencoder's last group norm has groups of another size, or there are adapters.
    """
    vae = network.vae
    groups = vae.config.norm_num_groups
    channels = vae.config.block_out_channels
    if channels[0] != GROUP * groups or vae.config.lora_rank:
        raise ValueError(
            f"the identity start needs groups of {GROUP} in the finest level and no adapters, got {channels[0]} "
            f"channels in {groups} groups and lora_rank {vae.config.lora_rank}"
        )
    _carry_image_to_last_block(network)
    _read_image_from_last_block(network)
    for block in network.unet.modules():
        if hasattr(block, "attn1"):
            _look_up_by_similarity(block.attn1)


def _carry_image_to_last_block(network: DifixNetwork) -> None:
    encoder, decoder = network.vae.encoder, network.vae.decoder
    levels = len(network.vae.config.block_out_channels)
    for colour in range(3):
        encoder.conv_in.weight[colour] = 0
        encoder.conv_in.weight[colour, colour, 1, 1] = IMAGE_SCALE
        encoder.conv_in.bias[colour] = 0
    # The coarser skips keep their tiny stock weights, so that the latent, not a skip, learns first.
    finest = decoder.get_submodule(f"skip_conv_{levels}").weight
    finest[:3] = 0
    for colour in range(3):
        finest[colour, colour] = 1
    # What comes up from the latent may add to the image, and starts at zero there.
    last_upsampler = decoder.up_blocks[levels - 2].upsamplers[0].conv
    last_upsampler.weight[:3] = 0
    last_upsampler.bias[:3] = 0


def _read_image_from_last_block(network: DifixNetwork) -> None:
    decoder = network.vae.decoder
    last = decoder.up_blocks[-1].resnets
    shortcut = last[0].conv_shortcut
    shortcut.weight[:GROUP] = 0
    shortcut.bias[:GROUP] = 0
    for colour in range(3):
        shortcut.weight[2 * colour, colour] = 1
        shortcut.weight[2 * colour + 1, colour] = -1
    for resnet in last:
        resnet.conv2.weight[:GROUP] = 0
        resnet.conv2.bias[:GROUP] = 0
    constant = torch.tensor([CONSTANT, -CONSTANT])
    last[-1].conv2.bias[GROUP - 2 : GROUP] = constant
    # The group's standard deviation is about C / 2, as two of eight channels hold it; colours add a little.
    deviation = (CONSTANT**2 / 4 + 0.75 * (0.5 * IMAGE_SCALE) ** 2) ** 0.5
    norm, out = decoder.conv_norm_out, decoder.conv_out
    norm.weight[:6] = deviation / IMAGE_SCALE
    norm.bias[:6] = 0
    out.weight.zero_()
    out.bias.zero_()
    for colour in range(3):
        out.weight[colour, 2 * colour, 1, 1] = 1
        out.weight[colour, 2 * colour + 1, 1, 1] = -1


def _look_up_by_similarity(attention: nn.Module) -> None:
    query, key, value = (attention.get_submodule(name).get_parameter("weight") for name in ("to_q", "to_k", "to_v"))
    out: Tensor = attention.get_submodule("to_out.0").get_parameter("weight")
    for weight in (query, value):
        nn.init.orthogonal_(weight)
    key.copy_(query)
    out.copy_(LOOK_UP_SHARE * value.T)
