"""Videos as streams of frames, with PyAV: constant memory, size and frame rate kept. Sound is not carried over."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from difix_model.errors import InputError

CODEC = "libx264"
QUALITY = "16"
"""x264's constant rate factor: visually lossless."""

DEFAULT_RATE = Fraction(30)
"""Frames per second of a video that does not tell."""

Frame = UInt8[np.ndarray, "h w c=3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What is known of a video before its frames are read."""

    width: int
    height: int
    rate: Fraction
    """Frames per second."""
    num_frames: int | None
    """None if the file does not tell."""


def read_info(path: Path) -> VideoInfo:
    """Read size, frame rate and number of frames.

    Raises:
        InputError: If the file is absent, damaged, or no video.
    """
    with _opened(path) as container:
        stream = _video_stream(container, path)
        return VideoInfo(
            width=stream.width,
            height=stream.height,
            rate=Fraction(stream.average_rate) if stream.average_rate else DEFAULT_RATE,
            num_frames=stream.frames or None,
        )


def read_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames as RGB bytes, one at a time.

    Raises:
        InputError: If the file is absent, damaged, or no video.
    """
    av = _av()
    with _opened(path) as container:
        stream = _video_stream(container, path)
        try:
            for frame in container.decode(stream):
                yield frame.to_ndarray(format="rgb24")
        except av.FFmpegError as error:
            raise InputError(f"{path} is damaged: {error}") from error


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
        av = _av()
        self.path = path
        self.rate = Fraction(rate).limit_denominator(100_000)
        self.num_frames = 0
        self._partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
        self._stream: Any = None
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
        av = _av()
        height, width = frame.shape[:2]
        if self._stream is None:
            self._stream = self._container.add_stream(CODEC, rate=self.rate, options={"crf": QUALITY})
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        elif (width, height) != (self._stream.width, self._stream.height):
            raise InputError(
                f"frame {self.num_frames} is {width}x{height}, the first {self._stream.width}x{self._stream.height}"
            )
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        try:
            self._container.mux(self._stream.encode(picture))
        except (OSError, av.FFmpegError) as error:
            raise InputError(f"cannot write {self.path}: {error}") from error
        self.num_frames += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        av = _av()
        try:
            if kind is None and self._stream is None:
                raise InputError(f"there are no frames to write to {self.path}")
            if self._stream is not None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None:
                self._partial.replace(self.path)
        except (OSError, av.FFmpegError) as failure:
            if kind is None:
                raise InputError(f"cannot write {self.path}: {failure}") from failure
        finally:
            self._container.close()
            self._partial.unlink(missing_ok=True)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError("videos need PyAV: install difix-model[video]") from error
    return av


def _opened(path: Path) -> Any:
    av = _av()
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path} cannot be read as a video, it may be damaged or of another kind") from error


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise InputError(f"{path} holds no pictures")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream
