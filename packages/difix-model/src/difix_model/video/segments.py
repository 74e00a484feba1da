"""Pieces of a video that is being written: each is coded on its own, so that a stopped run can go on after the last."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from difix_model.errors import InputError
from difix_model.jobs.files import save_image
from media_files.video_encoder import FrameEncoder, PictureFormat, av_module

SEGMENT_FRAMES = 24
"""Frames per piece: at most this many are lost when a run is killed."""

CONTAINER = "nut"
"""Holds any codec."""

JOB_FILE = "job.json"

State = Mapping[str, np.ndarray]
"""What a run must know of earlier frames to go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A finished piece; its time stamps stand here, as containers round them."""

    name: str
    num_bytes: int
    pts: tuple[int, ...]
    durations: tuple[int, ...]


class SegmentFolder:
    """A folder of finished pieces beside the result, and the piece that is being written.

    A piece counts once its record is there, and records are written last: whenever a process dies, what counts is
    complete. The record of the job tells whether a folder belongs to the run that wants to go on with it.
    """

    def __init__(self, folder: Path, kind: PictureFormat, job: Mapping[str, Any], *, resume: bool) -> None:
        """Open the folder, or start afresh.

        Args:
            job: What the result depends on, as JSON values.
            resume: Go on after the pieces that are there; without any, start at the beginning.

        Raises:
            InputError: If the folder belongs to another job, or cannot be written.
        """
        self.folder = folder
        self.kind = kind
        self.segments: list[Segment] = []
        self._encoder: FrameEncoder | None = None
        self._container: Any = None
        self._pts: list[int] = []
        self._durations: list[int] = []
        if _goes_on(folder, {**job, "picture": _plain(kind)}, resume=resume):
            self.segments = _finished_segments(folder)

    @property
    def num_finished(self) -> int:
        """Frames in finished pieces."""
        return sum(len(segment.pts) for segment in self.segments)

    @property
    def num_pending(self) -> int:
        """Frames in the piece that is being written."""
        return len(self._pts)

    def state(self) -> dict[str, np.ndarray] | None:
        """Return what was handed over with the last finished piece; None at the beginning."""
        if not self.segments:
            return None
        with np.load(self._state_path(len(self.segments) - 1)) as loaded:
            return dict(loaded)

    def write(self, rgb: UInt8[np.ndarray, "h w c=3"], pts: int, duration: int) -> bool:
        """Append a frame.

        Returns:
            Whether the piece is full now and `finish_segment` is due.
        """
        av = av_module()
        try:
            if self._encoder is None:
                self._container = av.open(str(self._pending_path()), "w", format=CONTAINER)
                self._encoder = FrameEncoder(self._container, self.kind)
            self._encoder.write(rgb, pts, duration)
        except (OSError, av.FFmpegError) as error:
            raise InputError(f"cannot write {self.folder}: {error.strerror or error}") from error
        self._pts.append(pts)
        self._durations.append(duration)
        return len(self._pts) == SEGMENT_FRAMES

    def finish_segment(self, state: State) -> None:
        """Make the piece count.

        Args:
            state: What the next frame depends on.
        """
        index = len(self.segments)
        path = self.folder / f"segment_{index:06d}.{CONTAINER}"
        try:
            segment = self._closed(path)
            _write_state(self._state_path(index), state)
            _write_json(path.with_suffix(".json"), asdict(segment))
        except OSError as error:
            raise InputError(f"cannot write {self.folder}: {error.strerror or error}") from error
        self.segments.append(segment)
        if index:
            self._state_path(index - 1).unlink(missing_ok=True)

    def with_pending(self) -> list[Segment]:
        """Close the piece that is being written and return all; it will not count when the run goes on."""
        if self._encoder is None:
            return list(self.segments)
        try:
            return [*self.segments, self._closed(self.folder / f"tail.{CONTAINER}")]
        except OSError:
            # The disk is full, for example: what counts is still there.
            return list(self.segments)

    def discard(self) -> None:
        """Remove the folder."""
        self._abandon()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _closed(self, path: Path) -> Segment:
        av = av_module()
        encoder, container = self._encoder, self._container
        pts, durations = tuple(self._pts), tuple(self._durations)
        assert encoder is not None
        self._encoder, self._container, self._pts, self._durations = None, None, [], []
        try:
            encoder.flush()
            container.close()
            with self._pending_path().open("rb+") as file:
                _sync(file)
            self._pending_path().replace(path)
        except av.FFmpegError as error:
            raise OSError(getattr(error, "errno", 0), error.strerror) from error
        finally:
            with suppress(OSError, av.FFmpegError):
                container.close()
        return Segment(name=path.name, num_bytes=path.stat().st_size, pts=pts, durations=durations)

    def _abandon(self) -> None:
        if self._container is not None:
            with suppress(OSError, av_module().FFmpegError):
                self._container.close()
        self._encoder, self._container = None, None

    def _pending_path(self) -> Path:
        return self.folder / f"pending.{CONTAINER}"

    def _state_path(self, index: int) -> Path:
        return self.folder / f"state_{index:06d}.npz"


class ImageFolder:
    """The same for a sequence of images: they are written where they belong, and the folder knows how many count."""

    def __init__(self, folder: Path, job: Mapping[str, Any], *, resume: bool) -> None:
        """Open the folder, or start afresh; arguments and errors are those of `SegmentFolder`."""
        self.folder = folder
        self.num_finished = 0
        self.num_pending = 0
        if _goes_on(folder, job, resume=resume):
            states = sorted(folder.glob("state_*.npz"))
            self.num_finished = int(states[-1].stem.split("_")[1]) if states else 0

    def state(self) -> dict[str, np.ndarray] | None:
        """Return what was handed over after the last image that counts; None at the beginning."""
        if not self.num_finished:
            return None
        with np.load(self._state_path(self.num_finished)) as loaded:
            return dict(loaded)

    def write(self, image: Image.Image, path: Path) -> bool:
        """Write an image, and return whether `finish_segment` is due."""
        save_image(path, image)
        self.num_pending += 1
        return self.num_pending == SEGMENT_FRAMES

    def finish_segment(self, state: State) -> None:
        """Make the images count that were written since the last time."""
        before = self._state_path(self.num_finished)
        try:
            _write_state(self._state_path(self.num_finished + self.num_pending), state)
            before.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {self.folder}: {error.strerror or error}") from error
        self.num_finished += self.num_pending
        self.num_pending = 0

    def discard(self) -> None:
        """Remove the folder; the images stay."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _state_path(self, num_frames: int) -> Path:
        return self.folder / f"state_{num_frames:08d}.npz"


def _goes_on(folder: Path, job: Mapping[str, Any], *, resume: bool) -> bool:
    """Open the folder of a job, whose record is written; returns whether finished pieces of it may be there."""
    job = json.loads(json.dumps({**job, "segment_frames": SEGMENT_FRAMES}))
    goes_on = resume and (folder / JOB_FILE).is_file()
    if goes_on:
        _check_same_job(folder, job)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / JOB_FILE, job)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    return goes_on


def _check_same_job(folder: Path, job: Mapping[str, Any]) -> None:
    try:
        before = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder} is damaged: delete it and start again") from error
    different = sorted(key for key in {*before, *job} if before.get(key) != job.get(key))
    if different:
        raise InputError(
            f"{folder} was started with another {', '.join(different)}: repeat the command as it was, "
            "or leave --resume out to start again"
        )


def _finished_segments(folder: Path) -> list[Segment]:
    found: list[Segment] = []
    while (record := folder / f"segment_{len(found):06d}.json").is_file():
        known = json.loads(record.read_text(encoding="utf-8"))
        path = folder / known["name"]
        if not path.is_file() or path.stat().st_size != known["num_bytes"]:
            break
        found.append(Segment(**{**known, "pts": tuple(known["pts"]), "durations": tuple(known["durations"])}))
    # A piece's state is kept until the next piece counts.
    if found and not (folder / f"state_{len(found) - 1:06d}.npz").is_file():
        raise InputError(f"{folder} is damaged: delete it and start again")
    return found


def _plain(kind: PictureFormat) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Fraction) else value for key, value in asdict(kind).items()}


def _write_state(path: Path, state: State) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **dict(state))  # type: ignore[arg-type]
        _sync(file)
    partial.replace(path)


def _write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        _sync(file)
    partial.replace(path)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
