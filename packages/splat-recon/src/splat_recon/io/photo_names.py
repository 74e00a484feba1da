"""Which file a photo's name means: names come from other disks, systems, alphabets and programs."""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from colmap_models.names import decoded, is_text, shown
from media_files.photos import PHOTO_SUFFIXES, RAW_SUFFIXES, image_files

_ENDINGS = frozenset((*PHOTO_SUFFIXES, *RAW_SUFFIXES))


def folded(name: str) -> str:
    """The same for names that differ in upper and lower case or in Unicode's forms of a letter only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def bare(name: str) -> str:
    """A name without the ending of a photo: a dot in it makes no ending, as in 1305.125."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in _ENDINGS else name


@dataclass(frozen=True, kw_only=True)
class PhotoNames:
    """The photos in a folder, by all that their names may be called."""

    folder: Path
    names: frozenset[str]
    """Their names, relative to the folder, with ``/``."""

    _by_key: Mapping[str, list[str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_key: dict[str, list[str]] = {}
        for name in sorted(self.names):
            for key in dict.fromkeys((folded(name), f"{folded(bare(name))}.*")):
                by_key.setdefault(key, []).append(name)
        object.__setattr__(self, "_by_key", by_key)

    def candidates(self, name: str) -> list[str]:
        """The files that a name may mean: one where it is clear, none where there is none.

        The first rule that finds a file counts: the name itself; with slashes for backslashes; in another case or
        Unicode form; in another encoding; with another ending, or with one where it has none; and of a foreign path
        its last parts.
        """
        if self._is_here(name):
            return [name]
        for spelled in self._spellings(name):
            if self._is_here(spelled):
                return [spelled]
            if found := self._by_key.get(folded(spelled)):
                return found
        for spelled in self._spellings(name):
            # A photo beside one of another ending is no copy of it, if the model has both.
            found = self._by_key.get(f"{folded(bare(spelled))}.*") or self._by_key.get(f"{folded(spelled)}.*")
            if found := found or self._outside(spelled):
                return found
        for spelled in self._spellings(name):
            if found := self._by_last_parts(spelled):
                return found
        return []

    def _is_here(self, name: str) -> bool:
        return name in self.names or (bool(name) and "\0" not in name and _is_file(self.folder / name))

    def _spellings(self, name: str) -> list[str]:
        texts = [name] if is_text(name) else [name, *decoded(name)]
        return list(dict.fromkeys(slashed for text in texts for slashed in (text, text.replace("\\", "/"))))

    def _outside(self, name: str) -> list[str]:
        """Photos under another ending, where a name leads out of the folder."""
        place = self.folder / name
        if not (place.is_absolute() and PurePosixPath(name).is_absolute()) and ".." not in PurePosixPath(name).parts:
            return []
        try:
            beside = image_files(place.parent) if place.parent.is_dir() else []
        except (OSError, ValueError):
            return []
        wanted = (folded(place.name), folded(bare(place.name)))
        folder = PurePosixPath(name).parent
        return [(folder / path.name).as_posix() for path in beside if folded(bare(path.name)) in wanted]

    def _by_last_parts(self, name: str) -> list[str]:
        """Photos here whose path is the end of a longer one, of another disk."""
        parts = PurePosixPath(name).parts
        for start in range(1, len(parts)):
            end = "/".join(parts[start:])
            found = self._by_key.get(folded(end)) or self._by_key.get(f"{folded(bare(end))}.*")
            if found:
                return found
        return []


def unclear(name: str, candidates: Iterable[str], folder: Path) -> str:
    """What to say of a name that may mean several photos, or none."""
    several = [shown(candidate) for candidate in candidates]
    if not several:
        text = "" if is_text(name) else ", whose name in the model is no UTF-8,"
        return f"photo {folder / shown(name)}{text} is missing"
    listed = " or ".join(several[:4]) + (" or others" if len(several) > 4 else "")
    return f"photo {shown(name)} may be {listed} in {folder}: rename or remove all but one"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
