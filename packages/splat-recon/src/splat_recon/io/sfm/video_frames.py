"""Frames of a video worth reconstructing from: sharp ones, a fair step of motion apart."""

import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64
from PIL import Image

from media_files.errors import TruncatedVideoError
from media_files.photos import save_image
from media_files.videos import Picture, VideoInfo, read_info, read_pictures
from splat_recon.errors import InputError

SHARPNESS_SIZE = 640
"""Sharpness is judged on frames of this many pixels on their longer side."""

MOTION_SIZE = 320
"""Motion is measured on frames of this many pixels on their longer side."""

BLOCK = 64
"""Side of the squares, in pixels at `MOTION_SIZE`, whose displacement is measured; half of it is the limit."""

NEW_REFERENCE = 0.04
"""Motion is measured against a fixed frame until it exceeds this part of the longer side; then against a newer one."""

BAND = 0.08
"""Standard deviation of the spatial frequencies that are compared, in cycles per pixel: blur leaves these alone."""

CORRELATED = 0.3
"""A block whose phase correlation has no peak of this height, of 1, has not been found again; unrelated pictures have
peaks of 0.2 to 0.3."""

MOVING_FRACTION = 75
"""Percentile of the blocks' displacements that counts: what the camera circles around stands still in the middle."""

MIN_FRAMES = 24
"""Where the motion of a whole video is less than so many steps, the steps are made smaller."""

STANDSTILL = 0.01
"""A video whose picture moves by less than this part of its longer side shows one place only."""

CENTRAL = 0.35
"""The sharpest frame is looked for within this part of a step around the middle of the step."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoMotion:
    """What one look at all frames of a video tells, an entry per frame."""

    time_s: Float64[np.ndarray, " n"]
    """When the frame is shown, in seconds."""

    sharpness: Float64[np.ndarray, " n"]
    """Variance of the Laplacian of the gray frame; comparable within a video only."""

    path: Float64[np.ndarray, " n"]
    """How far the picture has moved since the first frame, in parts of its longer side, never decreasing."""


def pick_frames(motion: VideoMotion, *, step: float, max_frames: int, fps: float | None = None) -> list[int]:
    """The frames to take, in their order: in each step of motion the sharpest one near the middle of the step.

    Args:
        step: Motion between two frames, in parts of the longer side; widened where there would be too many frames,
            narrowed where there would be fewer than 24.
        max_frames: Most frames to take.
        fps: Steps of time instead, this many per second; frames before which nothing moved are still left out.
    """
    if fps is None:
        moved = float(motion.path[-1])
        num_steps = min(max(moved / step, MIN_FRAMES), max_frames)
        position, length = motion.path, max(moved, STANDSTILL) / num_steps
    else:
        position = motion.time_s - motion.time_s[0]
        length = max(1 / fps, float(position[-1]) / max_frames)
    # The last frame ends the last step instead of beginning another one.
    steps = np.minimum(np.floor(position / length), np.ceil(position[-1] / length - 1e-9) - 1).clip(0).astype(int)
    picked: list[int] = []
    for number in np.unique(steps):
        inside = np.flatnonzero(steps == number)
        central = inside[np.abs(position[inside] / length - number - 0.5) <= CENTRAL]
        best = max(central if len(central) else inside, key=lambda index: motion.sharpness[index])
        # Frames of one place add nothing, however much time passes between them.
        if not picked or fps is None or motion.path[best] - motion.path[picked[-1]] > step / 25:
            picked.append(int(best))
    return picked


def measure_motion(video: Path) -> VideoMotion:
    """Decode a video and measure it frame by frame."""
    time_s, sharpness, path = [], [], []
    reference, before, at_reference = None, None, 0.0
    _say_unusual(video, read_info(video))
    for picture in _readable(video):
        sharpness.append(_sharpness(picture.gray(SHARPNESS_SIZE).astype(np.float32)))
        small = picture.gray(MOTION_SIZE).astype(np.float32)
        reference = small if reference is None else reference
        moved = displacement(reference, small)
        if moved > NEW_REFERENCE and before is not None:
            # The frame before becomes the one to compare with, so that what is measured stays small.
            at_reference, reference = path[-1], before
            moved = displacement(reference, small)
        path.append(max(path[-1] if path else 0.0, at_reference + moved))
        before = small
        time_s.append(picture.time_s)
    if not path:
        raise InputError(f"video {video} has no frames")
    if path[-1] < STANDSTILL:
        raise InputError(f"the camera of video {video} hardly moves: film while walking around what is to be seen")
    return VideoMotion(time_s=np.array(time_s), sharpness=np.array(sharpness), path=np.array(path))


def _readable(video: Path) -> Generator[Picture, None, None]:
    """The frames up to where the video ends or is damaged; a warning tells where it does so early."""
    pictures = read_pictures(video)
    try:
        yield from pictures
    except TruncatedVideoError as error:
        _log.warning("%s: the frames before are used", error)


def _say_unusual(video: Path, info: VideoInfo) -> None:
    if info.aspect is not None:
        _log.warning("%s has pixels that are %.4g times as wide as high: frames are made square", video, info.aspect)


def _sharpness(gray: Float32[np.ndarray, "h w"]) -> float:
    inner = gray[1:-1, 1:-1]
    return float((gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner).var())


def displacement(before: Float32[np.ndarray, "h w"], after: Float32[np.ndarray, "h w"]) -> float:
    """How far a picture moved: that of its faster blocks, in parts of its longer side.

    Blocks are compared by phase correlation. Where most of them cannot be found again (a cut, a fast swing), the
    answer is the largest displacement that can be measured.
    """
    blocks_before, blocks_after = _blocks(before), _blocks(after)
    height, width = blocks_before.shape[1:]
    longest = min(height, width) / 2
    textured = (blocks_before.std(axis=(1, 2)) > 2) & (blocks_after.std(axis=(1, 2)) > 2)
    if not textured.any():
        return 0.0
    window = np.hanning(height)[:, None] * np.hanning(width)[None]
    a, b = (
        np.fft.rfft2((block - block.mean(axis=(1, 2), keepdims=True)) * window)
        for block in (blocks_before[textured], blocks_after[textured])
    )
    cross = b * a.conj()
    band = np.exp(-(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None] ** 2) / (2 * BAND**2))
    peaks = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-6) * band, s=(height, width))
    peaks /= np.fft.irfft2(band, s=(height, width))[0, 0]
    flat = peaks.reshape(len(peaks), -1)
    found: Bool[np.ndarray, " n"] = flat.max(axis=1) > CORRELATED
    if found.mean() < 0.5:
        return longest / max(before.shape)
    row, column = np.unravel_index(flat.argmax(axis=1), (height, width))
    each = np.arange(len(peaks))
    y = _centered(row, height) + _between(*(peaks[each, (row + d) % height, column] for d in (-1, 0, 1)))
    x = _centered(column, width) + _between(*(peaks[each, row, (column + d) % width] for d in (-1, 0, 1)))
    return float(np.percentile(np.hypot(x, y)[found], MOVING_FRACTION)) / max(before.shape)


def _centered(index: np.ndarray, size: int) -> np.ndarray:
    """Positions in a periodic axis as displacements of either sign."""
    return (index + size // 2) % size - size // 2


def _between(left: np.ndarray, peak: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Where between pixels a peak lies: at the top of the parabola through it and the pixels beside it."""
    curvature = left - 2 * peak + right
    return np.where(curvature < 0, 0.5 * (left - right) / np.minimum(curvature, -1e-9), 0.0)


def _blocks(image: np.ndarray) -> np.ndarray:
    """Squares of an image, overlapping by up to a half and spread evenly."""
    height, width = image.shape
    side_y, side_x = min(BLOCK, height), min(BLOCK, width)
    rows = np.linspace(0, height - side_y, max(1, 3 * height // (2 * side_y) - 1)).astype(int)
    columns = np.linspace(0, width - side_x, max(1, 3 * width // (2 * side_x) - 1)).astype(int)
    return np.stack([image[row : row + side_y, column : column + side_x] for row in rows for column in columns])


def extract_frames(video: Path, folder: Path, picked: Sequence[int]) -> list[str]:
    """Write frames of a video as JPEG files named by their index, turned as the video says; returns their names."""
    wanted, names = set(picked), []
    aspect = read_info(video).aspect
    with closing(_readable(video)) as pictures:
        for index, picture in enumerate(pictures):
            if index in wanted:
                names.append(f"frame_{index:06d}.jpg")
                frame = Image.fromarray(picture.rgb())
                if aspect is not None:
                    # One focal length is to hold for both axes.
                    frame = frame.resize((round(frame.width * aspect), frame.height), Image.Resampling.LANCZOS)
                save_image(folder / names[-1], frame)
            if index >= max(wanted):
                break
    return names
