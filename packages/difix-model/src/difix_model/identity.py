"""Start a small network at the identity: untrained, it returns its input, in stock modules only.

The image travels through three channels of the encoder's first convolution, the finest skip connection and the
decoder's last block. There it stands as [R, -R, G, -G, B, -B, C, -C] in one group of the last group norm, where the
constants C make the group's scale known, and SiLU(u) - SiLU(-u) = u undoes the last non-linearity. Everything else
the network adds to that.

Without help, such a network leaves its latent alone, and with it the reference, because the skips know enough. So the
image, averaged over each latent position, is carried into the latent's first channels, and the next three channels are
carried to the decoder's last block, where they add to the image: the UNet starts with a coarse picture of every view
and has only to say how the colors of the render should change.

One more channel of the latent says how much detail there is in each position: differences of neighboring pixels,
about their absolute values, averaged. What a render lost, fog, holes, blur, has none, and photos always have some, so
this tells the views apart and bad places from good ones, which a coarse picture cannot.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from difix_model.config import NetworkConfig, UNetConfig, VaeConfig
from difix_model.network import DifixNetwork

GROUP = 8
"""Channels of the group norm's group that carries the image: three colors and the constant, each with its negative."""

CONSTANT = 8.0
"""The constant C; the larger, the closer the start is to the identity."""

IMAGE_SCALE = 0.5
"""Size of the image in its channels, so that C stays moderate."""

COLORS, CORRECTIONS, DETAIL = (0, 1, 2), (3, 4, 5), 6
"""Channels of the latent that hold the coarse image, its correction, and how much detail the image has there."""

_DETAIL_IN_BLOCKS = 3
"""The channel that carries the detail through the encoder's blocks, up to the last."""

_LINEAR_BIAS = 2.0
"""Keeps the brightness, normalized, where SiLU is nearly linear."""

_DIFFERENCE_GAIN = 15.0
"""Neighbors that differ by a fifteenth of the image's spread are where SiLU(u) + SiLU(-u), about the absolute value,
turns from a parabola into a line."""

_DETAIL_GAIN = 6.0
"""The channel of the latent is about this many times the mean difference ..."""

NO_DETAIL = -1.0
"""... above this, which is what it holds where there is no detail at all."""

POOLING = torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]])
"""Averages two by two pixels in the encoder's strided convolutions."""

SMOOTHING = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
"""Makes the decoder's doubling of pixels about bilinear."""

SKIP_FRACTION = 0.2
"""Standard deviation of what the skip connections add, relative to the encoder's features."""


def small_config(channels: tuple[int, ...] = (32, 64)) -> NetworkConfig:
    """Architecture of the embedded weights: Difix's own, narrow enough for one CPU thread.

    Args:
        channels: Of the UNet's levels, finest first; views attend to each other at the coarsest only.
    """
    finer = len(channels) - 1
    return NetworkConfig(
        unet=UNetConfig(
            block_out_channels=channels,
            layers_per_block=1,
            num_heads=(1,) * len(channels),
            cross_attention_dim=32,
            norm_num_groups=8,
            down_block_types=("DownBlock2D",) * finer + ("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * finer,
        ),
        vae=VaeConfig(
            block_out_channels=(GROUP, 16, 16, 24),
            layers_per_block=1,
            latent_channels=len(COLORS) + len(CORRECTIONS) + 1,
            norm_num_groups=1,
            scaling_factor=1.0,
            mid_block_attention=False,
            lora_rank=0,
        ),
    )


@torch.no_grad()
def start_at_identity(network: DifixNetwork) -> None:
    """Set the weights so that the network returns its input to within about 1 / 100 of the range.

    Args:
        network: A freshly initialized network with `norm_num_groups = block_out_channels[0] / 8` in its autoencoder.

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
    _measure_detail(network)
    _carry_image_to_latent(network)
    _carry_correction_to_last_block(network)
    _read_image_from_last_block(network)


@torch.no_grad()
def scale_detail(network: DifixNetwork, factor: float) -> None:
    """Let a network that started at the identity see that many times the detail there is.

    Captured images have more of it than generated ones of the same quality: a network that learned from the latter
    takes less for granted if it is shown less.
    """
    network.vae.quant_conv.weight[DETAIL] *= factor


def _carry_image_to_last_block(network: DifixNetwork) -> None:
    encoder: Any = network.vae.encoder
    decoder: Any = network.vae.decoder
    levels = len(network.vae.config.block_out_channels)
    _put(encoder.conv_in, {color: {color: IMAGE_SCALE} for color in COLORS})
    for number in range(1, levels + 1):
        skip = decoder.get_submodule(f"skip_conv_{number}")
        nn.init.normal_(skip.weight, std=SKIP_FRACTION / skip.weight.shape[1] ** 0.5)
        _put(skip, {color: {} for color in COLORS})
    _put(decoder.get_submodule(f"skip_conv_{levels}"), {color: {color: 1.0} for color in COLORS})


def _measure_detail(network: DifixNetwork) -> None:
    """Let the encoder's first block sum up differences of brightness between neighboring pixels."""
    encoder: Any = network.vae.encoder
    _put(encoder.conv_in, {_DETAIL_IN_BLOCKS: {}})
    first = encoder.down_blocks[0].resnets[0]
    first.norm1.weight[list(COLORS)], first.norm1.bias[list(COLORS)] = 1.0, _LINEAR_BIAS
    # Two differences, each with its negative, beside two constants that make the next norm's scale known.
    first.conv1.weight[:GROUP] = 0
    first.conv1.bias[:GROUP] = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0])
    for color in COLORS:
        for row, sign in ((0, 1.0), (1, -1.0)):
            first.conv1.weight[row, color, 1, 1:] = torch.tensor([-sign, sign]) / 3
            first.conv1.weight[2 + row, color, 1:, 1] = torch.tensor([-sign, sign]) / 3
    # The constants are two of eight channels, so the group's standard deviation is about a half.
    first.norm2.weight[:4], first.norm2.bias[:4] = 0.5 * _DIFFERENCE_GAIN, 0.0
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            _pass_by(resnet, (_DETAIL_IN_BLOCKS,))
    first.conv2.weight[_DETAIL_IN_BLOCKS, :4, 1, 1] = 1 / _DIFFERENCE_GAIN


def _carry_image_to_latent(network: DifixNetwork) -> None:
    encoder: Any = network.vae.encoder
    groups = network.vae.config.norm_num_groups
    carried = (*COLORS, _DETAIL_IN_BLOCKS)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            _pass_by(resnet, COLORS)
        for downsampler in block.downsamplers or ():
            _put(downsampler.conv, {channel: {channel: 1.0} for channel in carried}, kernel=POOLING)
    # From here on colors and detail stand beside their negatives, with two constants, for the last group norm.
    carried_to = GROUP + 2
    last = encoder.down_blocks[-1].resnets[0]
    _put(last.conv2, {row: {} for row in range(carried_to)})
    signs = {color: {color: 1.0} for color in COLORS} | {3 + color: {color: -1.0} for color in COLORS}
    _put(
        last.conv_shortcut,
        signs | {6: {}, 7: {}, GROUP: {_DETAIL_IN_BLOCKS: 1.0}, GROUP + 1: {_DETAIL_IN_BLOCKS: -1.0}},
    )
    for resnet in encoder.mid_block.resnets:
        _pass_by(resnet, range(carried_to))
    for attention in encoder.mid_block.attentions:
        if attention is not None:
            _put(attention.to_out[0], {row: {} for row in range(carried_to)})
    constant = 2 * CONSTANT
    encoder.mid_block.resnets[-1].conv2.bias[6:GROUP] = torch.tensor([constant, -constant])
    size = encoder.conv_norm_out.num_channels // groups
    encoder.conv_norm_out.weight[:size] = (2 * constant**2 / size + 0.5) ** 0.5
    gain = 1 / IMAGE_SCALE
    rows = {color: {color: gain, 3 + color: -gain} for color in COLORS} | {row: {} for row in CORRECTIONS}
    _put(encoder.conv_out, rows | {DETAIL: {GROUP: _DETAIL_GAIN, GROUP + 1: -_DETAIL_GAIN}})
    quant_conv: Any = network.vae.quant_conv
    _put(quant_conv, {row: {row: 1.0} for row in (*COLORS, *CORRECTIONS, DETAIL)})
    quant_conv.bias[DETAIL] = NO_DETAIL


def _carry_correction_to_last_block(network: DifixNetwork) -> None:
    decoder: Any = network.vae.decoder
    _put(network.unet.get_submodule("conv_out"), {row: {} for row in CORRECTIONS})
    _put(network.vae.post_quant_conv, {row: {row: 1.0} for row in CORRECTIONS})
    _put(decoder.conv_in, {color: {3 + color: IMAGE_SCALE} for color in COLORS})
    for resnet in decoder.mid_block.resnets:
        _pass_by(resnet, COLORS)
    for attention in decoder.mid_block.attentions:
        if attention is not None:
            _put(attention.to_out[0], {row: {} for row in COLORS})
    for block in decoder.up_blocks[:-1]:
        for resnet in block.resnets:
            _pass_by(resnet, COLORS)
        for upsampler in block.upsamplers:
            _put(upsampler.conv, {color: {color: 1.0} for color in COLORS}, kernel=SMOOTHING)


def _pass_by(resnet: nn.Module, channels: Iterable[int]) -> None:
    """Let the channels through a block unchanged: only its shortcut touches them."""
    channels = tuple(channels)
    _put(resnet.get_submodule("conv2"), {channel: {} for channel in channels})
    if getattr(resnet, "conv_shortcut", None) is not None:
        _put(resnet.get_submodule("conv_shortcut"), {channel: {channel: 1.0} for channel in channels})


def _put(layer: nn.Module, rows: Mapping[int, Mapping[int, float]], kernel: Tensor | None = None) -> None:
    """Set what some output channels read, and nothing else: {output: {input: factor}}; biases become zero."""
    weight = layer.get_parameter("weight")
    for row, factors in rows.items():
        weight[row] = 0
        if getattr(layer, "bias", None) is not None:
            layer.get_parameter("bias")[row] = 0
        for column, factor in factors.items():
            if weight.ndim == 2:
                weight[row, column] = factor
            elif kernel is None:
                weight[row, column, weight.shape[2] // 2, weight.shape[3] // 2] = factor
            else:
                weight[row, column] = factor * kernel


def _read_image_from_last_block(network: DifixNetwork) -> None:
    decoder: Any = network.vae.decoder
    last = decoder.up_blocks[-1].resnets
    shortcut = last[0].conv_shortcut
    shortcut.weight[:GROUP] = 0
    shortcut.bias[:GROUP] = 0
    for color in range(3):
        shortcut.weight[2 * color, color] = 1
        shortcut.weight[2 * color + 1, color] = -1
    for resnet in last:
        resnet.conv2.weight[:GROUP] = 0
        resnet.conv2.bias[:GROUP] = 0
    constant = torch.tensor([CONSTANT, -CONSTANT])
    last[-1].conv2.bias[GROUP - 2 : GROUP] = constant
    # The group's standard deviation is about C / 2, as two of eight channels hold it; colors add a little.
    deviation = (CONSTANT**2 / 4 + 0.75 * (0.5 * IMAGE_SCALE) ** 2) ** 0.5
    norm, out = decoder.conv_norm_out, decoder.conv_out
    norm.weight[:6] = deviation / IMAGE_SCALE
    norm.bias[:6] = 0
    out.weight.zero_()
    out.bias.zero_()
    for color in range(3):
        out.weight[color, 2 * color, 1, 1] = 1
        out.weight[color, 2 * color + 1, 1, 1] = -1
