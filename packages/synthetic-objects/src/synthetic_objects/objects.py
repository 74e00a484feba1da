"""Objects: one or two solids in a unit cube, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, pi, sin, sqrt

import numpy as np

from synthetic_objects.captions import caption_of
from synthetic_objects.errors import InputError
from synthetic_objects.vocabulary import COLORS, MATERIALS, RELATIONS, SHAPES, Relation

HELD_OUT_SEED = 10_000_000
"""Objects from this seed on are kept for tests; trainings draw from those below."""

FILL = 0.45
"""Every object is scaled to fill a ball of this radius around the origin; the canonical cameras see one of 0.47."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One solid of an object, its axis along y, which is up."""

    shape: str
    """Which solid, one of `vocabulary.SHAPES`."""
    color: str
    """A key of `vocabulary.COLORS`."""
    material: str = "matte"
    """How its surface looks, one of `vocabulary.MATERIALS`."""
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Its middle in the world, where y is up."""
    half_extents: tuple[float, float, float] = (FILL, FILL, FILL)
    """Half its size along its own x, y and z; above 0. Of round solids x is the radius; of a ring x is the radius out
    to its rim and y that of its tube."""
    yaw: float = 0.0
    """Its turn about y, in radians."""

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise InputError(f"{self.shape!r} is no shape: take one of {', '.join(SHAPES)}")
        if self.color not in COLORS:
            raise InputError(f"{self.color!r} is no color: take one of {', '.join(COLORS)}")
        if self.material not in MATERIALS:
            raise InputError(f"{self.material!r} is no material: take one of {', '.join(MATERIALS)}")
        if not min(self.half_extents) > 0:
            raise InputError(f"half extents must be above 0, got {self.half_extents}")

    @property
    def reach(self) -> float:
        """Radius of a ball around the center that holds the part."""
        x, y, z = self.half_extents
        if self.shape == "ball":
            return x
        if self.shape in ("box", "pyramid"):
            return sqrt(x * x + y * y + z * z)
        if self.shape == "ring":
            return x
        if self.shape == "capsule":
            return max(x, y)
        return sqrt(x * x + y * y)

    @property
    def extents_world(self) -> tuple[float, float, float]:
        """Half its size along the world's axes."""
        x, y, z = self.half_extents
        if self.shape in ("box", "pyramid"):
            c, s = abs(cos(self.yaw)), abs(sin(self.yaw))
            return c * x + s * z, y, s * x + c * z
        if self.shape == "ball":
            return x, x, x
        return x, max(x, y) if self.shape == "capsule" else y, x


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedObject:
    """One or two parts and what they are called."""

    parts: tuple[Part, ...]
    """The parts; of two, the first is the one that the sentence begins with."""
    relation: Relation | None = None
    """How the first part stands to the second; None for a single part."""
    seed: int | None = None
    """The seed it was drawn from, if it was."""
    caption: str = field(init=False)
    """What it is, as a phrase such as "a red ball on a shiny blue box"."""

    def __post_init__(self) -> None:
        if len(self.parts) not in (1, 2) or (len(self.parts) == 2) != (self.relation is not None):
            raise InputError(f"an object has one part, or two and a relation; got {len(self.parts)} parts")
        object.__setattr__(self, "caption", caption_of(self))

    @property
    def radius(self) -> float:
        """Radius of a ball around the origin that holds the object."""
        return max(float(np.linalg.norm(part.center)) + part.reach for part in self.parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectConfig:
    """Which objects are drawn."""

    two_parts_prob: float = 0.5
    """Probability of an object with two parts, in [0, 1]."""
    shapes: tuple[str, ...] = SHAPES
    """Shapes to draw from."""
    colors: tuple[str, ...] = tuple(COLORS)
    """Colors to draw from."""
    materials: tuple[str, ...] = MATERIALS
    """Materials to draw from; the first is as likely as all others together."""
    largest_yaw_deg: float = 45.0
    """Parts are turned about their axis by up to this many degrees."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Pairs of a color and a shape that no part has, so that they can be asked for as something never seen."""

    def __post_init__(self) -> None:
        if not 0 <= self.two_parts_prob <= 1:
            raise InputError(f"two_parts_prob must be in [0, 1], got {self.two_parts_prob}")
        for name, given, known in (
            ("shapes", self.shapes, SHAPES),
            ("colors", self.colors, tuple(COLORS)),
            ("materials", self.materials, MATERIALS),
        ):
            if not given or set(given) - set(known):
                raise InputError(f"{name} must be some of {', '.join(known)}, got {given}")
        if not 0 <= self.largest_yaw_deg <= 180:
            raise InputError(f"largest_yaw_deg must be in [0, 180], got {self.largest_yaw_deg}")
        if all((color, shape) in self.left_out for color in self.colors for shape in self.shapes):
            raise InputError("left_out holds every pair of the colors and shapes: leave some to draw from")


DEFAULT_CONFIG = ObjectConfig()


def sample_object(seed: int, config: ObjectConfig = DEFAULT_CONFIG) -> GeneratedObject:
    """Draw an object; the same seed and config always give the same one.

    Args:
        seed: At least 0.
        config: What to draw from.

    Raises:
        InputError: The seed is negative.
    """
    if seed < 0:
        raise InputError(f"a seed is at least 0, got {seed}")
    rng = np.random.default_rng([seed, 20261130])
    if rng.random() < config.two_parts_prob:
        relation: Relation = RELATIONS[int(rng.integers(len(RELATIONS)))]
        first, second = _drawn_part(rng, config), _drawn_part(rng, config)
        parts = _arranged(first, second, relation, rng)
    else:
        relation, parts = None, (_drawn_part(rng, config),)  # type: ignore[assignment]
    return GeneratedObject(parts=filled(parts), relation=relation, seed=seed)


def _drawn_part(rng: np.random.Generator, config: ObjectConfig) -> Part:
    shape = config.shapes[int(rng.integers(len(config.shapes)))]
    color = config.colors[int(rng.integers(len(config.colors)))]
    while (color, shape) in config.left_out:
        shape = config.shapes[int(rng.integers(len(config.shapes)))]
        color = config.colors[int(rng.integers(len(config.colors)))]
    material = config.materials[0]
    if len(config.materials) > 1 and rng.random() < 0.5:
        material = config.materials[1 + int(rng.integers(len(config.materials) - 1))]
    width, height, depth = rng.uniform(0.8, 1.2, size=3) * 0.3
    extents = {
        "ball": (width, width, width),
        "box": (width, height, depth),
        "cylinder": (0.8 * width, 1.1 * height, 0.8 * width),
        "cone": (width, 1.2 * height, width),
        "ring": (1.2 * width, 0.3 * height, 1.2 * width),
        "pyramid": (width, height, width),
        "capsule": (0.6 * width, 1.2 * height, 0.6 * width),
    }[shape]
    yaw = float(rng.uniform(-1, 1)) * config.largest_yaw_deg * pi / 180
    return Part(
        shape=shape,
        color=color,
        material=material,
        half_extents=tuple(float(value) for value in extents),  # type: ignore[arg-type]
        yaw=yaw,
    )


def _arranged(first: Part, second: Part, relation: Relation, rng: np.random.Generator) -> tuple[Part, Part]:
    if relation == "on":
        lift = first.extents_world[1] + second.extents_world[1]
        return _moved(first, (0.0, lift, 0.0), 0.8), _moved(second, (0.0, 0.0, 0.0), 1.0)
    side = first.extents_world[0] + second.extents_world[0] + float(rng.uniform(0.02, 0.1))
    direction = float(rng.choice([-1.0, 1.0]))
    shift = first.extents_world[1] - second.extents_world[1]
    # Both stand on the same ground.
    return _moved(first, (direction * side, shift, 0.0), 1.0), _moved(second, (0.0, 0.0, 0.0), 1.0)


def _moved(part: Part, center: tuple[float, float, float], scale: float) -> Part:
    x, y, z = part.half_extents
    drop = (1 - scale) * part.extents_world[1]
    return Part(
        shape=part.shape,
        color=part.color,
        material=part.material,
        center=(center[0], center[1] - drop, center[2]),
        half_extents=(scale * x, scale * y, scale * z),
        yaw=part.yaw,
    )


def filled(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts moved and scaled together so that their box is centered and they fill a ball of radius `FILL`."""
    centers = np.array([part.center for part in parts])
    extents = np.array([part.extents_world for part in parts])
    middle = ((centers - extents).min(axis=0) + (centers + extents).max(axis=0)) / 2
    reach = max(
        float(np.linalg.norm(center - middle)) + part.reach for center, part in zip(centers, parts, strict=True)
    )
    scale = FILL / reach
    return tuple(
        Part(
            shape=part.shape,
            color=part.color,
            material=part.material,
            center=tuple(float(value) for value in (center - middle) * scale),  # type: ignore[arg-type]
            half_extents=tuple(float(value) * scale for value in part.half_extents),  # type: ignore[arg-type]
            yaw=part.yaw,
        )
        for center, part in zip(centers, parts, strict=True)
    )
