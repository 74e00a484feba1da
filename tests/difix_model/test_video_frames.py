"""Videos as streams of frames: size, time stamps, colours, orientation, and files that are none."""

from __future__ import annotations

import itertools
import wave
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difix_model.errors import InputError

av = pytest.importorskip("av")

from difix_model.video.frames import VideoWriter, read_frames, read_info, read_timed_frames  # noqa: E402


def moving_frames(count: int, width: int, height: int) -> list[np.ndarray]:
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return [np.roll(ramp, 2 * i, axis=1).astype(np.uint8) for i in range(count)]


def write_video(path: Path, frames: Iterable[np.ndarray], rate: Fraction | int = 24) -> Path:
    with VideoWriter(path, rate=rate) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def colour_patches(width: int = 64, height: int = 48) -> np.ndarray:
    """Saturated and pale patches, 16 pixels wide."""
    colours = np.random.default_rng(5).integers(20, 236, (height // 16, width // 16, 3), dtype=np.uint8)
    return colours.repeat(16, axis=0).repeat(16, axis=1)


def coded(rgb: np.ndarray, matrix: int, full_range: bool) -> np.ndarray:
    """The definition in ITU-T H.273: brightness and two colour differences as bytes, 3 x h x w."""
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114)}[matrix]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    planes = np.stack([y, (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))])
    scale, offset = ((255, 255, 255), (0, 128, 128)) if full_range else ((219, 224, 224), (16, 128, 128))
    return np.rint(planes * np.reshape(scale, (3, 1, 1)) + np.reshape(offset, (3, 1, 1))).astype(np.uint8)


def write_tagged(path: Path, frame: np.ndarray, *, matrix: int, full_range: bool, tag: bool = True) -> Path:
    """Write a video by another way than the package's own, with its colours coded and named as asked."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "yuv444p"
        if tag:
            stream.codec_context.colorspace = matrix
            stream.codec_context.color_range = 2 if full_range else 1
        picture = av.VideoFrame.from_ndarray(coded(frame, matrix, full_range), format="yuv444p", channel_last=False)
        for i in range(3):
            picture.pts = i
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("width", "height"), [(64, 48), (33, 21)])
def test_videos_keep_size_rate_and_pictures(tmp_path: Path, width: int, height: int) -> None:
    frames = moving_frames(5, width, height)
    path = write_video(tmp_path / "deep" / "a.mp4", frames, Fraction(24000, 1001))
    info = read_info(path)
    assert (info.width, info.height, info.num_frames) == (width, height, 5)
    assert info.rate == Fraction(24000, 1001)
    back = list(read_frames(path))
    assert len(back) == 5
    for frame, expected in zip(back, frames, strict=True):
        assert np.abs(frame.astype(int) - expected.astype(int)).mean() < 2
    assert [item.name for item in path.parent.iterdir()] == ["a.mp4"]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    frames = moving_frames(2, 32, 32)
    broken = itertools.chain(frames, (frames[int(1 / number)] for number in [0]))
    with pytest.raises(ZeroDivisionError):
        write_video(tmp_path / "a.mp4", broken, 10)
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(InputError, match="frame 1 is 16x16"):
        write_video(tmp_path / "a.mp4", [frames[0], frames[0][:16, :16]])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("matrix", [1, 5, 6])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_are_read_as_the_file_names_them(tmp_path: Path, matrix: int, full_range: bool) -> None:
    patches = colour_patches()
    path = write_tagged(tmp_path / "a.mkv", patches, matrix=matrix, full_range=full_range)
    info = read_info(path)
    assert (info.colours.matrix, info.colours.full_range) == (matrix, full_range)
    difference = next(read_frames(path)).astype(int) - patches
    assert np.abs(difference).mean() < 1.5
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.6


def test_silent_files_are_judged_by_their_height(tmp_path: Path) -> None:
    for height, matrix in ((48, 5), (720, 1)):
        patches = colour_patches(64, height)
        path = write_tagged(tmp_path / f"{height}.mkv", patches, matrix=matrix, full_range=False, tag=False)
        assert np.abs(next(read_frames(path)).astype(int) - patches).mean() < 1.5


def with_orientation(source: Path, path: Path, degrees: float, *, hflip: bool = False) -> Path:
    """Copy a video and say how it is to be turned."""
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.set_display_rotation(degrees, hflip=hflip)
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("degrees", "hflip", "upright"),
    [
        (0, False, lambda stored: stored),
        (90, False, lambda stored: np.rot90(stored, 1)),
        (-90, False, lambda stored: np.rot90(stored, -1)),
        (180, False, lambda stored: np.rot90(stored, 2)),
        (0, True, lambda stored: stored[:, ::-1]),
    ],
)
def test_pictures_are_turned_upright(tmp_path: Path, degrees: float, hflip: bool, upright) -> None:
    stored = colour_patches(64, 32)
    stored[:16, :16] = 255
    path = write_tagged(tmp_path / "stored.mp4", stored, matrix=1, full_range=False)
    turned = with_orientation(path, tmp_path / "turned.mp4", degrees, hflip=hflip)
    expected = upright(stored)
    info = read_info(turned)
    assert (info.height, info.width) == expected.shape[:2]
    assert np.abs(next(read_frames(turned)).astype(int) - expected).mean() < 2


def test_time_stamps_of_uneven_frames_are_read(tmp_path: Path) -> None:
    pts: Sequence[int] = [0, 40, 80, 280, 300, 700]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, when in zip(moving_frames(len(pts), 32, 32), pts, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = when, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    time_base = read_info(tmp_path / "a.mkv").time_base
    assert [frame.pts * time_base * 1000 for frame in read_timed_frames(tmp_path / "a.mkv")] == pts
    assert [frame.pts * time_base * 1000 for frame in read_timed_frames(tmp_path / "a.mkv", skip=4)] == pts[4:]


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    (tmp_path / "empty.mp4").touch()
    Image.fromarray(colour_patches()).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.mp4")
    Image.fromarray(colour_patches()).save(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").rename(tmp_path / "photo.mp4")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    (tmp_path / "sound.wav").rename(tmp_path / "sound.mp4")
    refused = {
        "a.mp4": "cannot be read as a video",
        "b.mp4": "does not exist",
        "empty.mp4": "is an empty file",
        "image.mp4": "is an image",
        "photo.mp4": "is an image",
        "sound.mp4": "no moving pictures, only sound",
    }
    for name, words in refused.items():
        with pytest.raises(InputError, match=words) as refusal:
            read_info(tmp_path / name)
        assert name in str(refusal.value)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_without_frames_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"head{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()
    with pytest.raises(InputError, match=f"head{suffix} is a video without frames"):
        read_info(path)


def test_a_file_that_ends_early_says_after_which_frame(tmp_path: Path) -> None:
    from difix_model.video.encoder import av_module

    frames = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8) for i in range(30)]
    whole = write_video(tmp_path / "whole.mp4", frames)
    with av_module().open(str(whole)) as given:
        first = tmp_path / "first.mp4"
        # The table of contents goes first, so that a cut file can be opened.
        with av_module().open(str(first), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream_from_template(given.streams.video[0])
            for packet in given.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
    assert len(list(read_frames(first))) == 30
    first.write_bytes(first.read_bytes()[: int(first.stat().st_size * 0.6)])
    seen = []
    with pytest.raises(InputError, match=r"first\.mp4 is (cut off|damaged) after") as refusal:
        seen.extend(read_frames(first))
    assert 5 < len(seen) < 30
    assert str(len(seen)) in str(refusal.value)
