"""How close a render is to a photo: PSNR, SSIM, FLIP and, where its weights are available, LPIPS."""

import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import flip_evaluator
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splat_recon import losses, ssim_kernel

logger = logging.getLogger(__name__)

LpipsMetric = Callable[[Tensor, Tensor], float]
"""(rendered, photo), both [h w 3] in [0, 1], to a distance."""

MAX_PSNR = 100.0
"""Of two equal images, in dB; JSON has no infinity."""

LPIPS_BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""torchvision's file of each backbone, in torch hub's folder of checkpoints."""


@torch.no_grad()
def psnr(
    rendered: Float[Tensor, "h w 3"], photo: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB for values in [0, 1], over the pixels of the mask; at most `MAX_PSNR`."""
    squared = (rendered.clamp(0, 1) - photo).double() ** 2
    error = float((squared if mask is None else squared[mask]).mean())
    return min(MAX_PSNR, -10 * math.log10(error)) if error > 0 else MAX_PSNR


@torch.no_grad()
def ssim(
    rendered: Float[Tensor, "h w 3"], photo: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float:
    """Mean structural similarity over the windows inside the image whose center is in the mask; see `losses`."""
    rendered = rendered.clamp(0, 1)
    if mask is None:
        return float(losses.ssim(rendered, photo))
    border = ssim_kernel.WINDOW // 2
    centers = mask[border:-border, border:-border]
    return float(losses.ssim_map(rendered, photo)[centers].mean())


@torch.no_grad()
def flip(
    rendered: Float[Tensor, "h w 3"], photo: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float:
    """Mean FLIP error in [0, 1] over the pixels of the mask; 0 for equal images.

    FLIP (Andersson et al., HPG 2020) predicts what is noticed when one flips between two images: differences in color,
    edges and points, filtered by the contrast sensitivity of the eye at 67 pixels per degree. It needs no weights.
    """
    reference, test = (image.detach().cpu().float().clamp(0, 1).contiguous().numpy() for image in (photo, rendered))
    error_map, mean, _ = flip_evaluator.evaluate(reference, test, "LDR", applyMagma=False)
    return float(mean if mask is None else error_map[..., 0][mask.cpu().numpy()].mean())


def make_lpips(net: str = "alex", device: str = "cpu") -> LpipsMetric | None:
    """LPIPS from local files only, or None and a logged warning that says why: this never opens a connection.

    It needs the `lpips` package (extra `lpips`) and torchvision's weights of the backbone in torch hub's folder of
    checkpoints, where any earlier use of them has left them.

    Raises:
        ValueError: The backbone is unknown.
    """
    if net not in LPIPS_BACKBONES:
        raise ValueError(f"net must be one of {', '.join(LPIPS_BACKBONES)}, got {net!r}")
    backbone = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_BACKBONES[net]
    try:
        network = _lpips_network(net, backbone).to(device)
    except ImportError:
        logger.warning("LPIPS is left out: the package is not installed; install splat-recon[lpips]")
        return None
    except (OSError, RuntimeError, KeyError) as error:
        logger.warning("LPIPS is left out: its backbone %s cannot be loaded (%s)", backbone, error)
        return None

    @torch.no_grad()
    def metric(rendered: Tensor, photo: Tensor) -> float:
        # LPIPS takes CHW; `normalize` brings [0, 1] to its own range.
        a, b = (image.clamp(0, 1).permute(2, 0, 1)[None].to(device) for image in (rendered, photo))
        return float(network(a, b, normalize=True))

    return metric


def _lpips_network(net: str, backbone: Path) -> torch.nn.Module:
    """The network with its backbone from a file; `pnet_rand` keeps lpips from downloading one."""
    if not backbone.is_file():
        raise FileNotFoundError("no such file")
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision in a deprecated way.
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval().requires_grad_(False)
    _load_backbone(network, backbone)
    return network


def _load_backbone(network: torch.nn.Module, path: Path) -> None:
    """Put torchvision's convolution weights into LPIPS's slices, whose modules keep torchvision's indices as names."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    net: torch.nn.Module = network.net  # pyright: ignore[reportAssignmentType]
    for key, value in net.state_dict().items():
        _, index_and_kind = key.split(".", 1)
        value.copy_(weights[f"features.{index_and_kind}"])
