"""Videos as streams of frames: size, time stamps, colors, orientation, and files that are none."""

from __future__ import annotations

import itertools
import wave
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from media_files import InputError, TruncatedVideoError

av = pytest.importorskip("av")

from media_files import read_frames, read_info, read_timed_frames  # noqa: E402
from media_files import write_video as write  # noqa: E402


def moving_frames(count: int, width: int, height: int) -> list[np.ndarray]:
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return [np.roll(ramp, 2 * i, axis=1).astype(np.uint8) for i in range(count)]


def write_video(path: Path, frames: Iterable[np.ndarray], rate: Fraction | int = 24) -> Path:
    write(path, frames, rate=rate)
    return path


def color_patches(width: int = 64, height: int = 48) -> np.ndarray:
    """Saturated and pale patches, 16 pixels wide."""
    colors = np.random.default_rng(5).integers(20, 236, (height // 16, width // 16, 3), dtype=np.uint8)
    return colors.repeat(16, axis=0).repeat(16, axis=1)


def coded(rgb: np.ndarray, matrix: int, full_range: bool) -> np.ndarray:
    """The definition in ITU-T H.273: brightness and two color differences as bytes, 3 x h x w."""
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114)}[matrix]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    planes = np.stack([y, (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))])
    scale, offset = ((255, 255, 255), (0, 128, 128)) if full_range else ((219, 224, 224), (16, 128, 128))
    return np.rint(planes * np.reshape(scale, (3, 1, 1)) + np.reshape(offset, (3, 1, 1))).astype(np.uint8)


def write_tagged(path: Path, frame: np.ndarray, *, matrix: int, full_range: bool, tag: bool = True) -> Path:
    """Write a video by another way than the package's own, with its colors coded and named as asked."""
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
def test_colors_are_read_as_the_file_names_them(tmp_path: Path, matrix: int, full_range: bool) -> None:
    patches = color_patches()
    path = write_tagged(tmp_path / "a.mkv", patches, matrix=matrix, full_range=full_range)
    info = read_info(path)
    assert (info.colors.matrix, info.colors.full_range) == (matrix, full_range)
    difference = next(read_frames(path)).astype(int) - patches
    assert np.abs(difference).mean() < 1.5
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.6


def test_silent_files_are_judged_by_their_size(tmp_path: Path) -> None:
    # A film in the format of the cinema has the width of high definition without its height.
    for width, height, matrix in ((64, 48, 5), (64, 720, 1), (1280, 528, 1), (720, 576, 5)):
        patches = color_patches(width, height)
        path = write_tagged(tmp_path / f"{width}x{height}.mkv", patches, matrix=matrix, full_range=False, tag=False)
        assert np.abs(next(read_frames(path)).astype(int) - patches).mean() < 1.5


@pytest.mark.parametrize(("transfer", "kind"), [(16, "PQ"), (18, "HLG"), (1, None)])
def test_high_dynamic_range_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, transfer: int, kind) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.color_trc, stream.codec_context.colorspace = transfer, 9
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(color_patches(32, 32), format="rgb24")))
        container.mux(stream.encode())
    assert read_info(tmp_path / "a.mp4").hdr == kind
    assert ("high dynamic range" in caplog.text) == (kind is not None)


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
    stored = color_patches(64, 32)
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
    Image.fromarray(color_patches()).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.mp4")
    Image.fromarray(color_patches()).save(tmp_path / "photo.jpg")
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
    from media_files.video_encoder import av_module

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


def write_film(path: Path, count: int = 60, *, cover: bool = False, sound: bool = False, options=None) -> Path:
    """A film by another way than the package's own, after a picture of its cover and beside sound that lasts longer."""
    with av.open(str(path), "w", options=options or {}) as container:
        if cover:
            still = container.add_stream("mjpeg", rate=1)
            still.width, still.height, still.pix_fmt = 64, 64, "yuvj420p"
            still.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=30, options={"g": "12", "crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        tones = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        if cover:
            black = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux([*still.encode(black), *still.encode()])
        rng = np.random.default_rng(0)
        for index in range(count):
            noise = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
            if tones is not None:
                samples = rng.normal(0, 0.1, (1, 1024)).astype(np.float32)
                piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                piece.sample_rate = 8000
                container.mux(tones.encode(piece))
        container.mux(stream.encode())
        if tones is not None:
            container.mux(tones.encode())
    return path


def test_a_cover_is_no_frame(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", cover=True)
    assert (read_info(path).width, read_info(path).height) == (96, 64)
    assert len(list(read_frames(path))) == 60


@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mp4", "a.avi"])
def test_cut_copies_are_told_and_whole_ones_are_not(tmp_path: Path, name: str, sound: bool) -> None:
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    source = name.replace("webm", "mkv")
    whole = write_film(tmp_path / source, sound=sound, options=options).rename(tmp_path / name)
    assert len(list(read_frames(whole))) == 60
    cut = tmp_path / f"cut{whole.suffix}"
    content = whole.read_bytes()
    for part in (0.35, 0.6, 0.9):
        cut.write_bytes(content[: int(len(content) * part)])
        seen = []
        with pytest.raises(TruncatedVideoError, match=r"is (cut off|damaged) after"):
            seen.extend(read_frames(cut))
        assert 10 < len(seen) < 60


def test_titles_in_other_encodings_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Gr" + "\u00fc\u00fc" + "n"
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for frame in moving_frames(5, 32, 32):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert content.count("Gr\u00fc\u00fcn".encode()) == 1
    path.write_bytes(content.replace("Gr\u00fc\u00fcn".encode(), b"Gr\xfc\xfc\xe9\xe9n"))
    assert len(list(read_frames(path))) == 5


def test_a_video_that_changes_its_size_is_said(tmp_path: Path) -> None:
    """Two films in one transport stream, as screen recorders and stream rippers write them."""
    parts = []
    for width in (64, 32):
        with av.open(str(tmp_path / f"{width}.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p"
            for frame in moving_frames(5, width, 32):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        parts.append((tmp_path / f"{width}.ts").read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    with pytest.raises(InputError, match="changes its size from 64x32 to 32x32"):
        list(read_frames(tmp_path / "both.ts"))
