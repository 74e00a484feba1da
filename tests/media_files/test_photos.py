"""Photos of every kind: tones, masks, listing, names of what is no photo."""

import logging
import struct
import threading
import warnings
import zlib
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image, features

from media_files import InputError, image_files, image_size, mask_plane, open_image, read_mask, read_photo, save_image
from media_files.photos import image_orientation


def noise(height=6, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def half(width=8, height=6):
    """Valid on the left."""
    return np.repeat((np.arange(width) < width // 2)[None], height, axis=0)


def test_png_photos_round_trip_and_jpeg_comes_close(tmp_path):
    rgb_u8 = np.repeat(np.repeat(noise(), 8, axis=0), 8, axis=1)
    save_image(tmp_path / "deep" / "a.png", Image.fromarray(rgb_u8))
    np.testing.assert_array_equal(read_photo(tmp_path / "deep" / "a.png")[0], rgb_u8)
    save_image(tmp_path / "a.jpg", Image.fromarray(rgb_u8))
    assert np.abs(read_photo(tmp_path / "a.jpg")[0].astype(int) - rgb_u8).mean() < 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "deep"]


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA"])
def test_all_kinds_of_photos_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(noise()).convert(mode).save(path)
    rgb_u8, mask = read_photo(path)
    assert rgb_u8.shape == (6, 8, 3)
    assert rgb_u8.dtype == np.uint8
    assert mask is None


def test_lab_photos_become_rgb(tmp_path):
    lab = np.zeros((4, 4, 3), np.uint8)
    lab[..., 0], lab[..., 1:] = 255, 0
    Image.frombytes("LAB", (4, 4), lab.tobytes()).save(tmp_path / "a.tif")
    assert read_photo(tmp_path / "a.tif")[0].min() >= 254


RAMP = np.linspace(0.2, 1, 48).reshape(6, 8)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.png", (RAMP * 65535).astype(np.uint16)),
        ("a.tif", (RAMP * 65535).astype(np.uint16)),
        ("a.tif", (RAMP * 65535).astype(np.int32)),
        ("a.tif", RAMP.astype(np.float32)),
    ],
)
def test_deep_grayscale_keeps_its_tones(tmp_path, name, values):
    Image.fromarray(values).save(tmp_path / name)
    rgb_u8, mask = read_photo(tmp_path / name)
    np.testing.assert_allclose(rgb_u8, np.repeat((RAMP * 255)[..., None], 3, axis=2), atol=0.51)
    assert mask is None


def tiff(path, values, sample_format, samples=1):
    """A TIFF file of numbers that Pillow itself does not write."""
    height, width = values.shape[:2]
    bits, tags = values.dtype.itemsize * 8, []
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    photometric = 2 if samples == 3 else 1
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
        (277, 3, samples), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format),
    ]  # fmt: skip
    for tag, kind, value in entries:
        count = samples if tag in (258, 339) and samples > 1 else 1
        if count > 1:
            # Three shorts do not fit into the entry: they lie behind the directory.
            tags.append(
                struct.pack("<HHII", tag, 3, count, 8 + len(data) + 2 + 12 * len(entries) + 4 + (tag == 339) * 6)
            )
        else:
            tags.append(struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value))
    extra = struct.pack("<3H", *[bits] * 3) + struct.pack("<3H", *[sample_format] * 3)
    directory = struct.pack("<H", len(entries)) + b"".join(tags) + struct.pack("<I", 0) + extra
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)


def test_unsigned_integers_of_32_bits_use_their_range(tmp_path):
    tiff(tmp_path / "a.tif", (RAMP * (2**32 - 1)).astype(np.uint32), 1)
    np.testing.assert_allclose(read_photo(tmp_path / "a.tif")[0][..., 0], RAMP * 255, atol=0.51)


@pytest.mark.parametrize(
    ("values", "sample_format", "words"),
    [
        (RAMP.astype(np.float32) * 255, 3, "floats from 51 to 255"),
        (np.full((6, 8), np.nan, np.float32), 3, "not finite"),
        ((RAMP * 1e6).astype(np.uint32), 1, "fill neither 16 nor 32 bits"),
        ((RAMP * 1e6 - 5e5).astype(np.int32), 2, "integers from -300000"),
    ],
)
def test_numbers_without_a_known_range_are_refused(tmp_path, values, sample_format, words):
    tiff(tmp_path / "a.tif", values, sample_format)
    with pytest.raises(InputError, match=words) as refusal:
        read_photo(tmp_path / "a.tif")
    assert "a.tif" in str(refusal.value)


def test_colors_of_32_bits_are_said(tmp_path):
    tiff(tmp_path / "a.tif", np.repeat(RAMP[..., None], 3, axis=2).astype(np.float32), 3, samples=3)
    with pytest.raises(InputError, match=r"a\.tif cannot be read as an image: it is a TIFF .* colors of 32 bits"):
        read_photo(tmp_path / "a.tif")


def test_8_bits_in_a_file_of_16_are_said(tmp_path, caplog):
    Image.fromarray((RAMP * 255).astype(np.uint16)).save(tmp_path / "a.png")
    read_photo(tmp_path / "a.png")
    assert "nearly black" in caplog.text


def test_float_tones_are_written_as_16_bits(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "a.tif")
    save_image(tmp_path / "b.png", open_image(tmp_path / "a.tif"))
    written = np.asarray(open_image(tmp_path / "b.png"))
    assert written.dtype == np.uint16
    np.testing.assert_allclose(written, RAMP * 65535, atol=1)
    save_image(tmp_path / "b.jpg", open_image(tmp_path / "a.tif"))
    assert np.abs(read_photo(tmp_path / "b.jpg")[0][..., 0] - RAMP * 255).mean() < 4


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(half().astype(np.uint8) * 255),
        Image.fromarray(half().astype(np.uint8)),
        Image.fromarray(half()),
        Image.fromarray(half().astype(np.uint16)),
        Image.fromarray(half().astype(np.uint16) * 255),
        Image.fromarray(half().astype(np.uint16) * 65535),
        Image.merge("LA", [Image.new("L", (8, 6), 255), Image.fromarray(half().astype(np.uint8) * 255)]),
        Image.merge("LA", [Image.new("L", (8, 6), 0), Image.fromarray(half().astype(np.uint8) * 255)]),
        Image.merge("LA", [Image.new("L", (8, 6), 255), Image.fromarray(half().astype(np.uint8))]),
        Image.merge("LA", [Image.fromarray(half().astype(np.uint8) * 255), Image.new("L", (8, 6), 255)]),
        Image.merge("LA", [Image.fromarray(half().astype(np.uint8) * 255), Image.new("L", (8, 6), 0)]),
        Image.fromarray(noise()).convert("RGBA"),
    ],
    ids=["white", "ones", "bits", "ones16", "white8of16", "white16", "alpha", "alpha-on-black", "alpha-of-ones",
         "opaque", "clear", "cut-out"],
)  # fmt: skip
def test_masks_are_read_as_they_are_saved(tmp_path, image):
    if image.mode == "RGBA":
        image.putalpha(Image.fromarray(half().astype(np.uint8) * 255))
    save_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), half())


@pytest.mark.parametrize("values", [half().astype(np.float32), half().astype(np.float32) * 255])
def test_float_masks_are_read(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), half())


def test_a_mask_of_labels_is_said(tmp_path):
    Image.fromarray(half().astype(np.uint8) * 3).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="its largest value is 3 of 255"):
        read_mask(tmp_path / "a.png")
    Image.new("L", (8, 6)).save(tmp_path / "black.png")
    assert not read_mask(tmp_path / "black.png").any()


def test_soft_masks_keep_their_tones():
    np.testing.assert_allclose(mask_plane(Image.fromarray(np.array([[0, 51, 255]], np.uint8))), [[0, 0.2, 1]])


def test_photos_are_listed_with_their_folders_and_hidden_ones_are_not(tmp_path):
    names = ("b.png", "a/c.JPG", "notes.txt", "._b.png", ".thumbnails/b.png", "d.HEIC", "e.avif")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path, recursive=True)]
    assert found == ["a/c.JPG", "b.png", "d.HEIC", "e.avif"]
    assert [path.name for path in image_files(tmp_path)] == ["b.png", "d.HEIC", "e.avif"]


def test_photos_in_a_hidden_place_are_listed(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.png").touch()
    assert len(image_files(tmp_path / ".cache")) == 1


def test_unknown_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        save_image(tmp_path / "a.nonsense", Image.fromarray(noise()))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_whatever_its_name_says(tmp_path):
    Image.fromarray(np.full((16, 16, 3), 120, np.uint8)).save(tmp_path / "a.avif")
    (tmp_path / "a.avif").rename(tmp_path / "a.jpg")
    assert np.abs(read_photo(tmp_path / "a.jpg")[0].astype(int) - 120).max() < 4


def test_heic_is_read_or_named(tmp_path):
    (tmp_path / "a.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic")
    with pytest.raises(InputError, match=r"a\.heic cannot be read as an image") as refusal:
        read_photo(tmp_path / "a.heic")
    if find_spec("pillow_heif") is None:
        assert "HEIC photo; install media-files[heic]" in str(refusal.value)
        return
    pillow_heif = import_module("pillow_heif")
    pillow_heif.from_pillow(Image.fromarray(np.full((64, 64, 3), 120, np.uint8))).save(tmp_path / "b.heic")
    assert np.abs(read_photo(tmp_path / "b.heic")[0].astype(int) - 120).max() < 4


def test_orientations_are_read_and_applied_when_asked(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(24, 40)).save(tmp_path / "a.png", exif=exif)
    assert image_orientation(tmp_path / "a.png") == 6
    assert image_size(tmp_path / "a.png", upright=False) == (40, 24)
    assert read_photo(tmp_path / "a.png")[0].shape == (24, 40, 3)
    np.testing.assert_array_equal(
        read_photo(tmp_path / "a.png", upright=True)[0], np.rot90(read_photo(tmp_path / "a.png")[0], -1)
    )


def test_warnings_of_decoders_go_to_the_log_from_every_thread(tmp_path, monkeypatch, caplog):
    """Python's warning filters belong to the process: readers in threads must leave them as they were."""
    Image.fromarray(noise(24, 40)).save(tmp_path / "a.png")
    # Pillow warns from here on.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 24 - 1)
    caplog.set_level(logging.INFO)
    before, failures = list(warnings.filters), []

    def read():
        try:
            for _ in range(30):
                read_photo(tmp_path / "a.png")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert warnings.filters == before
    assert caplog.text.count("DecompressionBomb") + caplog.text.count("exceeds limit") >= 120


def test_a_photo_of_text_chunks_that_swell_is_refused(tmp_path):
    """A compressed comment of a gigabyte in a PNG of a few bytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    comment = b"Comment\0\0" + zlib.compress(bytes(80 << 20), 9)
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(2)))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"zTXt", comment) + pixels + chunk(b"IEND", b"")
    )
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image"):
        read_photo(tmp_path / "a.png")
