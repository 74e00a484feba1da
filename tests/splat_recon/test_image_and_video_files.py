import av
import numpy as np
import pytest
from PIL import Image

from splat_recon.errors import InputError
from splat_recon.io.images import list_photos, read_mask, read_photo, write_mask, write_photo
from splat_recon.io.video import write_video


def noise(height=6, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def test_png_photos_round_trip_and_jpeg_comes_close(tmp_path):
    rgb_u8 = np.repeat(np.repeat(noise(), 8, axis=0), 8, axis=1)
    write_photo(tmp_path / "deep" / "a.png", rgb_u8)
    np.testing.assert_array_equal(read_photo(tmp_path / "deep" / "a.png")[0], rgb_u8)
    write_photo(tmp_path / "a.jpg", rgb_u8)
    assert np.abs(read_photo(tmp_path / "a.jpg")[0].astype(int) - rgb_u8).mean() < 6


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA"])
def test_all_kinds_of_photos_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(noise()).convert(mode).save(path)
    rgb_u8, mask = read_photo(path)
    assert rgb_u8.shape == (6, 8, 3)
    assert rgb_u8.dtype == np.uint8
    assert mask is None


def test_16_bit_photos_keep_their_range(tmp_path):
    grey = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    rgb_u8, _ = read_photo(tmp_path / "a.png")
    np.testing.assert_allclose(rgb_u8[..., 0], grey / 257, atol=0.5)


def test_masks_round_trip(tmp_path):
    mask = noise()[..., 0] > 100
    write_mask(tmp_path / "a.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)


def test_photos_are_listed_with_their_folders(tmp_path):
    for name in ("b.png", "a/c.JPG", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert list_photos(tmp_path) == ["a/c.JPG", "b.png"]
    with pytest.raises(InputError, match="no folder"):
        list_photos(tmp_path / "none")


def test_unknown_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot write image"):
        write_photo(tmp_path / "a.nonsense", noise())


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_a_video_has_the_frames_at_an_even_size(tmp_path, size):
    height, width = size
    frames = [np.full((height, width, 3), 20 * index, np.uint8) for index in range(9)]
    write_video(tmp_path / "out" / "a.mp4", iter(frames), fps=23.976)
    with av.open(str(tmp_path / "out" / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate is not None
        assert float(stream.average_rate) == pytest.approx(23.976, rel=1e-3)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == len(frames)
    for frame, original in zip(decoded, frames, strict=True):
        assert frame.shape == (height + height % 2, width + width % 2, 3)
        assert abs(frame.mean() - original.mean()) < 4
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4"]


def test_wrong_videos_are_refused(tmp_path):
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="one size"):
        write_video(tmp_path / "a.mp4", [noise(32, 32), noise(32, 34)])
    with pytest.raises(ValueError, match="fps"):
        write_video(tmp_path / "a.mp4", [noise(32, 32)], fps=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write video"):
        write_video(tmp_path / "file" / "a.mp4", [noise(32, 32)])
    assert not list(tmp_path.glob("*.mp4"))
