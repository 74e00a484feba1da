"""A video that is written frame by frame, and appears when it is complete."""

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from media_files.errors import InputError
from media_files.video_encoder import FrameEncoder, PictureFormat, av_module
from media_files.videos import Frame


def write_video(path: Path, frames: Iterable[Frame], *, rate: Fraction | float = 30, even: bool = False) -> None:
    """Write frames of one size, taken one by one; arguments and errors are those of `VideoWriter`.

    Raises:
        InputError: Also if there are no frames.
    """
    with VideoWriter(path, rate=rate, even=even) as writer:
        for frame in frames:
            writer.write(frame)


class VideoWriter:
    """Writes frames as they come; the file appears at its place when the `with` block ends without an error."""

    def __init__(self, path: Path, *, rate: Fraction | float, even: bool = False) -> None:
        """Prepare for writing; folders are created.

        Args:
            path: Where to; the suffix decides the container.
            rate: Frames per second.
            even: Repeat the last column or row of frames of odd size, so that the video plays everywhere. Otherwise
                they keep their size and are stored without color subsampling, which some players cannot show.

        Raises:
            ValueError: If the rate is not positive.
        """
        av = av_module()
        if not rate > 0:
            raise ValueError(f"the frame rate must be positive, got {rate}")
        self._even = even
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
        """Append a frame of RGB bytes.

        Raises:
            InputError: If its size differs from the first one's, or the file cannot be written.
        """
        av = av_module()
        if self._even:
            height, width, _ = frame.shape
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
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
