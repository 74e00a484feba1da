"""Procedural textures, drawn into small images that the ray-caster looks up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from PIL import Image

from splat_recon.scene.synthetic.panoramas import Panorama, photographic_texture

TEXTURE_SIZE = 256
"""Width and height of a texture in texels."""

PHOTOGRAPHIC_PROB = 0.8
"""Share of textures that are cut out of panoramas, where there are any."""

Rgb = Float[np.ndarray, " 3"]
Texture = Float[np.ndarray, "t t 3"]


def make_textures(
    rng: np.random.Generator, num_textures: int, panoramas: tuple[Panorama, ...] = ()
) -> Float[np.ndarray, "n t t 3"]:
    """Draw random textures, most of them cut out of panoramas where there are any; linear RGB albedo in [0, 1]."""
    textures = [_one_texture(rng, panoramas) for _ in range(num_textures)]
    return np.stack(textures).astype(np.float32)


def _one_texture(rng: np.random.Generator, panoramas: tuple[Panorama, ...]) -> Texture:
    makers: tuple[Callable[[np.random.Generator], Texture], ...] = (
        _clouds, _clouds, _clouds, _checker, _stripes, _bricks, _glyphs, _poster, _poster, _poster, _wood, _wood,
        _marble, _tiles, _plain, _plain, _plain, _plain, _speckles,
    )  # fmt: skip
    if panoramas and rng.random() < PHOTOGRAPHIC_PROB:
        texture = photographic_texture(rng, panoramas, TEXTURE_SIZE) ** (1 / 2.2)
    else:
        texture = makers[int(rng.integers(len(makers)))](rng)
    grain = 1 + rng.uniform(0.03, 0.25) * (_noise(rng, first=int(rng.integers(8, 48)), octaves=3) - 0.5)
    return np.clip(texture * grain[..., None], 0.02, 0.95) ** 2.2


def _color(rng: np.random.Generator) -> Rgb:
    """Draw an sRGB color: mostly grays and earth tones, some greens and blues, a few vivid ones."""
    value, draw = rng.uniform(0.12, 0.95), rng.random()
    if draw < 0.6:
        hue, saturation = rng.normal(0.45, 0.3), rng.uniform(0.0, 0.3)
    elif draw < 0.85:
        hue, saturation = rng.uniform(1.9, 4.4), rng.uniform(0.05, 0.3)
    else:
        hue, saturation = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.8)
    offsets = np.cos(hue - np.array([0.0, 2.094, 4.189]))
    return np.clip(value * (1 + saturation * offsets), 0.02, 0.98)


def _noise(rng: np.random.Generator, *, first: int, octaves: int, aspect: float = 1.0) -> Float[np.ndarray, "t t"]:
    """Smooth noise in about [0, 1]: octaves that start at `first` cells per side."""
    total = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.float32)
    weight, weights, cells = 1.0, 0.0, first
    for _ in range(octaves):
        grid = rng.random((max(2, int(cells * aspect)), max(2, cells)), dtype=np.float32)
        image = Image.fromarray(grid).resize((TEXTURE_SIZE, TEXTURE_SIZE), Image.Resampling.BICUBIC)
        total += weight * np.asarray(image)
        weights += weight
        weight, cells = weight * 0.55, min(cells * 2, TEXTURE_SIZE)
    return np.clip(0.5 + (total / weights - 0.5) * 1.6, 0, 1)


def _grid() -> tuple[Float[np.ndarray, "t t"], Float[np.ndarray, "t t"]]:
    axis = (np.arange(TEXTURE_SIZE, dtype=np.float32) + 0.5) / TEXTURE_SIZE
    v, u = np.meshgrid(axis, axis, indexing="ij")
    return u, v


def _blend(mask: Float[np.ndarray, "t t"], first: Rgb, second: Rgb) -> Texture:
    return mask[..., None] * first + (1 - mask[..., None]) * second


def _plain(rng: np.random.Generator) -> Texture:
    return np.broadcast_to(_color(rng), (TEXTURE_SIZE, TEXTURE_SIZE, 3)).copy()


def _clouds(rng: np.random.Generator) -> Texture:
    mask = _noise(rng, first=int(rng.integers(2, 12)), octaves=5)
    first, second = _color(rng), _color(rng)
    texture = _blend(mask, first, first + rng.uniform(0.2, 1.0) * (second - first))
    accent = _noise(rng, first=int(rng.integers(4, 16)), octaves=3) > rng.uniform(0.6, 0.9)
    texture[accent] = 0.5 * texture[accent] + 0.5 * _color(rng)
    return texture


def _checker(rng: np.random.Generator) -> Texture:
    u, v = _grid()
    cells = int(rng.integers(2, 9)) * 2
    mask = ((np.floor(u * cells) + np.floor(v * cells)) % 2).astype(np.float32)
    return _blend(mask, _color(rng), _color(rng))


def _stripes(rng: np.random.Generator) -> Texture:
    u, v = _grid()
    angle, cycles = rng.uniform(0, np.pi), rng.integers(3, 16)
    phase = (u * np.cos(angle) + v * np.sin(angle)) * cycles
    mask = ((phase % 1) < rng.uniform(0.2, 0.8)).astype(np.float32)
    return _blend(mask, _color(rng), _color(rng))


def _bricks(rng: np.random.Generator) -> Texture:
    u, v = _grid()
    rows, columns = int(rng.integers(4, 12)), int(rng.integers(2, 6))
    row = np.floor(v * rows)
    along = u * columns + 0.5 * (row % 2)
    column = np.floor(along) % columns
    tone = rng.uniform(0.75, 1.25, (rows, columns))[row.astype(int), column.astype(int)]
    mortar = ((v * rows) % 1 < 0.12) | (along % 1 < 0.06)
    texture = tone[..., None] * _color(rng)
    texture[mortar] = _color(rng)
    return texture


def _tiles(rng: np.random.Generator) -> Texture:
    cells = int(rng.integers(3, 10))
    palette = np.stack([_color(rng) for _ in range(int(rng.integers(2, 6)))])
    choice = rng.integers(len(palette), size=(cells, cells))
    u, v = _grid()
    texture = palette[choice[(v * cells).astype(int), (u * cells).astype(int)]]
    gap = ((u * cells) % 1 < 0.06) | ((v * cells) % 1 < 0.06)
    texture[gap] *= rng.uniform(0.3, 0.8)
    return texture


def _glyphs(rng: np.random.Generator) -> Texture:
    """Lines of random 3x5 block letters on paper."""
    texture = _plain(rng)
    ink = _color(rng) * 0.4
    scale = int(rng.integers(2, 6))
    step_x, step_y = 4 * scale, 8 * scale
    for top in range(2 * scale, TEXTURE_SIZE - 6 * scale, step_y):
        for left in range(2 * scale, TEXTURE_SIZE - 4 * scale, step_x):
            if rng.random() < 0.18:
                continue
            glyph = np.kron(rng.random((5, 3)) < 0.6, np.ones((scale, scale), bool))
            texture[top : top + 5 * scale, left : left + 3 * scale][glyph] = ink
    return texture


def _poster(rng: np.random.Generator) -> Texture:
    """A gradient with discs and bars, like a painting or a label."""
    u, v = _grid()
    texture = _blend(v if rng.random() < 0.5 else u, _color(rng), _color(rng))
    for _ in range(int(rng.integers(4, 14))):
        cx, cy, rx, ry = *rng.uniform(0, 1, 2), *rng.uniform(0.03, 0.3, 2)
        if rng.random() < 0.5:
            inside = ((u - cx) / rx) ** 2 + ((v - cy) / ry) ** 2 < 1
        else:
            inside = (np.abs(u - cx) < rx) & (np.abs(v - cy) < ry)
        texture[inside] = _color(rng)
    return texture


def _wood(rng: np.random.Generator) -> Texture:
    u, _ = _grid()
    bend = _noise(rng, first=4, octaves=4, aspect=0.3)
    mask = 0.5 + 0.5 * np.sin(2 * np.pi * (u * rng.uniform(3, 14) + bend * rng.uniform(0.5, 2)))
    base = np.array([0.62, 0.42, 0.24]) * rng.uniform(0.5, 1.3)
    return _blend(mask, base, base * rng.uniform(0.55, 0.85))


def _marble(rng: np.random.Generator) -> Texture:
    u, v = _grid()
    bend = _noise(rng, first=int(rng.integers(3, 7)), octaves=5)
    mask = np.abs(np.sin(np.pi * (u + v + 3 * bend) * rng.uniform(1, 4))) ** 0.6
    return _blend(mask, _color(rng), _color(rng))


def _speckles(rng: np.random.Generator) -> Texture:
    texture = _blend(_noise(rng, first=6, octaves=4), _color(rng), _color(rng))
    spots = _noise(rng, first=int(rng.integers(20, 64)), octaves=2) > rng.uniform(0.6, 0.8)
    texture[spots] = _color(rng)
    return texture
