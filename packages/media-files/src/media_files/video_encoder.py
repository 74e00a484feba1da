"""Frames into coded pictures: codec, time stamps and colors of a video that is written."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from media_files.errors import InputError

H264_OPTIONS = {"crf": "16", "preset": "medium", "bf": "0"}
"""x264's constant rate factor: visually lossless. Without B-frames packets stand in the order of their time stamps, so
that pieces written apart can be joined."""

VP9_OPTIONS = {
    "crf": "18",
    "b": "0",
    "deadline": "good",
    "cpu-used": "5",
    "row-mt": "1",
    "auto-alt-ref": "0",
    "lag-in-frames": "0",
}
"""The same for WebM, which takes no H.264."""

DEFAULT_RATE = Fraction(30)
"""Frames per second of a video or sequence that does not tell."""

BT709, LIMITED, FULL = 1, 1, 2

RED_AND_BLUE = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
"""Shares of red and blue in the brightness, by color matrix (ITU-T H.273); others are those of BT.601."""

BT601_RED_AND_BLUE = (0.299, 0.114)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoColors:
    """How a video's numbers stand for colors: the tags of ITU-T H.273, kept as they are in the result."""

    matrix: int
    full_range: bool
    range_tag: int
    primaries: int
    transfer: int

    @classmethod
    def for_new_video(cls) -> "VideoColors":
        """Return BT.709 in the limited range, what players expect."""
        return cls(matrix=BT709, full_range=False, range_tag=LIMITED, primaries=BT709, transfer=BT709)


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFormat:
    """All that an encoder must know."""

    width: int
    height: int
    codec: str
    pix_fmt: str
    rate: Fraction
    """Frames per second, in the mean."""
    time_base: Fraction
    """Seconds per tick."""
    colors: VideoColors
    matrix: int
    """The matrix to compute with: that of `colors`, or the one its silence stands for."""
    aspect: Fraction | None = None

    @classmethod
    def for_new_video(cls, path: Path, width: int, height: int, rate: Fraction) -> "PictureFormat":
        """Return the format of a video that no other video stands behind; a tick is a frame."""
        return cls(
            width=width,
            height=height,
            codec=codec_for(path),
            pix_fmt=pixel_format(width, height),
            rate=rate,
            time_base=1 / rate,
            colors=VideoColors.for_new_video(),
            matrix=BT709,
        )


def codec_for(path: Path) -> str:
    """Return the codec that goes into a file of this name."""
    return "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"


def pixel_format(width: int, height: int, source: str = "yuv420p") -> str:
    """Return how finely color is stored: as in the source, and without subsampling where a side is odd."""
    if width % 2 or height % 2 or "444" in source or source.startswith(("gbr", "rgb", "bgr")):
        return "yuv444p"
    return "yuv422p" if "422" in source else "yuv420p"


class FrameEncoder:
    """Encodes RGB frames into a stream of an open container."""

    def __init__(self, container: Any, kind: PictureFormat) -> None:
        """Add the stream; nothing is written before the first frame."""
        av = av_module()
        self.kind = kind
        self._container = container
        self._num_frames = 0
        options = H264_OPTIONS if kind.codec == "libx264" else VP9_OPTIONS
        self._stream = container.add_stream(kind.codec, rate=kind.rate, options=dict(options))
        self._stream.width, self._stream.height = kind.width, kind.height
        self._stream.pix_fmt = kind.pix_fmt
        self._stream.time_base = kind.time_base
        context = self._stream.codec_context
        context.time_base = kind.time_base
        context.colorspace, context.color_range = kind.colors.matrix or BT709, kind.colors.range_tag
        context.color_primaries, context.color_trc = kind.colors.primaries, kind.colors.transfer
        if kind.aspect is not None:
            context.sample_aspect_ratio = kind.aspect
        context.flags |= av.codec.context.Flags.global_header

    def write(self, rgb: UInt8[np.ndarray, "h w c=3"], pts: int, duration: int) -> None:
        """Append a frame.

        Args:
            rgb: Bytes, upright.
            pts: When it appears, in ticks; greater than the last one's.
            duration: For how long, in ticks; 0 if unknown.

        Raises:
            InputError: If its size differs from the first one's.
        """
        height, width = rgb.shape[:2]
        if (width, height) != (self.kind.width, self.kind.height):
            raise InputError(
                f"frame {self._num_frames} is {width}x{height}, the first {self.kind.width}x{self.kind.height}"
            )
        picture = self._picture(rgb)
        picture.pts, picture.time_base, picture.duration = pts, self.kind.time_base, duration
        self._container.mux(self._stream.encode(picture))
        self._num_frames += 1

    def _picture(self, rgb: np.ndarray) -> Any:
        av = av_module()
        flags = av.video.reformatter.Interpolation
        full = self.kind.colors.full_range
        if full:
            # The library rounds colors down in this direction, half a level in the mean; only it may subsample them.
            picture = av.VideoFrame.from_ndarray(
                _full_range_planes(rgb, self.kind.matrix), format="yuv444p", channel_last=False
            )
            picture.colorspace, picture.color_range = self.kind.matrix, FULL
        else:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        return picture.reformat(
            format=self.kind.pix_fmt,
            src_color_range=FULL,
            dst_colorspace=self.kind.matrix,
            dst_color_range=FULL if full else LIMITED,
            interpolation=flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP,
            threads=1,
        )

    def flush(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode())


def av_module() -> Any:
    """Return PyAV."""
    try:
        import av
    except ImportError as error:
        raise InputError("videos need PyAV: install media-files[video]") from error
    return av


def _full_range_planes(rgb: np.ndarray, matrix: int) -> np.ndarray:
    """Return brightness and color differences as bytes of the full range, 3 x h x w."""
    red, blue = RED_AND_BLUE.get(matrix, BT601_RED_AND_BLUE)
    r, g, b = (rgb[..., channel].astype(np.float32) for channel in range(3))
    y = red * r + (1 - red - blue) * g + blue * b
    planes = np.stack([y, (b - y) / (2 * (1 - blue)) + 128, (r - y) / (2 * (1 - red)) + 128])
    return np.rint(planes).clip(0, 255).astype(np.uint8)
