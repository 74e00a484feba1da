"""What the UNet is shown: pairs drawn at random, cropped, mirrored, damaged, with other tones and other references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from difix_train.coarse.config import CoarseConfig
from difix_train.coarse.damage import damage, faded, softened, window
from difix_train.coarse.pairs import RGB, CoarsePairs
from difix_train.coarse.tones import toned

CROP = 0.75
"""Share of each side that a crop shows, rounded down to even numbers of cells."""

STRANGER = (0.2, 0.6)
"""Sides of what the reference does not show, as shares of the image's."""

DARKEST = 0.4
"""What is in the dark keeps up to this share of its light."""

CLEAN_DETAIL = 0.3
"""A good render keeps at least this share of the photo's detail."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseBatch:
    """Pairs of one step."""

    rendered: Float[Tensor, "b c=4 h w"]
    photo: Float[Tensor, "b c=4 h w"]
    references: Float[Tensor, "b c=4 h w"] | None
    fine_mse: Float[Tensor, " b"]
    """Mean squared error that no coarse correction can undo."""


def coarse_batches(pairs: Sequence[CoarsePairs], config: CoarseConfig, first_step: int = 0) -> Iterator[CoarseBatch]:
    """The batches of a training from a step on, each of images of one size; the same seed gives the same ones."""
    counts = np.array([len(of_size) for of_size in pairs])
    for step in range(first_step, config.max_steps):
        rng = np.random.default_rng([config.seed, step])
        of_size = pairs[rng.choice(len(counts), p=counts / counts.sum())]
        chosen = torch.from_numpy(rng.integers(len(of_size), size=config.batch_size))
        images = torch.stack([of_size.rendered[chosen], of_size.photo[chosen], of_size.reference[chosen]], dim=1)
        if rng.random() < 0.5:
            images = images.flip(-1)
        if rng.random() < config.crop_prob:
            rows, columns = (_part(side, rng) for side in images.shape[-2:])
            images = images[..., rows, columns].clone()
        passed = min(1.0, step / (config.curriculum * config.max_steps))
        damage_prob = config.damage_prob + passed * (config.last_damage_prob - config.damage_prob)
        yield _changed(
            images,
            of_size.fine_mse[chosen],
            damage_prob=damage_prob,
            tone_prob=passed * config.tone_prob,
            clean_prob=config.clean_prob,
            stranger_prob=passed * config.stranger_prob,
            references=_references(config, rng),
            rng=rng,
        )


def _references(config: CoarseConfig, rng: np.random.Generator) -> Literal["right", "wrong", "none"]:
    draw = rng.random() - config.drop_reference_prob
    return "none" if draw < 0 else "wrong" if draw < config.wrong_reference_prob else "right"


def _changed(
    images: Float[Tensor, "b v=3 c=4 h w"],
    fine_mse: Float[Tensor, " b"],
    *,
    damage_prob: float,
    tone_prob: float,
    clean_prob: float,
    stranger_prob: float,
    references: Literal["right", "wrong", "none"],
    rng: np.random.Generator,
) -> CoarseBatch:
    for index in range(len(images)):
        if rng.random() < clean_prob:
            images[index, 0] = softened(images[index, 1], float(rng.uniform(CLEAN_DETAIL, 1)))
            fine_mse[index] = 0
        if rng.random() < stranger_prob:
            _estrange(images[index], images[index - 1], rng)
    tones = torch.stack([toned(one, rng) if rng.random() < tone_prob else one for one in images])
    # The error within the cells is taken to change with the contrast as that between them does.
    ratio = _spread(tones) / _spread(images).clamp(min=1e-5)
    rendered, photo, nearby = tones.unbind(dim=1)
    rendered = rendered.clone()
    for index in range(len(images)):
        if rng.random() < damage_prob:
            damage(rendered[index], photo[index - 1], rng)
    given = {"right": nearby, "wrong": nearby.roll(1, dims=0), "none": None}[references]
    return CoarseBatch(rendered=rendered, photo=photo, references=given, fine_mse=fine_mse * ratio)


def _estrange(
    images: Float[Tensor, "v=3 c=4 h w"], other: Float[Tensor, "v=3 c=4 h w"], rng: np.random.Generator
) -> None:
    """Let a window of render and photo show what the reference does not: another pair's, or the same in the dark."""
    rows, columns = (window(side, STRANGER, rng) for side in images.shape[-2:])
    light = None if rng.random() < 0.5 else float(rng.uniform(0, DARKEST))
    for view in range(2):
        shown = images[view, :, rows, columns]
        shown.copy_(other[view, :, rows, columns] if light is None else faded(shown, light))


def _part(side: int, rng: np.random.Generator) -> slice:
    length = max(2, int(CROP * side) // 2 * 2)
    start = int(rng.integers(max(1, side - length + 1)))
    return slice(start, start + length)


def _spread(images: Float[Tensor, "b v c h w"]) -> Float[Tensor, " b"]:
    """Mean squared error of the renders."""
    return (images[:, 0] - images[:, 1])[:, RGB].square().mean(dim=(1, 2, 3))
