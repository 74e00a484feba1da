"""LPIPS with the VGG16 backbone: the package `lpips` gives the linear heads, the backbone is shared with the Gram loss.

Importing the package would import torchvision; only its data file is read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix_train.errors import InputError
from difix_train.losses.vgg import LAYER_INDICES, VggFeatures

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPS = 1e-10


def default_heads_path() -> Path:
    """The file of linear heads inside the installed package `lpips`."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        raise InputError("LPIPS needs the package lpips: install it, or set lpips_weight to 0")
    return Path(spec.origin).parent / "weights" / "v0.1" / "vgg.pth"


def _unit_length(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    # The small constant stands inside the root too, which keeps the gradient finite where all channels are 0.
    return features / ((features.square().sum(dim=1, keepdim=True) + EPS**2).sqrt() + EPS)


class Lpips(nn.Module):
    """Perceptual distance of images in [-1, 1]; frozen.

    Args:
        vgg: The backbone; not owned, may be shared.
        heads: One weight for each channel of each compared layer, in LAYER_INDICES' order.
    """

    def __init__(self, vgg: VggFeatures, heads: list[Float[Tensor, " _c"]]) -> None:
        super().__init__()
        self.vgg = vgg
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        for name, head in zip(LAYER_INDICES, heads, strict=True):
            self.register_buffer(f"head_{name}", head)

    @classmethod
    def from_heads_file(cls, vgg: VggFeatures, path: Path | None = None) -> Lpips:
        """LPIPS whose linear heads come from ``path``, by default the one that the package `lpips` ships."""
        state = torch.load(path or default_heads_path(), map_location="cpu", weights_only=True)
        return cls(vgg, [state[f"lin{index}.model.1.weight"].flatten() for index in range(len(LAYER_INDICES))])

    def forward(self, x_pred: Float[Tensor, "n 3 h w"], x_clean: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Distance of each image from the clean one, 0 or more."""
        features_pred = self.vgg((x_pred - self.shift) / self.scale)
        with torch.no_grad():
            features_clean = self.vgg((x_clean - self.shift) / self.scale)
        total = torch.zeros(len(x_pred), device=x_pred.device)
        for name in LAYER_INDICES:
            difference = (_unit_length(features_pred[name]) - _unit_length(features_clean[name])).square()
            head = self.get_buffer(f"head_{name}")
            total = total + (difference * head[:, None, None]).sum(dim=1).mean(dim=(1, 2))
        return total
