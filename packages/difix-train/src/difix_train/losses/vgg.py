"""VGG16's convolutional features, with the key names of torchvision's weights, for LPIPS and the Gram loss."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix_train.errors import InputError

VGG16_FILE = "vgg16-397923af.pth"
VGG16_URL = f"https://download.pytorch.org/models/{VGG16_FILE}"
LAYER_INDICES = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}
"""Index in torchvision's `features` of the layers that are compared."""

VGG16_PLAN: tuple[int | None, ...] = (
    *(64, 64, None, 128, 128, None, 256, 256, 256, None),
    *(512, 512, 512, None, 512, 512, 512),
)
"""Output channels of the convolutions; None is a pooling layer. The last pooling layer is not needed."""

Features = dict[str, Float[Tensor, "n _c _h _w"]]


class VggFeatures(nn.Module):
    """VGG16's layers up to relu5_3; frozen, always in evaluation mode.

    Args:
        plan: Output channels of each convolution, None for pooling; a narrower plan serves tests.
    """

    def __init__(self, plan: tuple[int | None, ...] = VGG16_PLAN) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels_in = 3
        for channels_out in plan:
            if channels_out is None:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.ReLU()]
            channels_in = channels_out
        self.features = nn.Sequential(*layers)
        self.requires_grad_(False)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Features:
        """Activations of the five compared layers of normalized images."""
        wanted = {index: name for name, index in LAYER_INDICES.items()}
        found: Features = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in wanted:
                found[wanted[index]] = x
        return found

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> VggFeatures:
        """Features with the weights of ``state``: torchvision's names; classifier entries are left aside.

        Raises:
            InputError: A key is missing, unexpected or of another shape.
        """
        vgg = cls()
        weights = {key: value for key, value in state.items() if not key.startswith("classifier.")}
        try:
            vgg.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(f"these are not VGG16's weights under torchvision's names: {error}") from error
        return vgg


def default_vgg16_path() -> Path:
    """Where torch.hub and torchvision keep VGG16's weights on this machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    torch_home = Path(os.environ.get("TORCH_HOME", str(cache / "torch"))).expanduser()
    return torch_home / "hub" / "checkpoints" / VGG16_FILE


def load_vgg16(path: Path | None = None) -> VggFeatures:
    """VGG16 from ``path`` or, by default, from the cache of torch.hub. Nothing is downloaded.

    Raises:
        InputError: The file is absent or does not hold VGG16; the message says how to get it.
    """
    path = default_vgg16_path() if path is None else path
    if not path.is_file():
        raise InputError(
            f"LPIPS and the Gram loss need VGG16's weights, and {path} does not exist: "
            f"download {VGG16_URL} to that place, set lpips_weight and gram_weight to 0, "
            "or set missing_backbone to 'skip'"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises what its unpickler meets: many unrelated types.
        raise InputError(f"{path} cannot be read as weights ({error}): download {VGG16_URL} again") from error
    return VggFeatures.from_state_dict(state)
