"""Pairs without any training: photos with the faults of bad splats added."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFilter

from difix3d.pairs.config import PairsConfig
from difix3d.pairs.generated import GeneratedPair, ranked_references
from output_files import output_names
from splat_recon.scene.scene import Scene

CLEAN_PROB = 0.06
"""Share of photos left as they are, so that a fixer learns to leave good images alone."""

REFERENCE_CHOICES = 3
"""The reference is drawn among this many nearest photos, so that its distance varies."""

Rgb = Float[np.ndarray, "h w 3"]
Mask = Float[np.ndarray, "h w"]


def corrupted_pairs(scene: Scene, config: PairsConfig, rng: np.random.Generator) -> Iterator[GeneratedPair]:
    """Corrupt every photo of a scene, `corruptions_per_view` times."""
    names = list(scene.names)
    stems = output_names(names, ending="", flat=True)
    for name in names:
        nearest = ranked_references(scene, name, names)[:REFERENCE_CHOICES]
        for number in range(config.corruptions_per_view):
            degraded = corrupt(scene.view(name).rgb_u8.astype(np.float32) / 255, rng)
            yield GeneratedPair(
                name=f"corrupted_{stems[name]}_{number}",
                label="corrupted",
                degraded_u8=(np.clip(degraded, 0, 1) * 255 + 0.5).astype(np.uint8),
                target=name,
                reference=nearest[int(rng.integers(len(nearest)))],
            )


def corrupt(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Degrade an image in [0, 1] by one to four random faults."""
    if rng.random() < CLEAN_PROB:
        return rgb
    faults: tuple[Callable[[Rgb, np.random.Generator], Rgb], ...] = (
        _blurred, _blurred, _fogged, _fogged, _holed, _warped, _floated, _floated, _tinted, _quantized,
    )  # fmt: skip
    for i in rng.permutation(len(faults))[: int(rng.integers(1, 5))]:
        rgb = faults[i](rgb, rng)
    return np.clip(rgb, 0, 1)


def _smooth(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> Mask:
    """Smooth noise in about [0, 1] with so many cells per side."""
    grid = rng.random((cells, cells), dtype=np.float32)
    image = Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _region(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """A random soft or hard region in [0, 1]."""
    noise = _smooth(shape, int(rng.integers(2, 9)), rng)
    if rng.random() < 0.3:
        # Near a border of the image, where sparse views leave holes.
        y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
        distance = (x / shape[1], 1 - x / shape[1], y / shape[0], 1 - y / shape[0])[int(rng.integers(4))]
        noise = 0.5 * noise + 1.1 - 2.2 * distance / rng.uniform(0.15, 0.8)
    softness = 10 ** rng.uniform(-2, -0.5)
    level = np.quantile(noise, rng.uniform(0.3, 0.9))
    return np.clip(0.5 + (noise - level) / softness, 0, 1).astype(np.float32)


def _mixed(rgb: Rgb, other: Rgb | Float[np.ndarray, " 3"], mask: Mask) -> Rgb:
    return rgb + mask[..., None] * (other - rgb)


def _blurred(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    image = Image.fromarray((rgb * 255 + 0.5).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(10 ** rng.uniform(-0.3, 0.9)))
    soft = np.asarray(image).astype(np.float32) / 255
    return soft if rng.random() < 0.3 else _mixed(rgb, soft, _region(rgb.shape[:2], rng))


def _fogged(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """A veil of smoothly changing color: the image's own, black, or any."""
    draw = rng.random()
    own = rgb[rng.integers(rgb.shape[0]), rng.integers(rgb.shape[1])]
    color = own if draw < 0.5 else (np.zeros(3) if draw < 0.75 else rng.random(3))
    density = rng.uniform(0.15, 0.9) * _region(rgb.shape[:2], rng) * _smooth(rgb.shape[:2], 4, rng).clip(0, 1)
    return _mixed(rgb, color.astype(np.float32), density)


def _holed(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Places that no Gaussian covers: the background shows, or a smear of what is near."""
    noise = _smooth(rgb.shape[:2], int(rng.integers(3, 16)), rng)
    hole = (noise > np.quantile(noise, rng.uniform(0.75, 0.97))).astype(np.float32)
    image = Image.fromarray((rgb * 255 + 0.5).astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(6, 20)))
    smear = np.asarray(image).astype(np.float32) / 255
    background = np.zeros(3, np.float32) if rng.random() < 0.7 else rng.random(3, dtype=np.float32)
    return _mixed(rgb, background if rng.random() < 0.6 else smear, hole)


def _warped(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Things a little off their place, as wrong geometry puts them."""
    height, width = rgb.shape[:2]
    cells, size = int(rng.integers(3, 12)), 10 ** rng.uniform(0.0, 1.0)
    dy, dx = (2 * size * (_smooth((height, width), cells, rng) - 0.5) for _ in range(2))
    y, x = np.mgrid[0:height, 0:width]
    rows = np.clip(y + dy, 0, height - 1).round().astype(int)
    columns = np.clip(x + dx, 0, width - 1).round().astype(int)
    moved = rgb[rows, columns]
    return _mixed(rgb, moved, _region((height, width), rng)) if rng.random() < 0.5 else 0.5 * (moved + rgb)


def _floated(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Elongated Gaussians in colors of the image or any, single or in a swarm."""
    height, width = rgb.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    center = rng.random(2) * (height, width)
    spread = rng.uniform(0.1, 0.6) * height
    result = rgb
    for _ in range(int(10 ** rng.uniform(0.3, 1.6))):
        cy, cx = rng.normal(center, spread)
        angle, long = rng.uniform(0, np.pi), 10 ** rng.uniform(0.3, 1.4)
        short = max(0.7, long * rng.uniform(0.05, 0.6))
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        alpha = rng.uniform(0.2, 0.98) * np.exp(-0.5 * ((along / long) ** 2 + (across / short) ** 2))
        color = rgb[rng.integers(height), rng.integers(width)] if rng.random() < 0.8 else rng.random(3)
        result = _mixed(result, color.astype(np.float32), alpha.astype(np.float32))
    return result


def _tinted(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Wrong exposure and color, uniform or smoothly changing."""
    gain = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.08, 3)).astype(np.float32)
    offset = rng.normal(0, 0.05, 3).astype(np.float32)
    return _mixed(
        rgb, rgb * gain + offset, _smooth(rgb.shape[:2], 3, rng) if rng.random() < 0.6 else np.ones(rgb.shape[:2])
    )


def _quantized(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Blotches: the image in fewer, larger spots, as too few Gaussians draw it."""
    cell = int(rng.integers(2, 9))
    image = Image.fromarray((rgb * 255 + 0.5).astype(np.uint8))
    small = image.resize((max(1, rgb.shape[1] // cell), max(1, rgb.shape[0] // cell)), Image.Resampling.BOX)
    kind = Image.Resampling.BILINEAR if rng.random() < 0.7 else Image.Resampling.BICUBIC
    coarse = np.asarray(small.resize(image.size, kind)).astype(np.float32) / 255
    return _mixed(rgb, coarse, _region(rgb.shape[:2], rng))
