"""What is to be done with a video or an image sequence: checked before any heavy work. Imports no torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from difix_model.errors import InputError, first_problems
from difix_model.jobs.files import is_video, output_name
from difix_model.references.choice import (
    CHOICE_NAME,
    ReferenceChoice,
    ReferenceConfig,
    choose_references,
    photos_to_choose_from,
)
from media_files.photos import PHOTO_SUFFIXES, WRITABLE_SUFFIXES, image_files, open_image
from media_files.video_encoder import DEFAULT_RATE, PictureFormat, VideoColors, codec_for, pixel_format
from media_files.videos import (
    BT709,
    RGB_MATRIX,
    WRITABLE_VIDEO_SUFFIXES,
    TimedFrame,
    VideoInfo,
    coefficients,
    read_info,
    read_timed_frames,
)

UNFINISHED = ".unfinished"
"""Added to the result's name: the folder that holds finished pieces while the result is being made."""

NUMBER_PATTERN = re.compile(r"%0?(\d*)d")

FIRST_NUMBER = 1
"""Of the images of a sequence that is named by a pattern."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoJob:
    """A video or an image sequence to fix, frame after frame."""

    source: Path
    """A video file, or the folder of the sequence."""

    images: tuple[Path, ...]
    """The sequence; empty for a video."""

    out: Path
    """A video file; for images a folder (same names), or a file name with a number in it, such as `%05d.png`."""

    references: tuple[tuple[Path, ...], ...]
    """One entry for all frames, or one per frame."""

    info: VideoInfo | None
    """Of a video."""

    rate: Fraction
    """Frames per second."""

    choice: ReferenceChoice | None = None
    """Which references were chosen for which frame; None if there was nothing to choose."""

    choice_output: Path | None = None
    """Where `choice` is to be written."""

    @property
    def num_frames(self) -> int | None:
        """Frames, as far as the file tells."""
        if self.info is None:
            return len(self.images)
        if self.info.num_frames is None and self.info.duration:
            return round(self.info.duration * self.info.rate)
        return self.info.num_frames

    @property
    def writes_video(self) -> bool:
        """Whether the result is one file."""
        return is_video(self.out)

    @property
    def work_folder(self) -> Path:
        """Where finished pieces are kept until the result is complete."""
        return self.out.with_name(NUMBER_PATTERN.sub("frames", self.out.name) + UNFINISHED)

    def image_path(self, index: int) -> Path:
        """Where the frame of this index goes, if the result is a sequence."""
        if NUMBER_PATTERN.search(self.out.name):
            return self.out.with_name(self.out.name % (FIRST_NUMBER + index))
        return self.out / (output_name(self.images[index]) if self.images else f"{FIRST_NUMBER + index:06d}.png")

    def frames(self, skip: int = 0) -> Iterator[TimedFrame]:
        """Read the frames, one at a time."""
        if self.info is not None:
            yield from read_timed_frames(self.source, skip=skip)
            return
        for index in range(skip, len(self.images)):
            image = open_image(self.images[index])
            alpha = np.array(image.convert("RGBA"))[..., 3:] if image.has_transparency_data else None
            yield TimedFrame(rgb=np.array(image.convert("RGB")), pts=index, duration=1, alpha=alpha)

    def picture_format(self) -> PictureFormat:
        """How the pictures of a video are coded: colors, time stamps and pixels as in the source."""
        if self.info is None:
            width, height = open_image(self.images[0]).size
            return PictureFormat.for_new_video(self.out, width, height, self.rate)
        info = self.info
        colors = info.colors if info.colors.matrix != RGB_MATRIX else VideoColors.for_new_video()
        return PictureFormat(
            width=info.width,
            height=info.height,
            codec=codec_for(self.out),
            pix_fmt=pixel_format(info.width, info.height, info.pix_fmt),
            rate=info.rate,
            time_base=info.time_base,
            colors=colors,
            matrix=BT709 if info.colors.matrix == RGB_MATRIX else coefficients(colors.matrix, info.stored_size),
            aspect=info.aspect,
        )


def is_sequence(source: Path, out: Path, *, steady: bool = False) -> bool:
    """Tell whether files are to be treated as frames that follow each other, and not as images for themselves.

    Args:
        source: The input: a video always is one; a folder of images is one if the result is a video or numbered.
        steady: Whether frames shall be steadied, which makes any folder a sequence.
    """
    if not source.is_dir():
        return is_video(source)
    return steady or (is_video(out) and not out.is_dir()) or bool(NUMBER_PATTERN.search(out.name))


def plan_video(
    source: Path,
    out: Path,
    reference: Path | None = None,
    *,
    references: ReferenceConfig | None = None,
    rate: float | None = None,
) -> VideoJob:
    """Find out what is to be done, and check it.

    Args:
        source: A video, or a folder of images, in the order of their names.
        out: A video file, a folder, or a file name with a number in it, such as `fixed/%05d.png`. A video in a folder
            becomes an MP4 file of its name.
        reference: A photo for all frames, a folder of photos, or a file of chosen references, see
            `references.choice.choose_references`. None fixes without references.
        references: How references are chosen from a folder; None takes the defaults. To compare by similarity, a video
            is read once more.
        rate: Frames per second of a sequence of images; 30 if None. Videos keep theirs.

    Raises:
        InputError: If anything is absent, unreadable or would overwrite an input.
    """
    info, images = None, ()
    if source.is_dir():
        images = tuple(image_files(source))
        if not images:
            raise InputError(f"{source} holds no images ({', '.join(PHOTO_SUFFIXES)})")
    else:
        info = read_info(source)
        if rate is not None:
            raise InputError(f"{source} has a frame rate of its own: a rate is for folders of images")
    if info is not None and (out.is_dir() or not out.suffix):
        out = out / f"{source.stem}.mp4"
    _check_out(source, out, images)
    job = VideoJob(
        source=source,
        images=images,
        out=out,
        references=(),
        info=info,
        rate=info.rate if info is not None else Fraction(rate or DEFAULT_RATE).limit_denominator(100_000),
    )
    return job if reference is None else _with_references(job, reference, references)


def _with_references(job: VideoJob, reference: Path, config: ReferenceConfig | None) -> VideoJob:
    choice = _chosen(job, reference, config)
    used = sorted({path for several in choice.references for path in several})
    for path in used:
        open_image(path)
    results = {job.out.resolve()} if job.writes_video else _resolved_results(job, len(choice.images))
    given = sorted({*photos_to_choose_from(reference), *used})
    if taken := [str(path) for path in given if path.resolve() in results]:
        raise InputError(f"{first_problems(taken)} would be overwritten: choose another --out")
    if choice.method == "given":
        return dataclasses.replace(job, references=choice.references[:1])
    output = _choice_output(job)
    same = output.resolve() == reference.resolve()
    return dataclasses.replace(job, references=choice.references, choice=choice, choice_output=None if same else output)


def _chosen(job: VideoJob, reference: Path, config: ReferenceConfig | None) -> ReferenceChoice:
    if job.info is None:
        return choose_references(job.images, reference, config)
    if reference.is_file() and reference.suffix.lower() != ".json":
        return choose_references((job.source,), reference)
    num_frames = job.info.num_frames or sum(1 for _ in _pictures(job))
    if not num_frames:
        raise InputError(f"{job.source} has no frames")
    names = [job.source.with_name(f"{job.source.stem}_{FIRST_NUMBER + index:06d}.png") for index in range(num_frames)]
    return choose_references(names, reference, config, frames=lambda: _pictures(job))


def _pictures(job: VideoJob) -> Iterator[Image.Image]:
    """The frames up to where a video is cut off: the run says so, and keeps what is before."""
    with suppress(InputError):
        for frame in job.frames():
            yield Image.fromarray(frame.rgb)


def _resolved_results(job: VideoJob, num_frames: int) -> set[Path]:
    return {job.image_path(index).resolve() for index in range(num_frames)}


def _choice_output(job: VideoJob) -> Path:
    if job.writes_video:
        return job.out.with_name(f"{job.out.stem}.{CHOICE_NAME}")
    return (job.out.parent if NUMBER_PATTERN.search(job.out.name) else job.out) / CHOICE_NAME


def _check_out(source: Path, out: Path, images: tuple[Path, ...]) -> None:
    numbered = NUMBER_PATTERN.search(out.name)
    if out.suffix.lower() in WRITABLE_SUFFIXES and not numbered and not out.is_dir():
        raise InputError(f"{out} can hold one frame only: put a number into its name, such as %05d{out.suffix}")
    if out.suffix.lower() == ".avi" and not out.is_dir():
        raise InputError(f"{out} cannot hold the result, as AVI files have no time stamps: use .mp4 or .mkv")
    if out.suffix and out.suffix.lower() not in WRITABLE_SUFFIXES + WRITABLE_VIDEO_SUFFIXES and not out.is_dir():
        suffixes = ", ".join(WRITABLE_VIDEO_SUFFIXES)
        raise InputError(f"{out} cannot hold the result: use one of {suffixes}, or name a folder")
    if images and not numbered and not is_video(out) and out.is_file():
        raise InputError(f"{out} is a file: for a folder of images, --out must be a folder, a video, or numbered")
    results = {out} if is_video(out) else set()
    if images and not is_video(out):
        probe = VideoJob(source=source, images=images, out=out, references=(), info=None, rate=DEFAULT_RATE)
        results = {probe.image_path(index) for index in range(len(images))}
    given = {path.resolve() for path in (source, *images)}
    taken = sorted(path for path in results if path.resolve() in given)
    if taken:
        raise InputError(f"{first_problems([str(path) for path in taken])} would be overwritten: choose another --out")
