"""Which parameters of a network are trained, in which order, each exactly once."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from difix_model.network import DifixNetwork
from difix_train.config import Trainable

LORA_MARK = ".lora_"
SKIP_MARK = "decoder.skip_conv_"


def trainable_parameters(network: DifixNetwork, trainable: Trainable) -> dict[str, nn.Parameter]:
    """The trained parameters by name.

    `released` keeps the released code's order: UNet, decoder LoRA, then the skip convolutions' own weights; the
    LoRA of the skip convolutions stands there once, not twice.
    """
    named = dict(network.named_parameters())
    order: dict[str, tuple[Callable[[str], bool], ...]] = {
        "released": (_is_unet, _is_lora, _is_skip),
        "all": (lambda name: True,),
        "unet": (_is_unet,),
        "lora": (_is_adapter, _is_lora, _is_skip),
        "decoder": (_is_decoder,),
        "latent": (lambda name: not _is_skip(name),),
    }
    names = [name for belongs in order[trainable] for name in named if belongs(name)]
    return {name: named[name] for name in dict.fromkeys(names)}


def freeze_all_but(network: DifixNetwork, trained: dict[str, nn.Parameter]) -> None:
    """Let gradients flow into ``trained`` only."""
    network.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)


def _is_unet(name: str) -> bool:
    return name.startswith("unet.")


def _is_adapter(name: str) -> bool:
    return LORA_MARK in name


def _is_lora(name: str) -> bool:
    return name.startswith("vae.") and LORA_MARK in name


def _is_skip(name: str) -> bool:
    return name.startswith(f"vae.{SKIP_MARK}")


def _is_decoder(name: str) -> bool:
    return name.startswith(("vae.decoder.", "vae.post_quant_conv."))
