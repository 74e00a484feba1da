"""Panoramas that generated scenes take textures and surroundings from: fetched from a package, in the public domain.

The package holds eighteen HDR panoramas of Poly Haven, 512x256. It is fetched with npm, which has to be there, into the
recipe's `--out`; nothing of it is part of this project.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

PACKAGE, VERSION, LICENSE = "@pmndrs/assets", "1.7.0", "CC0-1.0"
SHA256 = "152bd218a3390703f184f0c6ce16e73c8f0a87f32d38530d418a09d33d8208dc"
"""Of the package's tarball."""

HELD_OUT = ("forest", "lobby", "venice", "workshop")
"""Panoramas that no training scene shows."""

TRAIN_FOLDER, HELD_OUT_FOLDER = "panoramas/train", "panoramas/held_out"

MEAN = 0.25
"""The geometric mean of a panorama's luminance is brought to this before its highlights are rolled off."""

WHITE = 4.0
"""What is so bright then becomes white."""

NO_PACKAGE = (
    f"{PACKAGE} {VERSION} could not be fetched with npm: without a network, put pmndrs-assets-{VERSION}.tgz in --out, "
    "give a folder of your own with --panoramas (equirectangular images below train/ and held_out/), or go without, "
    "with --panoramas none"
)


def fetched_panoramas(out: Path) -> Path:
    """Fetch the package where its tarball is not there yet, and write its panoramas as images.

    Args:
        out: Gets the tarball and the folder `panoramas`, whose `train` and `held_out` hold PNG files.

    Returns:
        The folder `panoramas`.

    Raises:
        RuntimeError: The package cannot be fetched, or is not the one that this recipe knows.
        ImportError: OpenEXR is not installed: it comes with the extra `panoramas`.
    """
    folder = out / "panoramas"
    done = folder / f"{VERSION}.txt"
    if done.is_file():
        return folder
    tarball = _tarball(out)
    for name, encoded in _exr_files(tarball):
        image = toned(_pixels(encoded, out))
        path = out / (HELD_OUT_FOLDER if name in HELD_OUT else TRAIN_FOLDER) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 + 0.5).astype(np.uint8)).save(path)
    done.write_text(f"{PACKAGE} {VERSION}, {LICENSE}, sha256 {SHA256}\n", encoding="utf-8")
    return folder


def toned(linear: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """An HDR panorama as a photo: sRGB in [0, 1], exposed for its middle tones, its highlights rolled off.

    What is no number (a sun too bright for half precision) becomes the brightest there is.
    """
    known = np.isfinite(linear) & (linear >= 0)
    linear = np.where(known, linear, linear[known].max())
    luminance = linear.mean(axis=-1)
    exposed = linear * (MEAN / np.exp(np.log(np.maximum(luminance, 1e-4)).mean()))
    rolled_off = exposed * (1 + exposed / WHITE**2) / (1 + exposed)
    return (np.clip(rolled_off, 0, 1) ** (1 / 2.2)).astype(np.float32)


def _tarball(out: Path) -> Path:
    path = out / f"pmndrs-assets-{VERSION}.tgz"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--loglevel", "error", f"{PACKAGE}@{VERSION}", "--pack-destination", str(out)]
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(NO_PACKAGE) from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{path} is not {PACKAGE} {VERSION}: its SHA-256 is {found}. Delete it")
    return path


def _exr_files(tarball: Path) -> list[tuple[str, bytes]]:
    """Names and contents of the panoramas; they are packed as text in JavaScript files."""
    found = []
    with tarfile.open(tarball) as archive:
        for member in archive.getmembers():
            folder, _, name = member.name.rpartition("/")
            if folder == "package/hdri" and name.endswith(".exr.js"):
                file = archive.extractfile(member)
                text = file.read().decode() if file else ""
                encoded = text.partition("base64,")[2].partition("'")[0]
                found.append((name.removesuffix(".exr.js"), base64.b64decode(encoded)))
    return sorted(found)


def _pixels(encoded: bytes, out: Path) -> Float32[np.ndarray, "h w 3"]:
    import OpenEXR  # pyright: ignore[reportMissingImports]

    path = out / "panorama.exr"  # OpenEXR reads files only.
    path.write_bytes(encoded)
    try:
        with OpenEXR.File(str(path)) as file:
            channels: Any = file.channels()
            return channels["RGB"].pixels.astype(np.float32)
    finally:
        path.unlink()
