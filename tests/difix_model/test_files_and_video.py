"""Videos as streams."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difix_model.errors import InputError

av = pytest.importorskip("av")

from difix_model.video import VideoWriter, read_frames, read_info  # noqa: E402


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def gradient_frames(count: int, width: int, height: int) -> list[np.ndarray]:
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return [np.roll(ramp, 2 * i, axis=1).astype(np.uint8) for i in range(count)]


def write_video(path: Path, frames: Iterable[np.ndarray], rate: Fraction | int = 24) -> Path:
    with VideoWriter(path, rate=rate) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.mark.parametrize(("width", "height"), [(64, 48), (33, 21)])
def test_videos_keep_size_rate_and_pictures(tmp_path: Path, width: int, height: int) -> None:
    frames = gradient_frames(5, width, height)
    path = write_video(tmp_path / "deep" / "a.mp4", frames, Fraction(24000, 1001))
    info = read_info(path)
    assert (info.width, info.height, info.num_frames) == (width, height, 5)
    assert float(info.rate) == pytest.approx(24000 / 1001, rel=1e-3)
    back = list(read_frames(path))
    assert len(back) == 5
    for frame, expected in zip(back, frames, strict=True):
        assert np.abs(frame.astype(int) - expected.astype(int)).mean() < 4
    assert [item.name for item in path.parent.iterdir()] == ["a.mp4"]


def test_an_interrupted_video_leaves_nothing(tmp_path: Path) -> None:
    frames = gradient_frames(2, 32, 32)
    broken = itertools.chain(frames, (frames[int(1 / number)] for number in [0]))
    with pytest.raises(ZeroDivisionError):
        write_video(tmp_path / "a.mp4", broken, 10)
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(InputError, match="frame 1 is 16x16"):
        write_video(tmp_path / "a.mp4", [frames[0], frames[0][:16, :16]])
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"a\.mp4 cannot be read as a video"):
        read_info(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="does not exist"):
        read_info(tmp_path / "b.mp4")
