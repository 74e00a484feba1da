"""Where each pixel of a frame was in the frame before: block matching from coarse to fine, without a network."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

COARSEST_SIDE = 24
"""Frames are halved while their shorter side stays above this."""

FINE_SIDE = 250
"""Frames with a longer shorter side than this are matched at half their size; the rest is found between pixels."""

COARSE_REACH, REACH = 3, 1
"""Pixels to search in each direction, at the coarsest size and at the others."""

FRACTIONS = (0.5, 0.25)
"""Steps between pixels, one after the other."""

WINDOW = 4
"""Pixels around a pixel that must match with it."""

STEP_BIAS = 1e-4
"""How much better a match must be, per pixel of the step, to be taken: flat areas keep what they have."""


def motion(previous: Float[Tensor, "h w c=3"], current: Float[Tensor, "h w c=3"]) -> Float[Tensor, "h w xy=2"]:
    """Return the vectors for which `current[p]` resembles `previous[p + vector]`, in pixels.

    Equal frames give exactly zero. Only brightness is compared; steps of up to about a tenth of the shorter side are
    found.
    """
    pairs = [(_brightness(previous), _brightness(current))]
    while min(pairs[-1][0].shape[-2:]) >= 2 * COARSEST_SIDE:
        halved = [functional.avg_pool2d(image, 2, ceil_mode=True) for image in pairs[-1]]
        pairs.append((halved[0], halved[1]))
    height, width = current.shape[:2]
    finest = 1 if min(height, width) > FINE_SIDE and len(pairs) > 1 else 0
    flow: Tensor | None = None
    for level in range(len(pairs) - 1, finest - 1, -1):
        before, now = pairs[level]
        reach = REACH
        if flow is None:
            flow, reach = torch.zeros(1, 2, *now.shape[-2:], device=now.device), COARSE_REACH
        else:
            flow = 2.0 * functional.interpolate(flow, size=now.shape[-2:], mode="bilinear", align_corners=False)
            flow = _best(before, now, flow, _neighbors(flow))
        for steps in ([float(step) for step in range(-reach, reach + 1)], *([-f, 0.0, f] for f in FRACTIONS)):
            around = [flow + flow.new_tensor([x, y])[None, :, None, None] for x in steps for y in steps if x or y]
            flow = _best(before, now, flow, around)
        flow = _best(before, now, flow, _neighbors(flow))
    assert flow is not None
    if finest:
        flow = 2.0 * functional.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    return flow[0].permute(1, 2, 0)


def warped(
    image: Float[Tensor, "h w c"], vectors: Float[Tensor, "h w xy=2"], *, mode: str = "bicubic"
) -> Float[Tensor, "h w c"]:
    """Fetch every pixel from where it was; pixels that did not move are returned bit by bit.

    Args:
        image: The frame before, of any number of channels.
        vectors: From `motion`.
        mode: How to look between pixels: "bilinear" or "bicubic". Beyond the border the border is repeated.
    """
    planes = image.permute(2, 0, 1)[None]
    moved = _fetched(planes, vectors.permute(2, 0, 1)[None], mode)[0].permute(1, 2, 0)
    still = (vectors == 0).all(dim=-1, keepdim=True)
    return torch.where(still, image, moved)


def inside(vectors: Float[Tensor, "h w xy=2"]) -> Tensor:
    """Tell for every pixel whether it was within the frame before; bool, h x w."""
    height, width = vectors.shape[:2]
    x = torch.arange(width, device=vectors.device) + vectors[..., 0]
    y = torch.arange(height, device=vectors.device)[:, None] + vectors[..., 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _brightness(rgb: Tensor) -> Tensor:
    return (rgb @ rgb.new_tensor([0.299, 0.587, 0.114]))[None, None]


def _best(previous: Tensor, current: Tensor, flow: Tensor, candidates: Iterable[Tensor]) -> Tensor:
    """Return for each pixel the vector that matches best; a candidate must be better than the present one."""
    best, best_cost = flow, _cost(previous, current, flow)
    for candidate in candidates:
        cost = _cost(previous, current, candidate) + STEP_BIAS * (candidate - flow).abs().sum(dim=1, keepdim=True)
        better = cost < best_cost
        best_cost = torch.where(better, cost, best_cost)
        best = torch.where(better, candidate, best)
    return best


def _cost(previous: Tensor, current: Tensor, flow: Tensor) -> Tensor:
    difference = (current - _fetched(previous, flow, "bilinear")).abs()
    return functional.avg_pool2d(difference, 2 * WINDOW + 1, stride=1, padding=WINDOW, count_include_pad=False)


def _neighbors(flow: Tensor) -> Iterator[Tensor]:
    """Yield the frame's median vector, no motion at all, and the vectors next to each pixel."""
    yield flow.flatten(2).median(dim=2).values[..., None, None].expand_as(flow)
    yield torch.zeros_like(flow)
    height, width = flow.shape[-2:]
    padded = functional.pad(flow, (WINDOW, WINDOW, WINDOW, WINDOW), mode="replicate")
    for y, x in ((0, WINDOW), (2 * WINDOW, WINDOW), (WINDOW, 0), (WINDOW, 2 * WINDOW)):
        yield padded[..., y : y + height, x : x + width]


def _fetched(planes: Tensor, flow: Tensor, mode: str) -> Tensor:
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    # -1 and 1 are the outer corners here; pixel centers are at +0.5.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return functional.grid_sample(planes, grid, mode=mode, padding_mode="border", align_corners=False)
