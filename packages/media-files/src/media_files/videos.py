"""Videos as streams of frames, with PyAV: constant memory; size, time stamps and colors as they were."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from media_files.errors import InputError, TruncatedVideoError
from media_files.video_encoder import DEFAULT_RATE, VideoColors, av_module

TEXT_FORMATS = ("tty", "bin", "xbin", "adf", "idf")
"""What FFmpeg calls texts that it draws as on a terminal."""

VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv", ".ogv",
)  # fmt: skip
"""File endings, in lower case, that count as videos. What a file is, its content decides."""

WRITABLE_VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".m4v")
"""File endings, in lower case, under which videos are written: their containers keep time stamps and colors."""

HD_WIDTH, HD_HEIGHT = 1280, 720
"""A video that does not name its color matrix is taken for BT.709 from this size on, for BT.601 below it."""

BT709, BT601, RGB_MATRIX, UNKNOWN = 1, 5, 0, 2
FULL = 2
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

DISPLAY_MATRIX_ONE = 1 << 16
"""The display matrix holds numbers of 16 bits after the point."""

MISSING_FRAMES = 1.5
"""A video that ends this many frames before its announced time is cut off."""

MISSING_FILE_S = 0.25
"""Where only the file as a whole announces a time, it is cut off if all that it holds ends this much earlier."""

ATTACHED_PICTURE = 0x400
"""FFmpeg's flag of a stream."""

Frame = UInt8[np.ndarray, "h w c=3"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What is known of a video before all of its frames are read. Sizes are those of the upright picture."""

    width: int
    height: int
    stored_size: tuple[int, int]
    """Width and height of the picture before it is turned upright."""
    rate: Fraction
    """Mean frames per second."""
    num_frames: int | None
    """None if the file does not tell."""
    time_base: Fraction
    """Seconds per tick of the time stamps."""
    duration: Fraction | None
    """Seconds until the last picture ends; None if the file does not tell."""
    colors: VideoColors
    pix_fmt: str
    aspect: Fraction | None
    """Width of a pixel by its height, of the upright picture; None means square."""
    num_sounds: int
    """Number of sound tracks."""

    @property
    def hdr(self) -> str | None:
        """PQ or HLG where the video has a high dynamic range, else None."""
        return HDR_TRANSFERS.get(self.colors.transfer)


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A decoded frame whose pixels are converted when they are asked for."""

    pts: int
    """When it appears, in ticks of the video's time base."""
    duration: int
    """For how long, in ticks; 0 if the file does not tell."""
    time_s: float
    """When it appears, in seconds."""
    decoded: Any = field(repr=False)
    """PyAV's frame."""

    def rgb(self) -> Frame:
        """Return RGB bytes, turned upright as the file says."""
        return _upright_rgb(self.decoded)

    def gray(self, size: int) -> UInt8[np.ndarray, "h w"]:
        """Return the brightness as stored, not turned, shrunk to at most this many pixels on the longer side."""
        picture = self.decoded
        scale = min(1.0, size / max(picture.width, picture.height))
        width, height = max(4, round(picture.width * scale)), max(4, round(picture.height * scale))
        return picture.reformat(width=width, height=height, format="gray", interpolation="AREA").to_ndarray()


def read_info(path: Path) -> VideoInfo:
    """Read size, frame rate, number of frames and colors; the first frame is decoded.

    Raises:
        InputError: If the file is absent, damaged, no video, or has no frames.
    """
    av = av_module()
    with open_video(path) as container:
        stream = _video_stream(container, path)
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise InputError(f"{path} is damaged from its first frame on: {error.strerror}") from error
        if first is None:
            raise InputError(f"{path} is a video without frames")
        turned = _is_turned(_display_matrix(first, say=True))
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        aspect = stream.sample_aspect_ratio or None
        rate = stream.average_rate or stream.guessed_rate
        return VideoInfo(
            width=width,
            height=height,
            stored_size=(first.width, first.height),
            rate=Fraction(rate) if rate else DEFAULT_RATE,
            num_frames=stream.frames or None,
            time_base=Fraction(stream.time_base),
            duration=stream.duration * stream.time_base if stream.duration else None,
            colors=_colors(first),
            pix_fmt=first.format.name,
            aspect=None if aspect in (None, 1) else (1 / aspect if turned else aspect),
            num_sounds=len(container.streams.audio),
        )


def read_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames as upright RGB bytes, one at a time.

    Raises:
        InputError: As `read_pictures`.
    """
    for picture in read_pictures(path):
        yield picture.rgb()


def read_timed_frames(path: Path, *, skip: int = 0) -> Iterator[TimedFrame]:
    """Yield the frames with their time stamps, one at a time, turned upright as the file says.

    Args:
        skip: How many frames to leave out at the start.

    Raises:
        InputError: As `read_pictures`.
    """
    for picture in read_pictures(path, skip=skip):
        yield TimedFrame(rgb=picture.rgb(), pts=picture.pts, duration=picture.duration)


def read_pictures(path: Path, *, skip: int = 0) -> Iterator[Picture]:
    """Yield the frames, one at a time, without converting their pixels.

    The moving pictures are those of the file's main video track: covers and thumbnails are no frames.

    Args:
        skip: How many frames to leave out at the start.

    Raises:
        TruncatedVideoError: After the last good frame, if the file is damaged or ends before the time it announces.
        InputError: If the file is absent, damaged, no video, or its pictures change their size.
    """
    av = av_module()
    with open_video(path) as container:
        stream = _video_stream(container, path)
        step = max(round(1 / ((stream.average_rate or DEFAULT_RATE) * stream.time_base)), 1)
        whole = _WholeFile(container, stream)
        number, last, end, corrupt, size = 0, None, None, False, None
        try:
            for packet in container.demux(whole.streams):
                whole.see(packet)
                if packet.stream.index != stream.index:
                    continue
                corrupt = corrupt or packet.is_corrupt
                for decoded in packet.decode():
                    size = size or (decoded.width, decoded.height)
                    if (decoded.width, decoded.height) != size:
                        raise InputError(
                            f"{path} changes its size from {size[0]}x{size[1]} to {decoded.width}x{decoded.height} "
                            f"after frame {number}: convert it to one size"
                        )
                    pts = decoded.pts
                    if pts is None or (last is not None and pts <= last):
                        pts = 0 if last is None else last + (step if pts is None else 1)
                    duration = decoded.duration or 0
                    last, end = pts, pts + (duration or step)
                    number += 1
                    if number > skip:
                        time_s = float(pts * stream.time_base)
                        yield Picture(pts=pts, duration=duration, time_s=time_s, decoded=decoded)
        except av.FFmpegError as error:
            raise TruncatedVideoError(f"{path} is damaged after frame {number}: {error.strerror}") from error
        if number and (corrupt or whole.ends_early() or _ends_early(stream, number, end)):
            announced = f" of {stream.frames}" if stream.frames else ""
            raise TruncatedVideoError(f"{path} is cut off after {number}{announced} frames")


def open_video(path: Path) -> Any:
    """Open a video for reading, as a PyAV container; titles in other encodings than UTF-8 lose letters."""
    av = av_module()
    if not path.is_file():
        raise InputError(f"there is no video: {path} does not exist")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is an empty file")
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except av.EOFError as error:
        raise InputError(f"{path} is a video without frames: it ends after its head") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a video, it may be damaged or of another kind") from error
    if container.format.name in TEXT_FORMATS:
        container.close()
        raise InputError(f"{path} is a text and no video")
    return container


class _WholeFile:
    """Watches how far a file reaches whose video track does not announce its time (Matroska that was cut off)."""

    def __init__(self, container: Any, stream: Any) -> None:
        told = stream.duration or _matroska_duration(stream)
        self._announced = None if told or not container.duration else Fraction(container.duration, 1_000_000)
        self._end = Fraction(0)
        # Sound may last longer than the pictures: all tracks are looked at where the file speaks for all of them.
        self.streams = [stream, *(container.streams.audio if self._announced is not None else ())]

    def see(self, packet: Any) -> None:
        if self._announced is not None and packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self._end = max(self._end, Fraction(end))

    def ends_early(self) -> bool:
        # The announced time may count from zero or from the first picture: the later end is not asked for.
        return self._announced is not None and self._announced - self._end > MISSING_FILE_S


def _video_stream(container: Any, path: Path) -> Any:
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        sound = ", only sound" if container.streams.audio else ""
        raise InputError(f"{path} is a video without frames: it holds no moving pictures{sound}")
    # Cameras add a track of thumbnails: FFmpeg's own choice is the track that plays.
    best = container.streams.best("video")
    stream = next((one for one in streams if best is not None and one.index == best.index), streams[0])
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


def _colors(picture: Any) -> VideoColors:
    colors = VideoColors(
        matrix=int(picture.colorspace),
        full_range=int(picture.color_range) == FULL or picture.format.name.startswith("yuvj"),
        range_tag=int(picture.color_range),
        primaries=int(picture.color_primaries),
        transfer=int(picture.color_trc),
    )
    if kind := HDR_TRANSFERS.get(colors.transfer):
        logger.warning(
            "this video has a high dynamic range (%s): its tones are taken as they are, with 8 bits per color and "
            "without tone mapping, so that its pictures look paler than in a player",
            kind,
        )
    return colors


def _upright_rgb(picture: Any) -> Frame:
    # The coefficients are named here, as the library would take BT.601 wherever a file is silent.
    flags = av_module().video.reformatter.Interpolation
    rgb = picture.reformat(
        format="rgb24",
        src_colorspace=coefficients(int(picture.colorspace), (picture.width, picture.height)),
        dst_color_range=FULL,
        interpolation=flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP,
        threads=1,
    ).to_ndarray()
    return np.ascontiguousarray(_turned(rgb, _display_matrix(picture)))


def coefficients(matrix: int, stored_size: tuple[int, int]) -> int:
    """Return the color matrix to compute with, where a file may name none.

    Args:
        matrix: The file's tag (ITU-T H.273).
        stored_size: Width and height of the stored picture, by which silent files are judged. Wide films have the
            width of high definition without its height.
    """
    if matrix in (RGB_MATRIX, UNKNOWN):
        width, height = stored_size
        return BT709 if width >= HD_WIDTH or height >= HD_HEIGHT else BT601
    return matrix


def _display_matrix(picture: Any, *, say: bool = False) -> tuple[int, int, int, int] | None:
    """Return a, b, c, d of (x', y') = (a x + c y, b x + d y), as -1, 0 or 1; None if the picture stands upright."""
    for data in list(picture.side_data):
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5] / DISPLAY_MATRIX_ONE
            rounded = tuple(round(float(value)) for value in (a, b, c, d))
            if sorted(abs(value) for value in rounded) != [0, 0, 1, 1] or abs(rounded[0]) != abs(rounded[3]):
                if say:
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
