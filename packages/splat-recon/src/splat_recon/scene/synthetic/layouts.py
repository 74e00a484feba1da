"""Arrangements of solids: a table-top, a furnished room, a garden, a street, a shelf."""

from __future__ import annotations

import numpy as np

from splat_recon.scene.synthetic.config import Layout
from splat_recon.scene.synthetic.panoramas import Panorama, drawn_surroundings
from splat_recon.scene.synthetic.textures import make_textures
from splat_recon.scene.synthetic.world import (
    CONE,
    CUBE,
    CYLINDER,
    GROUND,
    NO_PANORAMA,
    ROOM,
    SPHERE,
    TORUS,
    World,
    WorldBuilder,
)

NUM_TEXTURES = 18
"""Textures per scene; several solids share one."""


DARK = 0.02
"""What dark surfaces reflect of the light that others would."""


def make_world(
    rng: np.random.Generator, layout: Layout, dark_fraction: float = 0.0, panoramas: tuple[Panorama, ...] = ()
) -> World:
    """Draw a world of the given layout; `dark_fraction` as in `SyntheticConfig`.

    Without panoramas nothing is drawn that was not drawn before there were any: a seed gives the same world.
    """
    builder = WorldBuilder(rng, NUM_TEXTURES)
    outdoor = layout in ("garden", "street")
    {"table": _table, "room": _room, "garden": _garden, "street": _street, "shelf": _shelf}[layout](builder)
    azimuth = rng.uniform(0, 2 * np.pi)
    warm = rng.uniform(0.75, 1.1)
    light_rgb = np.array([1.0, 0.5 + 0.5 * warm, warm])
    if outdoor:
        height = rng.uniform(0.4, 1.4)
        dir_sun = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        light = (rng.uniform(0.5, 1.0), 0.0, rng.uniform(0.005, 0.06), rng.uniform(0.3, 0.55), rng.uniform(0.15, 0.3))
    else:
        dir_sun = np.array([np.cos(azimuth) * 0.5, np.sin(azimuth) * 0.5, 1.0])
        light = (rng.uniform(0.35, 0.8), rng.uniform(1.9, 2.4), rng.uniform(0.03, 0.2), rng.uniform(0.35, 0.6), 0.25)
    horizon = np.array([0.75, 0.8, 0.85]) * rng.uniform(0.6, 1.1)
    zenith = np.array([0.25, 0.4, 0.75]) * rng.uniform(0.5, 1.2) if rng.random() < 0.7 else horizon * 0.8
    textures = make_textures(rng, NUM_TEXTURES, panoramas)
    surroundings = drawn_surroundings(rng, panoramas) if panoramas else NO_PANORAMA
    if dark_fraction > 0:
        textures[rng.random(NUM_TEXTURES) < dark_fraction] *= DARK
        if rng.random() < dark_fraction:
            horizon, zenith, surroundings = DARK * horizon, DARK * zenith, np.float32(DARK) * surroundings
    return builder.build(
        textures,
        dir_sun=dir_sun,
        light=light,
        light_rgb=light_rgb,
        sky_rgb=np.stack([horizon, zenith]),
        surroundings=surroundings,
    )


def _clutter(builder: WorldBuilder, center: tuple[float, float, float], radius: float, count: int, size: float) -> None:
    """Put small solids on a surface at height center[2], some of them stacked."""
    rng = builder.rng
    for _ in range(count):
        angle, distance = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.random())
        x, y = center[0] + distance * np.cos(angle), center[1] + distance * np.sin(angle)
        base = center[2]
        for _level in range(1 + int(rng.random() < 0.25)):
            base = _thing(builder, x, y, base, size * rng.uniform(0.5, 1.3))


def _thing(builder: WorldBuilder, x: float, y: float, base: float, size: float) -> float:
    """One random solid standing at height `base`; returns the height of its top."""
    rng = builder.rng
    yaw, tile = rng.uniform(0, np.pi), size * rng.uniform(0.8, 3.0)
    kind = int(rng.choice([CUBE, CUBE, CUBE, SPHERE, CYLINDER, CYLINDER, CONE, TORUS]))
    if kind == SPHERE:
        height = size * rng.uniform(0.7, 1.2)
        half = (size * rng.uniform(0.8, 1.1), size * rng.uniform(0.8, 1.1), height)
    elif kind == TORUS:
        standing = rng.random() < 0.5
        center = (x, y, base + (size if standing else 0.32 * size))
        tilt = np.pi / 2 if standing else 0.0
        builder.add(TORUS, center, (size, size, size), yaw=yaw, tilt=tilt, texture_size=tile)
        return base + (2 * size if standing else 0.64 * size)
    elif kind == CUBE:
        height = size * rng.uniform(0.3, 1.6)
        half = (size * rng.uniform(0.4, 1.3), size * rng.uniform(0.3, 1.0), height)
    else:
        height = size * rng.uniform(0.5, 1.6)
        width = size * rng.uniform(0.4, 0.9)
        half = (width, width, height)
    builder.add(kind, (x, y, base + height), half, yaw=yaw, texture_size=tile)
    return base + 2 * height


def _slab_on_legs(
    builder: WorldBuilder, x: float, y: float, half: tuple[float, float, float], yaw: float, base: float = 0.0
) -> float:
    """A table or stool; returns the height of its top."""
    rng = builder.rng
    texture, thick = builder.texture(), 0.03 + 0.04 * rng.random()
    top = base + 2 * half[2]
    center = (x, y, top - thick)
    builder.add(CUBE, center, (half[0], half[1], thick), yaw=yaw, texture=texture, texture_size=rng.uniform(0.4, 1.5))
    leg = (0.04, 0.04, half[2] - thick)
    for sx in (-1, 1):
        for sy in (-1, 1):
            dx, dy = sx * (half[0] - 0.08), sy * (half[1] - 0.08)
            px, py = x + dx * np.cos(yaw) - dy * np.sin(yaw), y + dx * np.sin(yaw) + dy * np.cos(yaw)
            builder.add(CUBE, (px, py, base + leg[2]), leg, yaw=yaw, texture=texture, texture_size=0.7)
    return top


def _walls(builder: WorldBuilder, half: tuple[float, float, float]) -> None:
    """A closed room with a floor of its own, skirting, pictures and perhaps a cupboard on the walls."""
    rng = builder.rng
    builder.add(ROOM, (0, 0, half[2]), half, texture_size=rng.uniform(1.0, 3.0), gloss=0.0)
    builder.add(CUBE, (0, 0, 0.005), (half[0], half[1], 0.005), texture_size=rng.uniform(0.6, 2.0))
    for _ in range(int(rng.integers(8, 18))):
        side, along, height = int(rng.integers(4)), rng.uniform(-0.8, 0.8), rng.uniform(0.3, 0.75) * 2 * half[2]
        w, h, deep = rng.uniform(0.15, 0.6), rng.uniform(0.15, 0.5), rng.uniform(0.02, 0.1)
        size = 2 * max(w, h) * rng.uniform(0.5, 1.0)
        if side < 2:
            x = (half[0] - deep) * (1 if side else -1)
            builder.add(CUBE, (x, along * half[1], height), (deep, w, h), texture_size=size)
        else:
            y = (half[1] - deep) * (1 if side == 3 else -1)
            builder.add(CUBE, (along * half[0], y, height), (w, deep, h), texture_size=size)


def _table(builder: WorldBuilder) -> None:
    rng = builder.rng
    _walls(builder, (rng.uniform(2.2, 3.2), rng.uniform(2.2, 3.2), rng.uniform(1.25, 1.5)))
    half = (rng.uniform(0.55, 0.8), rng.uniform(0.5, 0.7), rng.uniform(0.35, 0.42))
    top = _slab_on_legs(builder, 0, 0, half, rng.uniform(0, np.pi))
    _clutter(builder, (0, 0, top), 0.42, int(rng.integers(4, 9)), 0.12)
    _clutter(builder, (0, 0, 0.01), 2.0, int(rng.integers(2, 6)), 0.25)


def _room(builder: WorldBuilder) -> None:
    rng = builder.rng
    half = (rng.uniform(2.3, 3.5), rng.uniform(2.3, 3.5), rng.uniform(1.25, 1.6))
    _walls(builder, half)
    for _ in range(int(rng.integers(3, 6))):
        x, y = rng.uniform(-0.8, 0.8) * half[0], rng.uniform(-0.8, 0.8) * half[1]
        size = (rng.uniform(0.25, 0.7), rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.4))
        top = _slab_on_legs(builder, x, y, size, rng.uniform(0, np.pi))
        _clutter(builder, (x, y, top), 0.3, int(rng.integers(1, 4)), 0.1)
    _clutter(builder, (0, 0, 0.01), 2.0, int(rng.integers(4, 9)), 0.2)
    for _ in range(int(rng.integers(5, 10))):
        side = 1 if rng.random() < 0.5 else -1
        x, y = rng.uniform(-0.85, 0.85) * half[0], side * half[1] * rng.uniform(0.75, 0.9)
        _thing(builder, x, y, 0.01, rng.uniform(0.2, 0.5))


def _tree(builder: WorldBuilder, x: float, y: float, height: float) -> None:
    rng = builder.rng
    bark, leaf = builder.texture(), builder.texture()
    builder.add(CYLINDER, (x, y, 0.25 * height), (0.05 * height, 0.05 * height, 0.25 * height), texture=bark)
    if rng.random() < 0.35:
        size = (0.25 * height, 0.25 * height, 0.35 * height)
        builder.add(CONE, (x, y, 0.7 * height), size, texture=leaf, texture_size=0.5 * height)
        return
    for _ in range(3):
        dx, dy, dz = rng.uniform(-0.15, 0.15, 3) * height
        r = height * rng.uniform(0.16, 0.26)
        builder.add(SPHERE, (x + dx, y + dy, 0.68 * height + dz), (r, r, r), texture=leaf, texture_size=0.6 * height)


def _house(builder: WorldBuilder, x: float, y: float, half: tuple[float, float, float], yaw: float) -> None:
    rng = builder.rng
    builder.add(CUBE, (x, y, half[2]), half, yaw=yaw, texture_size=rng.uniform(1.0, 4.0), gloss=0.0)
    pane = builder.texture()
    for _ in range(int(rng.integers(2, 5))):
        dx = rng.uniform(-0.7, 0.7) * half[0]
        z, w, h = rng.uniform(0.3, 0.85) * 2 * half[2], 0.12 * half[0], 0.12 * half[2]
        for side in (-1, 1):
            dy = side * half[1]
            px, py = x + dx * np.cos(yaw) - dy * np.sin(yaw), y + dx * np.sin(yaw) + dy * np.cos(yaw)
            builder.add(CUBE, (px, py, z), (w, 0.06, h), yaw=yaw, texture=pane, texture_size=2 * w)


def _garden(builder: WorldBuilder) -> None:
    rng = builder.rng
    builder.add(GROUND, (0, 0, 0), (1, 1, 1), texture_size=rng.uniform(1.5, 4.0), gloss=0.0)
    builder.add(CYLINDER, (0, 0, 0.02), (1.6, 1.6, 0.02), texture_size=rng.uniform(0.8, 2.0), gloss=0.0)
    half = (rng.uniform(0.35, 0.6), rng.uniform(0.35, 0.6), rng.uniform(0.2, 0.35))
    top = _slab_on_legs(builder, 0, 0, half, rng.uniform(0, np.pi), 0.04)
    _clutter(builder, (0, 0, top), 0.3, int(rng.integers(2, 5)), 0.14)
    _clutter(builder, (0, 0, 0.04), 1.4, int(rng.integers(2, 6)), 0.2)
    count = int(rng.integers(9, 15))
    for i in range(count):
        angle = 2 * np.pi * (i + rng.uniform(-0.3, 0.3)) / count
        distance = rng.uniform(4.5, 8.0)
        x, y = distance * np.cos(angle), distance * np.sin(angle)
        if rng.random() < 0.55:
            _tree(builder, x, y, rng.uniform(2.5, 5.0))
        else:
            size = (rng.uniform(0.9, 2.0), rng.uniform(0.7, 1.2), rng.uniform(0.8, 2.2))
            _house(builder, x, y, size, angle + np.pi / 2)


def _street(builder: WorldBuilder) -> None:
    rng = builder.rng
    builder.add(GROUND, (0, 0, 0), (1, 1, 1), texture_size=rng.uniform(1.5, 5.0), gloss=0.0)
    builder.add(CUBE, (0, 9, 0.01), (1.4, 14, 0.01), texture_size=rng.uniform(1.0, 3.0), gloss=0.0)
    for side in (-1, 1):
        y = -4.0
        while y < 18:
            depth = rng.uniform(1.2, 2.8)
            size = (depth, rng.uniform(1.0, 2.0), rng.uniform(1.2, 3.5))
            _house(builder, side * (rng.uniform(2.6, 3.6) + size[1]), y + depth, size, np.pi / 2)
            y += 2 * depth + rng.uniform(0.0, 0.8)
        for _ in range(int(rng.integers(3, 7))):
            x, y = side * rng.uniform(1.5, 2.3), rng.uniform(1, 14)
            if rng.random() < 0.4:
                _tree(builder, x, y, rng.uniform(1.6, 3.0))
            else:
                _thing(builder, x, y, 0.0, rng.uniform(0.2, 0.5))
    builder.add(CUBE, (0, 22, 2), (8, 0.5, rng.uniform(2, 4)), texture_size=rng.uniform(2, 5), gloss=0.0)


def _shelf(builder: WorldBuilder) -> None:
    rng = builder.rng
    _walls(builder, (2.8, 2.8, 1.4))
    back = rng.uniform(2.1, 2.5)
    board = builder.texture()
    for level in range(int(rng.integers(2, 4))):
        z = 0.45 + 0.55 * level + rng.uniform(-0.05, 0.05)
        builder.add(CUBE, (0, back, z), (1.5, 0.25, 0.025), texture=board, texture_size=1.0)
        for x in np.linspace(-1.3, 1.3, int(rng.integers(5, 9))):
            if rng.random() < 0.85:
                _thing(builder, x + rng.uniform(-0.05, 0.05), back + rng.uniform(-0.08, 0.08), z + 0.025, 0.1)
    _clutter(builder, (0, 1.5, 0.01), 0.9, int(rng.integers(2, 6)), 0.2)
