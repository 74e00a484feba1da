"""Truncated, mutated, empty and lying image files end in one sentence or as an image: no traceback, no warning."""

from __future__ import annotations

import errno
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from media_files import InputError, image_files, image_size, open_image, save_image

FORMATS = {
    "png": {},
    "jpg": {
        "quality": 90,
        "exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00",
    },
    "webp": {"lossless": True},
    "tif": {"compression": "tiff_lzw"},
    "tiff": {"compression": "jpeg"},
    "bmp": {},
    "avif": {"quality": 90},
}
NUM_MUTATIONS = 60


def encoded(suffix: str, mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    name = {"jpg": "JPEG", "tif": "TIFF", "tiff": "TIFF"}.get(suffix, suffix.upper())
    Image.fromarray(pixels).convert(mode).save(buffer, name, **FORMATS[suffix])
    return buffer.getvalue()


def mutated(content: bytes, seed: int) -> bytes:
    """Cut, overwrite, insert, drop or swap bytes, near the head more often than elsewhere."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    kind = seed % 5
    if kind == 0:
        return bytes(data[: int(rng.integers(0, len(data)))])
    for _ in range(int(rng.integers(1, 12))):
        reach = len(data) if rng.random() < 0.5 else min(len(data), 120)
        place = int(rng.integers(0, reach))
        if kind == 1:
            data[place] = int(rng.integers(0, 256))
        elif kind == 2:
            data[place : place + 4] = struct.pack(">I", int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000])))
        elif kind == 3:
            data[place:place] = rng.integers(0, 256, int(rng.integers(1, 30)), dtype=np.uint8).tobytes()
        else:
            del data[place : place + int(rng.integers(1, 30))]
    return bytes(data)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file that claims a size, with almost nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def outcome(path: Path) -> tuple[str | None, tuple[int, int] | None]:
    """What is said of a file, or its size if it is read."""
    try:
        return None, open_image(path).size
    except InputError as error:
        return str(error), None


@pytest.mark.parametrize("suffix", FORMATS)
def test_mutated_files_are_images_or_one_sentence(
    suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content, path = encoded(suffix), tmp_path / f"a.{suffix}"
    outcomes = {"read": 0, "refused": 0}
    for seed in range(NUM_MUTATIONS):
        path.write_bytes(mutated(content, seed))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            said, size = outcome(path)
        if said is None:
            outcomes["read"] += 1
            assert image_size(path) == size
        else:
            outcomes["refused"] += 1
            assert path.name in said
            assert len(said.splitlines()) == 1
    assert outcomes["refused"] > 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_way_to_cut_a_file_is_told_or_harmless(suffix: str, tmp_path: Path) -> None:
    content, path = encoded(suffix), tmp_path / f"a.{suffix}"
    whole = None
    for end in range(0, len(content) + 1, max(1, len(content) // 40)):
        path.write_bytes(content[:end])
        try:
            image = open_image(path)
        except InputError:
            continue
        whole = np.asarray(image)
    path.write_bytes(content)
    expected = np.asarray(open_image(path))
    # What is read at all is read whole: no file is filled up with gray.
    if whole is not None:
        np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"\x00" * 100, "cannot be read"),
        (b"GIF89a", "cannot be read"),
        (png_of_size(0, 16), "cannot be read|no pixels"),
        (png_of_size(100_000, 100_000), "pixels: cut it"),
        (png_of_size(2**31 - 1, 1), "cannot be read|pixels: cut it"),
    ],
)
def test_files_that_claim_what_they_do_not_hold(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        open_image(path)


def test_large_images_are_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("png"))
    # Pillow warns from here on, and refuses from twice as much on.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 24 - 1)
    assert open_image(path).size == (40, 24)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 24 // 2 - 1)
    with pytest.raises(InputError, match="pixels: cut it"):
        open_image(path)


def test_folders_links_and_forbidden_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "in" / "folder.png").mkdir(parents=True)
    (tmp_path / "in" / "loose.png").symlink_to(tmp_path / "absent.png")
    assert not image_files(tmp_path / "in")
    with pytest.raises(InputError, match="cannot be read"):
        open_image(tmp_path / "in" / "folder.png")
    path = tmp_path / "secret.png"
    path.write_bytes(encoded("png"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match=r"secret\.png cannot be read: Permission denied"):
        open_image(path)


def test_turned_photos_are_upright_and_a_damaged_entry_does_not_lose_the_photo(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 24)).save(path, exif=exif)
    assert open_image(path).size == image_size(path) == (24, 40)
    Image.new("RGB", (40, 24)).save(path, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert open_image(path).size == (40, 24)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Image.Image, path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match=r"cannot write .*a\.png: No space left on device"):
        save_image(tmp_path / "out" / "a.png", Image.new("RGB", (8, 8)))
    assert not list((tmp_path / "out").iterdir())


def test_a_device_that_takes_nothing_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match=r"cannot write .*No space left"):
        save_image(tmp_path / "a.bmp", Image.new("RGB", (8, 8)))
    assert not list(tmp_path.iterdir())
