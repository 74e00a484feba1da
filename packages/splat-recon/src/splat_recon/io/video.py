"""Videos of rendered frames."""

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

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

    4:2:0 needs even sizes: where the frames' width or height is odd, the last column or row is repeated.

    Args:
        path: The file to write; its ending (.mp4) says the container.
        frames: Frames of one size; taken one by one, so a generator does.
        fps: Frames per second.

    Raises:
        InputError: There is no frame, or the file cannot be written.
        ValueError: The frames differ in size, or `fps` is not positive.
    """
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    path = Path(path)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with av.open(str(partial), "w") as container:
                num_frames = _encode(container, frames, fps)
            if num_frames:
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(f"cannot write video {path}: {error}") from None
    if not num_frames:
        raise InputError(f"there are no frames for video {path}")


def _encode(container: av.container.OutputContainer, frames: Iterable[np.ndarray], fps: float) -> int:
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        return 0
    height, width, _ = first.shape
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
    stream.height, stream.width = height + height % 2, width + width % 2
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": str(CRF)}
    num_frames = 0
    for rgb_u8 in itertools.chain([first], iterator):
        if rgb_u8.shape != first.shape:
            raise ValueError(f"frames must have one size: frame {num_frames} is {rgb_u8.shape}, not {first.shape}")
        padded = np.pad(rgb_u8, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")):
            container.mux(packet)
        num_frames += 1
    for packet in stream.encode():
        container.mux(packet)
    return num_frames
