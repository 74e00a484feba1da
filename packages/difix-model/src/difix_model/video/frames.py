"""Videos as streams of frames, with PyAV: constant memory; size, time stamps and colours as they were."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from difix_model.errors import InputError
from difix_model.video.encoder import DEFAULT_RATE, FrameEncoder, PictureFormat, VideoColours, av_module

HD_SIDE = 720
"""A video that does not name its colour matrix is taken for BT.709 from this height on, for BT.601 below it."""

BT709, BT601, RGB_MATRIX, UNKNOWN = 1, 5, 0, 2
FULL = 2
HDR_TRANSFERS = (16, 18)
"""PQ and HLG."""

DISPLAY_MATRIX_ONE = 1 << 16
"""The display matrix holds numbers of 16 bits after the point."""

MISSING_FRAMES = 1.5
"""A video that ends this many frames before its announced time is cut off."""

ATTACHED_PICTURE = 0x400
"""FFmpeg's flag of a stream."""

Frame = UInt8[np.ndarray, "h w c=3"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What is known of a video before all of its frames are read. Sizes are those of the upright picture."""

    width: int
    height: int
    stored_height: int
    """Of the picture before it is turned upright."""
    rate: Fraction
    """Mean frames per second."""
    num_frames: int | None
    """None if the file does not tell."""
    time_base: Fraction
    """Seconds per tick of the time stamps."""
    duration: Fraction | None
    """Seconds until the last picture ends; None if the file does not tell."""
    colours: VideoColours
    pix_fmt: str
    aspect: Fraction | None
    """Width of a pixel by its height, of the upright picture; None means square."""
    num_sounds: int
    """Number of sound tracks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedFrame:
    """A frame and when it is shown."""

    rgb: Frame
    pts: int
    """When it appears, in ticks of the video's time base."""
    duration: int
    """For how long, in ticks; 0 if the file does not tell."""
    alpha: UInt8[np.ndarray, "h w 1"] | None = None
    """Opacity, of an image that has one; videos have none."""


def read_info(path: Path) -> VideoInfo:
    """Read size, frame rate, number of frames and colours; the first frame is decoded.

    Raises:
        InputError: If the file is absent, damaged, no video, or has no frames.
    """
    av = av_module()
    with _opened(path) as container:
        stream = _video_stream(container, path)
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise InputError(f"{path} is damaged from its first frame on: {error.strerror}") from error
        if first is None:
            raise InputError(f"{path} is a video without frames")
        turned = _is_turned(_display_matrix(first))
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        aspect = stream.sample_aspect_ratio or None
        rate = stream.average_rate or stream.guessed_rate
        return VideoInfo(
            width=width,
            height=height,
            stored_height=first.height,
            rate=Fraction(rate) if rate else DEFAULT_RATE,
            num_frames=stream.frames or None,
            time_base=Fraction(stream.time_base),
            duration=stream.duration * stream.time_base if stream.duration else None,
            colours=_colours(first),
            pix_fmt=first.format.name,
            aspect=None if aspect in (None, 1) else (1 / aspect if turned else aspect),
            num_sounds=len(container.streams.audio),
        )


def read_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames as upright RGB bytes, one at a time.

    Raises:
        InputError: If the file is absent, damaged, or no video.
    """
    for frame in read_timed_frames(path):
        yield frame.rgb


def read_timed_frames(path: Path, *, skip: int = 0) -> Iterator[TimedFrame]:
    """Yield the frames with their time stamps, one at a time, turned upright as the file says.

    Args:
        path: The video.
        skip: How many frames to leave out at the start.

    Raises:
        InputError: If the file is absent, damaged, no video, or ends before the time that it announces.
    """
    av = av_module()
    with _opened(path) as container:
        stream = _video_stream(container, path)
        step = max(round(1 / ((stream.average_rate or DEFAULT_RATE) * stream.time_base)), 1)
        number, last, end, corrupt = 0, None, None, False
        try:
            for packet in container.demux(stream):
                corrupt = corrupt or packet.is_corrupt
                for picture in packet.decode():
                    pts = picture.pts
                    if pts is None or (last is not None and pts <= last):
                        pts = 0 if last is None else last + (step if pts is None else 1)
                    duration = picture.duration or 0
                    last, end = pts, pts + (duration or step)
                    number += 1
                    if number > skip:
                        yield TimedFrame(rgb=_upright_rgb(picture), pts=pts, duration=duration)
        except av.FFmpegError as error:
            raise InputError(f"{path} is damaged after frame {number}: {error.strerror}") from error
        if number and (corrupt or _ends_early(stream, number, end)):
            announced = f" of {stream.frames}" if stream.frames else ""
            raise InputError(f"{path} is cut off after {number}{announced} frames")


class VideoWriter:
    """Writes frames as they come; the file appears at its place when the `with` block ends without an error."""

    def __init__(self, path: Path, *, rate: Fraction | float) -> None:
        """Prepare for writing; folders are created.

        Args:
            path: Where to; the suffix decides the container.
            rate: Frames per second.

        Raises:
            InputError: If the file cannot be written.
        """
        av = av_module()
        self.path = path
        self.rate = Fraction(rate).limit_denominator(100_000)
        self.num_frames = 0
        self._partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
        self._encoder: FrameEncoder | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._partial), "w")
        except (OSError, ValueError, av.FFmpegError) as error:
            raise InputError(f"cannot write {path}: {error}") from error

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: Frame) -> None:
        """Append a frame of RGB bytes. Frames of odd size are stored without colour subsampling.

        Raises:
            InputError: If its size differs from the first one's, or the file cannot be written.
        """
        av = av_module()
        try:
            if self._encoder is None:
                kind = PictureFormat.for_new_video(self.path, frame.shape[1], frame.shape[0], self.rate)
                self._encoder = FrameEncoder(self._container, kind)
            self._encoder.write(frame, self.num_frames, 1)
        except (OSError, av.FFmpegError) as error:
            raise InputError(f"cannot write {self.path}: {error}") from error
        self.num_frames += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        av = av_module()
        try:
            if kind is None and self._encoder is None:
                raise InputError(f"there are no frames to write to {self.path}")
            if self._encoder is not None:
                self._encoder.flush()
            self._container.close()
            if kind is None:
                self._partial.replace(self.path)
        except (OSError, av.FFmpegError) as failure:
            if kind is None:
                raise InputError(f"cannot write {self.path}: {failure}") from failure
        finally:
            self._container.close()
            self._partial.unlink(missing_ok=True)


def open_video(path: Path) -> Any:
    """Open a video for reading, as a PyAV container.

    Raises:
        InputError: If the file is absent or damaged.
    """
    return _opened(path)


def _opened(path: Path) -> Any:
    av = av_module()
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is an empty file")
    try:
        return av.open(str(path), metadata_errors="ignore")
    except av.EOFError as error:
        raise InputError(f"{path} is a video without frames: it ends after its head") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a video, it may be damaged or of another kind") from error


def _video_stream(container: Any, path: Path) -> Any:
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        sound = ", only sound" if container.streams.audio else ""
        raise InputError(f"{path} is a video without frames: it holds no moving pictures{sound}")
    stream = streams[0]
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise InputError(f"{path} is an image, whatever its name says: give it the suffix of its kind")
    if not stream.codec_context:
        raise InputError(f"{path} is coded in a way that this installation cannot read")
    stream.thread_type = "AUTO"
    return stream


def _is_cover(stream: Any) -> bool:
    """Whether a stream is the picture on the cover of a sound file."""
    return bool(int(stream.disposition) & ATTACHED_PICTURE)


def _ends_early(stream: Any, number: int, end: int | None) -> bool:
    """Whether the pictures end before the announced time, and fewer came than announced, if there is a number."""
    duration = stream.duration or _matroska_duration(stream)
    if not duration or end is None or (stream.frames and number >= stream.frames):
        return False
    missing = (stream.start_time or 0) + duration - end
    return missing * (stream.average_rate or DEFAULT_RATE) * stream.time_base > MISSING_FRAMES


def _matroska_duration(stream: Any) -> int | None:
    """Return a Matroska track's duration in ticks: it stands among the titles."""
    told = next((value for key, value in stream.metadata.items() if key.upper().startswith("DURATION")), None)
    try:
        hours, minutes, seconds = (told or "").split(":")
        total = 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
    except ValueError:
        return None
    # This is when the last picture ends, counted from zero and not from the first picture.
    return int(total / stream.time_base) - (stream.start_time or 0)


def _colours(picture: Any) -> VideoColours:
    colours = VideoColours(
        matrix=int(picture.colorspace),
        full_range=int(picture.color_range) == FULL or picture.format.name.startswith("yuvj"),
        range_tag=int(picture.color_range),
        primaries=int(picture.color_primaries),
        transfer=int(picture.color_trc),
    )
    if colours.transfer in HDR_TRANSFERS:
        logger.warning("this video has a high dynamic range: it is fixed and written with 8 bits per colour")
    return colours


def _upright_rgb(picture: Any) -> Frame:
    # The coefficients are named here, as the library would take BT.601 wherever a file is silent.
    flags = av_module().video.reformatter.Interpolation
    rgb = picture.reformat(
        format="rgb24",
        src_colorspace=coefficients(int(picture.colorspace), picture.height),
        dst_color_range=FULL,
        interpolation=flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP,
        threads=1,
    ).to_ndarray()
    return np.ascontiguousarray(_turned(rgb, _display_matrix(picture)))


def coefficients(matrix: int, height: int) -> int:
    """Return the colour matrix to compute with, where a file may name none.

    Args:
        matrix: The file's tag (ITU-T H.273).
        height: Of the stored picture, by which silent files are judged.
    """
    if matrix in (RGB_MATRIX, UNKNOWN):
        return BT709 if height >= HD_SIDE else BT601
    return matrix


def _display_matrix(picture: Any) -> tuple[int, int, int, int] | None:
    """Return a, b, c, d of (x', y') = (a x + c y, b x + d y), as -1, 0 or 1; None if the picture stands upright."""
    for data in list(picture.side_data):
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5] / DISPLAY_MATRIX_ONE
            rounded = tuple(round(float(value)) for value in (a, b, c, d))
            if sorted(abs(value) for value in rounded) != [0, 0, 1, 1] or abs(rounded[0]) != abs(rounded[3]):
                logger.warning("this video is turned by an angle that is no quarter turn: it is left as stored")
                return None
            return None if rounded == (1, 0, 0, 1) else rounded  # type: ignore[return-value]
    return None


def _is_turned(matrix: tuple[int, int, int, int] | None) -> bool:
    return matrix is not None and matrix[0] == 0


def _turned(rgb: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    if matrix is None:
        return rgb
    a, b, c, d = matrix
    x_sign, y_sign = (c, b) if _is_turned(matrix) else (a, d)
    upright = rgb.transpose(1, 0, 2) if _is_turned(matrix) else rgb
    return upright[::y_sign, ::x_sign]
