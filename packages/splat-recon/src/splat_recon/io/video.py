"""Videos of rendered frames."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.container
import av.error
import numpy as np
from jaxtyping import UInt8

from splat_recon.errors import InputError

CRF = 18
"""Constant rate factor of the encoder: visually lossless; 0 is lossless, 51 the worst."""


def write_video(path: Path | str, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float = 30.0) -> None:
    """Encode frames as H.264 in 4:2:0, which plays everywhere.

    Args:
        path: The file to write; its ending (.mp4) says the container.
        frames: Frames of one size; taken one by one, so a generator does.
        fps: Frames per second.

    Raises:
        InputError: There is no frame, or the file cannot be written.
        ValueError: The frames differ in size, or `fps` is not positive.
    """
    with VideoFile(path, fps) as video:
        for rgb_u8 in frames:
            video.add(rgb_u8)


class VideoFile:
    """A video that takes frames one by one and appears under its name when the block ends without an error.

    4:2:0 needs even sizes: where the frames' width or height is odd, the last column or row is repeated.

    Raises:
        InputError: There was no frame, or the file cannot be written.
        ValueError: The frames differ in size, or `fps` is not positive.
    """

    def __init__(self, path: Path | str, fps: float = 30.0) -> None:
        if not fps > 0:
            raise ValueError(f"fps must be positive, got {fps}")
        self.path = Path(path)
        self._fps = fps
        self._partial = self.path.with_name(f"{self.path.stem}.partial{self.path.suffix}")
        self._container: av.container.OutputContainer | None = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()
        self._num_frames = 0

    def __enter__(self) -> "VideoFile":
        with self._as_input_error():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._partial), "w")
        return self

    def add(self, rgb_u8: UInt8[np.ndarray, "h w 3"]) -> None:
        """Encode the next frame."""
        assert self._container is not None, "add is called inside the block"
        if not self._num_frames:
            self._shape = rgb_u8.shape
        if rgb_u8.shape != self._shape:
            raise ValueError(
                f"frames must have one size: frame {self._num_frames} is {rgb_u8.shape}, not {self._shape}"
            )
        height, width, _ = rgb_u8.shape
        padded = np.pad(rgb_u8, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        with self._as_input_error():
            if self._stream is None:
                self._stream = _h264(self._container, padded.shape, self._fps)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        self._num_frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._container is not None
        try:
            with self._as_input_error():
                if self._stream is not None and error is None:
                    for packet in self._stream.encode():
                        self._container.mux(packet)
                self._container.close()
                if self._num_frames and error is None:
                    self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)
        if not self._num_frames and error is None:
            raise InputError(f"there are no frames for video {self.path}")

    @contextmanager
    def _as_input_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            raise InputError(f"cannot write video {self.path}: {error}") from None


def _h264(container: av.container.OutputContainer, shape: tuple[int, ...], fps: float) -> Any:
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": str(CRF)}
    return stream
