"""LPIPS (Zhang et al. 2018) from local files only: nothing here opens a connection."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

LpipsMetric = Callable[[Tensor, Tensor], float]
"""(image, truth), both [h w 3] in [0, 1], to a distance."""

LPIPS_BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""torchvision's file of each backbone, in torch hub's folder of checkpoints."""


def make_lpips(net: str = "alex", device: str = "cpu") -> LpipsMetric | None:
    """LPIPS from local files only, or None and a logged warning that says why: this never opens a connection.

    It needs the `lpips` package (extra `lpips`) and torchvision's weights of the backbone in torch hub's folder of
    checkpoints, where any earlier use of them has left them.

    Raises:
        ValueError: The backbone is unknown.
    """
    if net not in LPIPS_BACKBONES:
        raise ValueError(f"net must be one of {', '.join(LPIPS_BACKBONES)}, got {net!r}")
    try:
        network = lpips_network(net, device)
    except ImportError:
        logger.warning("LPIPS is left out: the package is not installed; install lpips")
        return None
    except (OSError, RuntimeError, KeyError) as error:
        logger.warning("LPIPS is left out: its backbone %s cannot be loaded (%s)", _backbone(net), error)
        return None

    @torch.no_grad()
    def metric(image: Tensor, truth: Tensor) -> float:
        # LPIPS takes CHW; `normalize` brings [0, 1] to its own range.
        a, b = (each.clamp(0, 1).permute(2, 0, 1)[None].to(device) for each in (image, truth))
        return float(network(a, b, normalize=True))

    return metric


def lpips_network(net: str = "alex", device: torch.device | str = "cpu") -> torch.nn.Module:
    """LPIPS as a module: two batches [n 3 h w] in [-1, 1] to distances [n 1 1 1]; frozen, but differentiable.

    Raises:
        ImportError: The package is not installed.
        FileNotFoundError: The backbone is not in torch hub's folder.
    """
    if not _backbone(net).is_file():
        raise FileNotFoundError("no such file")
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision in a deprecated way.
        # `pnet_rand` keeps lpips from downloading a backbone.
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval().requires_grad_(False)
    _load_backbone(network, _backbone(net))
    return network.to(device)


def _backbone(net: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_BACKBONES[net]


def _load_backbone(network: torch.nn.Module, path: Path) -> None:
    """Put torchvision's convolution weights into LPIPS's slices, whose modules keep torchvision's indices as names."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    net: torch.nn.Module = network.net  # pyright: ignore[reportAssignmentType]
    for key, value in net.state_dict().items():
        _, index_and_kind = key.split(".", 1)
        value.copy_(weights[f"features.{index_and_kind}"])
