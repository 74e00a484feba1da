"""Where a scene's photos lie: the folder, smaller copies of it, and files under other endings."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from media_files import image_size
from media_files.photos import PHOTO_SUFFIXES
from splat_recon.errors import InputError
from splat_recon.io.images import list_photos
from splat_recon.io.photo_names import PhotoNames, bare, folded, unclear

IMAGES = "images"
"""The folder of the photos in a scene folder."""

MASK_SUFFIXES = (".png", *sorted(set(PHOTO_SUFFIXES) - {".png"}))
"""File endings of masks, the most likely first."""

_log = logging.getLogger(__name__)


class ImageFolder:
    """A folder of photos, listed once."""

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path = path
        self.names = frozenset(names)
        self._known = PhotoNames(folder=path, names=self.names)
        self._candidates: dict[str, list[str]] = {}

    def candidates(self, name: str) -> list[str]:
        """The files that a name may mean, relative to the folder; see `PhotoNames.candidates`."""
        if name not in self._candidates:
            self._candidates[name] = self._known.candidates(name)
        return self._candidates[name]

    def file(self, name: str) -> Path | None:
        """The file of a photo; None where there is none, or more than one that it may be."""
        found = self.candidates(name)
        return self.path / found[0] if len(found) == 1 else None

    def problem(self, name: str) -> str:
        """What to say of a photo that has no file."""
        return unclear(name, self.candidates(name), self.path)

    def lacking(self, names: Sequence[str]) -> list[str]:
        """Those photos that are not here."""
        return [name for name in names if self.file(name) is None]


def listed(folder: Path) -> ImageFolder:
    """A folder and what is in it."""
    return ImageFolder(folder, list_photos(folder))


def choose_images(
    scene: Path, sizes: Mapping[str, tuple[int, int]], images: str, max_size: int | None
) -> ImageFolder | None:
    """The folder to read photos from.

    Args:
        sizes: Size of each photo's camera, by the photo's name.
        images: Folder inside the scene folder, or ``auto``: ``images``, or the smallest complete ``images_N`` whose
            photos still fill `max_size`; where there is no ``images``, the largest complete ``images_N``, else whatever
            folder has all photos.

    Returns:
        The folder; None where there is none.
    """
    if images != "auto":
        return listed(scene / images) if (scene / images).is_dir() else None
    full = listed(scene / IMAGES) if (scene / IMAGES).is_dir() else None
    if max_size is None and full is not None:
        return full
    copies = [listed(path) for path in _smaller_copies(scene)]
    complete = [copy for copy in copies if not _says_lacking(copy, sizes)]
    if full is None:
        if complete:
            _log.warning("%s has no folder images: %s is read", scene, complete[0].path.name)
        return complete[0] if complete else _under_another_name(scene, sizes)
    for copy in reversed(complete):
        if max_size is not None and _fills(copy, sizes, max_size):
            _log.info("%s is read, the smallest copies that fill %d pixels", copy.path, max_size)
            return copy
    return full


def _under_another_name(scene: Path, sizes: Mapping[str, tuple[int, int]]) -> ImageFolder | None:
    """The folder in a scene folder that has all photos, or the scene folder itself, as some programs export it."""
    for path in (scene, *sorted(path for path in scene.iterdir() if path.is_dir())):
        found = listed(path)
        if sizes and not found.lacking(list(sizes)):
            _log.info("%s has no folder images: the photos in %s are read", scene, path)
            return found
    return None


def _smaller_copies(scene: Path) -> list[Path]:
    """The folders ``images_2``, ``images_4``, ..., from large to small photos."""
    found = [path for path in scene.glob(f"{IMAGES}_*") if path.is_dir() and path.name.split("_")[-1].isdigit()]
    return sorted(found, key=lambda path: int(path.name.split("_")[-1]))


def _says_lacking(copy: ImageFolder, sizes: Mapping[str, tuple[int, int]]) -> bool:
    lacking = copy.lacking(list(sizes))
    if lacking:
        _log.warning("%s lacks %d of %d photos (%s): it is not used", copy.path, len(lacking), len(sizes), lacking[0])
    return bool(lacking)


def _fills(copy: ImageFolder, sizes: Mapping[str, tuple[int, int]], max_size: int) -> bool:
    for name, camera_size in sizes.items():
        path = copy.file(name)
        try:
            if path is None or max(image_size(path)) < min(max_size, max(camera_size)):
                return False
        except InputError:
            return False
    return True


def find_mask(scene: Path, images: Path, name: str) -> Path | None:
    """A photo's mask: ``masks/a.jpg.png``, ``masks/a.png``, ``masks/a.jpg``; for ``images_N`` first in ``masks_N``.

    Where there is none of these names, other endings of images count as well, and upper and lower case, and the
    Unicode forms of a letter, are the same.
    """
    # A name that leads out of its folder would lead back to the photo itself.
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        name = PurePosixPath(name).name
    folders = [images.name.replace(IMAGES, "masks", 1)] if images.name.startswith(IMAGES) else []
    for folder in dict.fromkeys([*folders, "masks"]):
        masks = scene / folder
        for path in (masks / f"{name}.png", masks / f"{bare(name)}.png", masks / name):
            if path.is_file():
                return path
        place = (masks / name).parent
        if not place.is_dir():
            continue
        alike = {folded(path.name): path for path in sorted(place.iterdir(), reverse=True) if path.is_file()}
        full = PurePosixPath(name).name
        for wanted in (f"{own}{suffix}" for own in (full, bare(full)) for suffix in MASK_SUFFIXES):
            if found := alike.get(folded(wanted)):
                return found
    return None


def say_masks(scene: Path, num_masks: int, num_photos: int) -> None:
    """Tell the log how many photos have a mask file; none at all although there is a folder is a warning."""
    if not (scene / "masks").is_dir():
        return
    if num_masks == 0:
        _log.warning(
            "%s belongs to none of the photos: masks are named like the photos (a.jpg: a.jpg.png or a.png)",
            scene / "masks",
        )
    else:
        _log.info("%d of %d photos have a mask", num_masks, num_photos)
