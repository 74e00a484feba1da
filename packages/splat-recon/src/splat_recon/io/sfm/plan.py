"""What the photos say about how to match and map them."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import ExifTags, Image

from media_files import read_photo
from splat_recon.errors import InputError
from splat_recon.io.sfm.config import SfmConfig

LARGEST_GAP = 3
"""Names count up where nearly all numbers are at most this much larger than the one before."""


@dataclass(frozen=True, kw_only=True)
class PhotoFacts:
    """What decides which photos share a camera."""

    size: tuple[int, int]
    """Width and height as stored."""

    lens: str
    """Maker, model, lens and focal length from the EXIF data; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Decisions and their reasons."""

    groups: tuple[tuple[str, ...], ...]
    """Names of the photos that share a camera; one name per group where none do."""

    matching: str
    """exhaustive or sequential."""

    mapping: str
    """incremental or global: what is tried first."""

    reasons: Mapping[str, str]
    """Why, for `cameras`, `matching` and `mapping`."""


def photo_facts(images: Path, names: Sequence[str], problems: list[str]) -> dict[str, PhotoFacts]:
    """Look at all photos; those that are broken are problems."""
    facts = {}
    for name in names:
        try:
            height, width, _ = read_photo(images / name)[0].shape
        except InputError as error:
            problems.append(str(error))
        else:
            facts[name] = PhotoFacts(size=(width, height), lens=_lens(images / name))
    return facts


def _lens(path: Path) -> str:
    base = ExifTags.Base
    try:
        with Image.open(path) as photo:
            exif = photo.getexif()
            details = exif.get_ifd(ExifTags.IFD.Exif)
            parts = [exif.get(base.Make), exif.get(base.Model), details.get(base.LensModel)]
            parts += [details.get(base.FocalLength), details.get(base.FocalLengthIn35mmFilm)]
            return " ".join(str(part).strip("\0 ") for part in parts if part)
    except Exception:
        # Damaged EXIF data brings Pillow to raise anything, such as struct.error; the pixels are whole.
        return ""


def make_plan(facts: Mapping[str, PhotoFacts], config: SfmConfig, *, is_video: bool) -> Plan:
    """Decide.

    Args:
        config: What is left to decide is `auto` there.
        is_video: The photos are frames of a video.

    Raises:
        InputError: One camera is to be shared by photos of several sizes.
    """
    names = sorted(facts)
    groups, cameras = _groups(facts, names, config)
    matching, why_matching = _matching(names, config, is_video=is_video)
    mapping, why_mapping = config.mapping, "as told"
    if mapping == "auto":
        few = len(names) <= config.incremental_limit
        mapping = "incremental" if few else "global"
        why_mapping = f"{len(names)} photos are {'at most' if few else 'more than'} {config.incremental_limit}"
    reasons = {"cameras": cameras, "matching": why_matching, "mapping": why_mapping}
    return Plan(groups=groups, matching=matching, mapping=mapping, reasons=reasons)


def _groups(
    facts: Mapping[str, PhotoFacts], names: Sequence[str], config: SfmConfig
) -> tuple[tuple[tuple[str, ...], ...], str]:
    if config.camera_mode == "per-image":
        return tuple((name,) for name in names), "each photo its own, as told"
    by_facts: dict[tuple, list[str]] = {}
    for name in names:
        key = (facts[name].size,) if config.camera_mode == "shared" else (facts[name].size, facts[name].lens)
        by_facts.setdefault(key, []).append(name)
    if config.camera_mode == "shared" and len(by_facts) > 1:
        found = ", ".join(
            f"{width}x{height} ({group[0]})" for ((width, height), *_), group in list(by_facts.items())[:4]
        )
        raise InputError(f"photos of one shared camera must have one size, these have {found}: let each have its own")
    groups = tuple(tuple(group) for group in by_facts.values())
    why = "all photos share one" if len(groups) == 1 else f"{len(groups)}, by size and EXIF data"
    return groups, f"{why}{', as told' if config.camera_mode == 'shared' else ''}"


def _matching(names: Sequence[str], config: SfmConfig, *, is_video: bool) -> tuple[str, str]:
    if config.matching != "auto":
        return config.matching, "as told"
    ordered = is_video or counts_up(names)
    limit = config.ordered_limit if ordered else config.exhaustive_limit
    what = "frames of a video" if is_video else "photos whose names count up" if ordered else "photos without order"
    if len(names) <= limit:
        return "exhaustive", f"{len(names)} {what}, at most {limit}"
    if ordered:
        return "sequential", f"{len(names)} {what}, more than {limit}"
    num_pairs = len(names) * (len(names) - 1) // 2
    return "exhaustive", f"{len(names)} {what}: all {num_pairs} pairs, which takes long"


def counts_up(names: Sequence[str]) -> bool:
    """Whether the photos, sorted by name, are numbered one after the other: an order of taking, as cameras write it."""
    parts = [re.fullmatch(r"(.*?)(\d+)", PurePosixPath(name).with_suffix("").as_posix()) for name in sorted(names)]
    if len(parts) < 2 or any(part is None for part in parts):
        return False
    prefixes = {part[1] for part in parts if part}
    numbers = [int(part[2]) for part in parts if part]
    gaps = [after - before for before, after in itertools.pairwise(numbers)]
    return len(prefixes) == 1 and sum(0 < gap <= LARGEST_GAP for gap in gaps) >= 0.9 * len(gaps)
