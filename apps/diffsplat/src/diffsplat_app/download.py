"""`diffsplat download`: published weights into the hub's cache."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from commands import next_line, run_command
from diffsplat import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadSettings:
    """Fetch what a use of a published model needs, once; from then on it is found in the cache, also offline."""

    model: Literal["sd15", "pas", "sd35m"] = "sd15"
    """Which model."""

    image: bool = False
    """The one that also takes an image."""

    control: Literal["depth", "normal", "canny"] | None = None
    """Also a ControlNet, with sd15."""

    elevest: bool = False
    """Also the estimator of elevations."""

    weights_only: bool = False
    """Leave out the base model (text encoders, image VAE, scheduler)."""

    list: bool = False
    """Only say which folders and repositories would be fetched."""


def main(arguments: list[str]) -> int:
    """Fetch, and print where it lies."""
    return run_command(DownloadSettings, _download, arguments, prog="diffsplat download", distribution="diffsplat-app")


def _download(settings: DownloadSettings) -> int:
    for place in downloaded(settings):
        print(place)
    print(f"Next: {next_line(*following(settings))}", file=sys.stderr)
    return 0


def following(settings: DownloadSettings) -> list[str]:
    """The command that fetches what was listed, or that uses what was fetched."""
    if settings.list:
        words = ["diffsplat", "download", "--model", settings.model]
        words += ["--control", settings.control] if settings.control is not None else []
        chosen = {"--image": settings.image, "--elevest": settings.elevest, "--weights-only": settings.weights_only}
        return words + [flag for flag, wanted in chosen.items() if wanted]
    if settings.image or settings.control is not None:
        return ["diffsplat", "generate", "--help"]
    return ["diffsplat", "generate", "--model", settings.model, "--prompt", "a wooden chair", "--out", "generated"]


def downloaded(settings: DownloadSettings) -> list[str | Path]:
    """Where everything lies, or with `list` what would be fetched."""
    from diffsplat.checkpoints import HUB_ID, PUBLISHED, tags_needed
    from diffsplat.hub import BASE_FILES, repository_folder, tag_files

    if settings.control is not None and (settings.model != "sd15" or settings.image):
        raise InputError("ControlNets are published for sd15 with a text only: leave out --image, or take sd15")
    spec = PUBLISHED[settings.model]
    tags = tags_needed(settings.model, image=settings.image, control=settings.control, elevest=settings.elevest)
    bases = [] if settings.weights_only else [name for name in (spec.base, spec.vae) if name is not None]
    if settings.list:
        return [*(f"{HUB_ID}/{tag}" for tag in tags), *bases]
    places: list[str | Path] = [repository_folder(HUB_ID, tag_files(tags))]
    return places + [repository_folder(name, BASE_FILES) for name in bases]
