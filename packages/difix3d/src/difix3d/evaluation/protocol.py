"""What is compared with what: scenes, frames and masks of an evaluation, as data.

Protocols differ by more than methods do, so every score carries its protocol's identity, and scores of different ones
are never put side by side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from difix3d.errors import InputError

BUILT_IN = Path(__file__).with_name("protocols")


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """An evaluation on folders ``<scene>/...``."""

    name: str
    """What it is called."""

    version: int
    """Rises when anything changes that a score depends on."""

    origin: str
    """Where its facts come from."""

    missing: str
    """What of the published evaluation is not public, in a sentence; empty if nothing is."""

    scenes: tuple[str, ...]
    """The scenes' folders; empty: all folders there are."""

    photos: str
    """Folder of the photos in a scene's folder."""

    half_size_photos: str
    """The same for the scenes of half size."""

    half_size_scenes: tuple[str, ...] = ()
    """Scenes that are evaluated at half size."""

    test_names_contain: str | None = None
    """Photos with this in their name are tested on; None: the train ids decide."""

    transforms: str | None = None
    """File in a scene's folder whose frames are counted, for train ids."""

    train_ids: str | None = None
    """File in a scene's folder with the indices of the frames that are trained on, once `dropped` ones are left out."""

    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By scene, base names of frames that do not exist for this evaluation."""

    masks: str | None = None
    """Folder in a scene's folder with masks, named by the place of a photo among the test photos: 00000.png."""

    def photo_folder(self, scene: Path) -> Path:
        """Where a scene's photos are."""
        return scene / (self.half_size_photos if scene.name in self.half_size_scenes else self.photos)

    def test_photos(self, scene: Path) -> list[Path]:
        """The photos that renders of a scene are compared with, sorted by base name."""
        folder = self.photo_folder(scene)
        if self.test_names_contain is not None:
            found = [path for path in _images(folder) if self.test_names_contain in path.name]
        else:
            found = self._not_trained_on(scene, folder)
        if not found:
            raise InputError(f"{folder} holds no photo that {self.name} tests on")
        return sorted(found, key=lambda path: path.name)

    def _not_trained_on(self, scene: Path, folder: Path) -> list[Path]:
        if self.transforms is None or self.train_ids is None:
            return _images(folder)
        frames = [frame["file_path"] for frame in _json(scene / self.transforms)["frames"]]
        dropped = set(self.dropped.get(scene.name, ()))
        kept = [name for name in frames if Path(name).name not in dropped]
        path = scene / self.train_ids
        if not path.is_file():
            raise InputError(f"{path} is absent: {self.missing or 'it says which frames are trained on'}")
        ids = _json(path)
        if not isinstance(ids, list) or not all(isinstance(index, int) and 0 <= index < len(kept) for index in ids):
            raise InputError(f"{path} must list indices below {len(kept)}, the number of frames")
        return [folder / name for index, name in enumerate(kept) if index not in set(ids)]

    def mask(self, scene: Path, photo: Path, place: int) -> Path | None:
        """The mask of a test photo: by its place among them, else by its name; None if there is none."""
        if self.masks is None:
            return None
        named = (scene / self.masks / f"{place:05d}.png", scene / self.masks / f"{photo.stem}.png")
        return next((path for path in named if path.is_file()), None)


def protocol_names() -> list[str]:
    """The protocols that come with the project."""
    return sorted(path.stem.replace("_", "-") for path in BUILT_IN.glob("*.json"))


def load_protocol(name: str) -> Protocol:
    """A protocol by its name, or from a JSON file of the same form."""
    path = Path(name) if name.endswith(".json") else BUILT_IN / f"{name.replace('-', '_')}.json"
    if not path.is_file():
        raise InputError(f"there is no protocol {name}: use {', '.join(protocol_names())}, or a JSON file of that form")
    values = _json(path)
    try:
        values["scenes"] = tuple(values["scenes"])
        values["half_size_scenes"] = tuple(values.get("half_size_scenes", ()))
        values["dropped"] = {scene: tuple(names) for scene, names in values.get("dropped", {}).items()}
        return Protocol(**values)
    except (TypeError, KeyError, AttributeError) as error:
        known = ", ".join(each.name for each in fields(Protocol))
        raise InputError(f"{path} is no protocol ({error}): its fields are {known}") from None


def to_dict(protocol: Protocol) -> dict[str, Any]:
    """Plain values, for JSON."""
    return json.loads(json.dumps(asdict(protocol)))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: expected photos")
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".png", ".jpg", ".jpeg")]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON file: {error}") from None
