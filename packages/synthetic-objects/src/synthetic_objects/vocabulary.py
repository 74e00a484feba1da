"""The words that objects are described by, and what they stand for."""

from typing import Literal, get_args

Shape = Literal["ball", "box", "cylinder", "cone", "ring", "pyramid", "capsule"]
Material = Literal["matte", "shiny", "metal", "striped", "checkered"]
Relation = Literal["on", "next to"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
"""Solids, every one with its axis upward; a ring lies flat."""

MATERIALS: tuple[Material, ...] = get_args(Material)
"""How a surface looks: matte, shiny (a white highlight), metal (darker, a colored highlight), or with a pattern of its
color and a lighter one."""

RELATIONS: tuple[Relation, ...] = get_args(Relation)
"""How the first of two parts stands to the second."""

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.95, 0.50, 0.05),
    "yellow": (0.95, 0.85, 0.10),
    "green": (0.10, 0.65, 0.15),
    "cyan": (0.10, 0.75, 0.80),
    "blue": (0.10, 0.20, 0.85),
    "purple": (0.50, 0.15, 0.70),
    "pink": (0.95, 0.50, 0.70),
    "brown": (0.45, 0.26, 0.12),
    "gray": (0.50, 0.50, 0.50),
    "black": (0.08, 0.08, 0.08),
}
"""Colors as sRGB in [0, 1]. There is no white, which the background is."""
