"""What a step sees: pairs drawn at random, cropped, mirrored, corrupted, with color jitter and other references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from embedded_weights.coarse_pairs import RGB, CoarsePairs
from embedded_weights.color_jitter import color_jitter
from embedded_weights.config import StageConfig
from embedded_weights.corruptions import corrupt, darkened, softened, window

CROP = 0.75
"""Fraction of each side that a crop shows, rounded down to even numbers of cells."""

DISOCCLUSION = (0.2, 0.6)
"""Sides of what the reference does not show, as fractions of the image's."""

DARKEST = 0.4
"""What is in the dark keeps up to this fraction of its light."""

CLEAN_DETAIL = 0.3
"""A good render keeps at least this fraction of the photo's detail."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseBatch:
    """Pairs of one step."""

    rendered: Float[Tensor, "b c=4 h w"]
    photo: Float[Tensor, "b c=4 h w"]
    references: Float[Tensor, "b c=4 h w"] | None
    irreducible_mse: Float[Tensor, " b"]
    """Mean squared error that no coarse correction can undo."""

    def mapped(self, function: Callable[[Tensor], Tensor]) -> CoarseBatch:
        """The same with a function applied to each tensor."""
        return CoarseBatch(
            rendered=function(self.rendered),
            photo=function(self.photo),
            references=None if self.references is None else function(self.references),
            irreducible_mse=function(self.irreducible_mse),
        )


def batch_at(pairs: Sequence[CoarsePairs], config: StageConfig, step: int) -> CoarseBatch:
    """The batch of a step, of images of one size; the same for the same seed and step."""
    counts = np.array([len(of_size) for of_size in pairs])
    rng = np.random.default_rng([config.seed, step])
    of_size = pairs[rng.choice(len(counts), p=counts / counts.sum())]
    chosen = torch.from_numpy(rng.integers(len(of_size), size=config.batch_size))
    images = torch.stack([of_size.rendered[chosen], of_size.photo[chosen], of_size.reference[chosen]], dim=1)
    if rng.random() < 0.5:
        images = images.flip(-1)
    if rng.random() < config.crop_prob:
        rows, columns = (_part(side, rng) for side in images.shape[-2:])
        images = images[..., rows, columns].clone()
    progress = min(1.0, step / (config.curriculum * config.max_steps))
    return _augmented(
        images,
        of_size.irreducible_mse[chosen],
        corruption_prob=config.corruption_prob + progress * (config.final_corruption_prob - config.corruption_prob),
        color_jitter_prob=progress * config.color_jitter_prob,
        clean_prob=config.clean_prob,
        disocclusion_prob=progress * config.disocclusion_prob,
        references=_references(config, rng),
        rng=rng,
    )


def _references(config: StageConfig, rng: np.random.Generator) -> Literal["right", "wrong", "none"]:
    draw = rng.random() - config.drop_reference_prob
    return "none" if draw < 0 else "wrong" if draw < config.wrong_reference_prob else "right"


def _augmented(
    images: Float[Tensor, "b v=3 c=4 h w"],
    irreducible_mse: Float[Tensor, " b"],
    *,
    corruption_prob: float,
    color_jitter_prob: float,
    clean_prob: float,
    disocclusion_prob: float,
    references: Literal["right", "wrong", "none"],
    rng: np.random.Generator,
) -> CoarseBatch:
    for index in range(len(images)):
        if rng.random() < clean_prob:
            images[index, 0] = softened(images[index, 1], float(rng.uniform(CLEAN_DETAIL, 1)))
            irreducible_mse[index] = 0
        if rng.random() < disocclusion_prob:
            _occlude_reference(images[index], images[index - 1], rng)
    jittered = torch.stack([color_jitter(one, rng) if rng.random() < color_jitter_prob else one for one in images])
    # The error within the cells is taken to change with the contrast as that between them does.
    ratio = _spread(jittered) / _spread(images).clamp(min=1e-5)
    rendered, photo, nearby = jittered.unbind(dim=1)
    rendered = rendered.clone()
    for index in range(len(images)):
        if rng.random() < corruption_prob:
            corrupt(rendered[index], photo[index - 1], rng)
    shown_references = {"right": nearby, "wrong": nearby.roll(1, dims=0), "none": None}[references]
    return CoarseBatch(
        rendered=rendered, photo=photo, references=shown_references, irreducible_mse=irreducible_mse * ratio
    )


def _occlude_reference(
    images: Float[Tensor, "v=3 c=4 h w"], other: Float[Tensor, "v=3 c=4 h w"], rng: np.random.Generator
) -> None:
    """Let a window of render and photo show what the reference does not: another pair's, or the same in the dark."""
    rows, columns = (window(side, DISOCCLUSION, rng) for side in images.shape[-2:])
    light = None if rng.random() < 0.5 else float(rng.uniform(0, DARKEST))
    for view in range(2):
        shown = images[view, :, rows, columns]
        shown.copy_(other[view, :, rows, columns] if light is None else darkened(shown, light))


def _part(side: int, rng: np.random.Generator) -> slice:
    length = max(2, int(CROP * side) // 2 * 2)
    start = int(rng.integers(max(1, side - length + 1)))
    return slice(start, start + length)


def _spread(images: Float[Tensor, "b v c h w"]) -> Float[Tensor, " b"]:
    """Mean squared error of the renders."""
    return (images[:, 0] - images[:, 1])[:, RGB].square().mean(dim=(1, 2, 3))
