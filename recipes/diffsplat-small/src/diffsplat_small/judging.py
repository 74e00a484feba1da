"""How often generated objects show the color and the shape that their prompt names.

The rule: the four views of the generated object are compared with ray-cast views of an object of each shape and of
each color. The color is right if the mean color of what is opaque is nearest to that of a ball of the named color and
material, among all colors.
The shape is right if the silhouettes overlap by at least 0.6 (intersection over union, mean over the views) with those
of a named-shape object of ordinary proportions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffsplat import DiffSplatPipeline, GeneratedSplat, GenerationConfig
from diffsplat.cameras import canonical_intrinsics
from diffsplat.render import rendered
from synthetic_objects import (
    COLORS,
    HELD_OUT_SEED,
    SHAPES,
    GeneratedObject,
    ObjectConfig,
    caption_of,
    intrinsics,
    orbit_rig,
    ray_cast,
    sample_object,
)

RIGHT_OVERLAP = 0.6
JUDGED_SIZE = 64


def held_out_prompts(num: int, pairs: Sequence[tuple[str, str]], materials: Sequence[str]) -> list[GeneratedObject]:
    """Single objects of pairs of a color and a shape that no training saw, in every material in turn."""
    names = [(color, shape, material) for material in materials for color, shape in pairs]
    chosen = [names[index % len(names)] for index in range(num)]
    return [_object(1000 + index, *one) for index, one in enumerate(chosen)]


def _object(seed: int, color: str, shape: str, material: str) -> GeneratedObject:
    config = ObjectConfig(two_parts_prob=0, shapes=(shape,), colors=(color,), materials=(material,), largest_yaw_deg=0)
    return sample_object(seed, config)


@lru_cache(maxsize=512)
def _views_of(color: str, shape: str, material: str, elevation_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean color and silhouettes of an ordinary object."""
    ordinary = _object(0, color, shape, material)
    K = intrinsics(JUDGED_SIZE)
    maps = [ray_cast(ordinary, pose, K, JUDGED_SIZE, JUDGED_SIZE, samples=1) for pose in orbit_rig(elevation_deg)]
    silhouettes = np.stack([one.mask > 0.5 for one in maps])
    colors = np.concatenate([one.rgb[one.mask > 0.5] for one in maps])
    return colors.mean(axis=0), silhouettes


@torch.no_grad()
def seen(splat: GeneratedSplat) -> tuple[Float[Tensor, "v 3 h w"], Bool[Tensor, "v h w"]]:
    """Renders of an object's own views, and where they are opaque."""
    views = rendered(
        splat.gaussians, splat.T_world_cam[None], canonical_intrinsics(len(splat.T_world_cam))[None], JUDGED_SIZE,
        JUDGED_SIZE,
    )  # fmt: skip
    return views.rgb[0].clamp(0, 1), views.alpha[0, :, 0] > 0.5


def color_of(
    rgb: Float[Tensor, "v 3 h w"], opaque: Bool[Tensor, "v h w"], material: str, elevation_deg: float
) -> str | None:
    """The color that an object of a material shows; None where nothing is opaque."""
    if not bool(opaque.any()):
        return None
    found = rgb.permute(0, 2, 3, 1)[opaque].mean(dim=0).cpu().numpy()
    return min(
        COLORS, key=lambda name: float(np.linalg.norm(found - _views_of(name, "ball", material, elevation_deg)[0]))
    )


def overlap_with(shape: str, opaque: Bool[Tensor, "v h w"], elevation_deg: float) -> float:
    """Intersection over union with the silhouettes of a shape, mean over the views."""
    found, wanted = opaque.cpu().numpy(), _views_of("gray", shape, "matte", elevation_deg)[1]
    both, either = (found & wanted).sum(axis=(1, 2)), (found | wanted).sum(axis=(1, 2))
    return float((both / np.maximum(either, 1)).mean())


def judged(
    pipe: DiffSplatPipeline,
    num_prompts: int,
    config: GenerationConfig,
    pairs: Sequence[tuple[str, str]],
    materials: Sequence[str],
    *,
    batch_size: int = 10,
) -> dict[str, Any]:
    """Shares of right colors and shapes over held-out prompts, against chance and against shuffled prompts.

    Args:
        pipe: What is judged.
        num_prompts: How many prompts.
        config: How objects are generated.
        pairs: Colors and shapes that the prompts name together.
        materials: Materials that they name.
        batch_size: Objects at a time.
    """
    objects = held_out_prompts(num_prompts, pairs, materials)
    colors: list[str | None] = []
    overlaps: list[dict[str, float]] = []
    for start in range(0, num_prompts, batch_size):
        part = objects[start : start + batch_size]
        seeds = list(range(start, start + len(part)))
        splats = pipe([caption_of(one) for one in part], config, seeds=seeds)
        for one, splat in zip(part, splats, strict=True):
            rgb, opaque = seen(splat)
            colors.append(color_of(rgb, opaque, one.parts[0].material, splat.elevation_deg))
            overlaps.append({shape: overlap_with(shape, opaque, splat.elevation_deg) for shape in SHAPES})

    def fractions(wanted: list[GeneratedObject]) -> dict[str, float]:
        pairs = list(zip(wanted, colors, overlaps, strict=True))
        return {
            "color_right": float(np.mean([color == one.parts[0].color for one, color, _ in pairs])),
            "shape_right": float(np.mean([found[one.parts[0].shape] >= RIGHT_OVERLAP for one, _, found in pairs])),
            "shape_nearest": float(
                np.mean([max(found, key=lambda name: found[name]) == one.parts[0].shape for one, _, found in pairs])
            ),
        }

    order = np.random.default_rng(8).permutation(num_prompts)
    return {
        "num_prompts": num_prompts,
        "named": fractions(objects),
        "shuffled": fractions([objects[index] for index in order]),
        "chance": {"color_right": 1 / len(COLORS), "shape_nearest": 1 / len(SHAPES)},
    }


def judged_pairs(
    pipe: DiffSplatPipeline, num_prompts: int, config: GenerationConfig, drawn_from: ObjectConfig
) -> dict[str, Any]:
    """The same for two solids: are both colors right where the solids are, and does the silhouette fit?

    Each prompt is the caption of an object of two solids, and what comes of it is compared with that object; of one
    "next to" another, on either side.

    Args:
        pipe: What is judged.
        num_prompts: How many prompts.
        config: How objects are generated.
        drawn_from: What objects are drawn from, by seeds that no stage saw.
    """
    two = replace(drawn_from, two_parts_prob=1.0)
    objects = [sample_object(HELD_OUT_SEED + index, two) for index in range(num_prompts)]
    splats = [pipe([caption_of(one)], config, seeds=[index])[0] for index, one in enumerate(objects)]
    order = np.random.default_rng(8).permutation(num_prompts)
    found = {}
    for name, wanted in (("named", objects), ("shuffled", [objects[index] for index in order])):
        scores = np.array([_pair_scores(splat, one) for splat, one in zip(splats, wanted, strict=True)])
        found[name] = dict(zip(("both_colors_right", "shape_right"), scores.mean(axis=0).tolist(), strict=True))
    return {"num_prompts": num_prompts, **found}


def _pair_scores(splat: GeneratedSplat, wanted: GeneratedObject) -> tuple[bool, bool]:
    """Whether both colors and the silhouettes are those of an object, or of its mirror image where that is as good."""
    rgb, opaque = seen(splat)
    scores = [(False, False)]
    for side in (1, -1) if wanted.relation == "next to" else (1,):
        parts = tuple(replace(part, center=(side * part.center[0], *part.center[1:])) for part in wanted.parts)
        turned = replace(wanted, parts=parts)
        K, poses = intrinsics(JUDGED_SIZE), orbit_rig(splat.elevation_deg)
        maps = [ray_cast(turned, pose, K, JUDGED_SIZE, JUDGED_SIZE, samples=1).part for pose in poses]
        where = torch.from_numpy(np.stack(maps))
        colors = [
            color_of(rgb, opaque & (where == index), part.material, splat.elevation_deg) == part.color
            for index, part in enumerate(parts)
        ]
        both, either = (opaque & (where >= 0)).sum(dim=(1, 2)), (opaque | (where >= 0)).sum(dim=(1, 2))
        scores.append((all(colors), float((both / either).mean()) >= RIGHT_OVERLAP))
    return max(scores)
