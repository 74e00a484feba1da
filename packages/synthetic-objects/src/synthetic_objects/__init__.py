"""Objects made of simple solids, with captions, and the pictures that any camera takes of them.

Start with `objects.sample_object`, which makes one from a seed, and `raycast.ray_cast`, which looks at it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthetic_objects.cameras import FOCAL, RADIUS, intrinsics, orbit_pose, orbit_rig
    from synthetic_objects.captions import caption_of, parse_caption
    from synthetic_objects.errors import InputError
    from synthetic_objects.maps import ObjectMaps
    from synthetic_objects.objects import GeneratedObject, ObjectConfig, Part, sample_object
    from synthetic_objects.raycast import ray_cast
    from synthetic_objects.vocabulary import COLORS, MATERIALS, RELATIONS, SHAPES

_SUBMODULES = {
    "COLORS": "vocabulary",
    "FOCAL": "cameras",
    "GeneratedObject": "objects",
    "InputError": "errors",
    "MATERIALS": "vocabulary",
    "ObjectConfig": "objects",
    "ObjectMaps": "maps",
    "Part": "objects",
    "RADIUS": "cameras",
    "RELATIONS": "vocabulary",
    "SHAPES": "vocabulary",
    "caption_of": "captions",
    "intrinsics": "cameras",
    "orbit_pose": "cameras",
    "orbit_rig": "cameras",
    "parse_caption": "captions",
    "ray_cast": "raycast",
    "sample_object": "objects",
}
"""Where each public name lives; it is imported when it is first used."""

__all__ = [
    "COLORS",
    "FOCAL",
    "MATERIALS",
    "RADIUS",
    "RELATIONS",
    "SHAPES",
    "GeneratedObject",
    "InputError",
    "ObjectConfig",
    "ObjectMaps",
    "Part",
    "caption_of",
    "intrinsics",
    "orbit_pose",
    "orbit_rig",
    "parse_caption",
    "ray_cast",
    "sample_object",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
