"""The convolutional part of a ResNet18 (He et al. 2015), with the names of torchvision's weights."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o y x"]:
        """Transform a feature map."""
        skip = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + skip)


class ResNet18Encoder(nn.Module):
    """Features of an image from the stem and the first three stages of a ResNet18.

    Args:
        width: Channels of the stem and the first stage; torchvision's is 64.
        with_tail: Also hold the fourth stage and the classifier, which nothing here uses but checkpoints contain.
    """

    def __init__(self, width: int = 64, *, with_tail: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, 1)
        self.layer2 = self._stage(width, 2 * width, 2)
        self.layer3 = self._stage(2 * width, 4 * width, 2)
        if with_tail:
            self.layer4 = self._stage(4 * width, 8 * width, 2)
            self.fc = nn.Linear(8 * width, 1000)

    @staticmethod
    def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(channels_in, channels, stride), BasicBlock(channels, channels, 1))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _c _h _w"]]:
        """Feature maps of the stem and of three stages, from fine to coarse."""
        stem = functional.relu(self.bn1(self.conv1(images)))
        first = self.layer1(functional.max_pool2d(stem, 3, stride=2, padding=1))
        second = self.layer2(first)
        return [stem, first, second, self.layer3(second)]
