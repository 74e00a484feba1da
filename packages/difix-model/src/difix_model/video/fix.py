"""Fix a video or an image sequence as a stream: constant memory, and whatever stops it, the finished part is kept."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from difix_model.errors import InputError
from difix_model.gate.verdict import FixVerdict
from difix_model.masks import FixedImage
from difix_model.references.choice import write_choice
from difix_model.video.job import VideoJob
from difix_model.video.join import join_segments
from difix_model.video.segments import SEGMENT_FRAMES, ImageFolder, SegmentFolder
from difix_model.video.temporal_filter import TemporalFilter, TemporalFilterConfig
from media_files.photos import open_image
from media_files.videos import TimedFrame

PHOTOS_IN_MEMORY = 4
"""References that are kept decoded from frame to frame."""


@runtime_checkable
class Fixer(Protocol):
    """What fixes frames: a `DifixPipeline`."""

    batch_size: int
    uses_reference: bool

    def fix_images(
        self, images: Any, references: Any = None, *, strength: float = 1.0, with_weight: bool = True
    ) -> Sequence[FixedImage]:
        """Fix a list of images with a list of references each, and say what became of each."""
        ...


class VideoRun:
    """Fixes a job's frames one batch after the other.

    ```python
    with VideoRun(plan_video(source, out), pipeline) as run:
        for finished in run:
            ...
    ```

    When the `with` block ends well, the result is complete. When it ends by an error or Ctrl-C, the result holds the
    frames that are finished, `frames_written` of them, and a run with `resume=True` goes on after them to the same
    result that an undisturbed run makes. A killed process leaves what is needed for that as well.
    """

    def __init__(
        self,
        job: VideoJob,
        pipeline: Fixer,
        *,
        strength: float = 1.0,
        steady: TemporalFilterConfig | None = None,
        resume: bool = False,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Open what is written to.

        Args:
            job: From `plan_video`.
            strength: Share of the fix, in [0, 1].
            steady: Steady the change in time; None fixes each frame for itself.
            resume: Go on after the frames that an earlier run has finished, if there are any.
            settings: What else the result depends on, such as the weights' name: a run with others is not resumed.

        Raises:
            InputError: If the weights know no references and need to, the result cannot be written, or the earlier
                run is another one.
        """
        if not pipeline.uses_reference and job.references:
            raise InputError("these weights know no references: leave --reference out, or use others with --model")
        self.job = job
        self.frames_written = 0
        """Frames in the result after an error."""
        self.notice: str | None = None
        """What could not be kept as it was, after the end."""
        self._pipeline = pipeline
        self._strength = strength
        self._filter = TemporalFilter(steady, device=getattr(pipeline, "device", "cpu")) if steady else None
        identity = _identity(job, {**(settings or {}), "strength": strength})
        identity["steady"] = None if steady is None else steady.as_dict()
        if job.writes_video:
            self._sink = SegmentFolder(job.work_folder, job.picture_format(), identity, resume=resume)
        else:
            self._sink = ImageFolder(job.work_folder, identity, resume=resume)
        if job.choice is not None and job.choice_output is not None:
            write_choice(job.choice_output, job.choice)
        self._restore(self._sink.state())
        self.verdicts: list[FixVerdict] = []
        """What became of each frame that this run has fixed; how far the written one is from the given one."""
        self.num_resumed = self._sink.num_finished
        """Frames that were finished before."""

    @property
    def num_frames(self) -> int | None:
        """Frames altogether, as far as the file tells."""
        return self.job.num_frames

    def __enter__(self) -> "VideoRun":
        return self

    def __iter__(self) -> Iterator[int]:
        """Fix, and yield how many frames were finished since the last time."""
        frames = self._with_references(self.num_resumed)
        # Batches end where pieces end, so that a run that goes on forms the same ones.
        while piece := list(itertools.islice(frames, self._batch_size(self._sink.num_pending))):
            self._fix([frame for frame, _ in piece], [references for _, references in piece])
            yield len(piece)

    def _batch_size(self, num_pending: int) -> int:
        return min(max(self._pipeline.batch_size, 1), SEGMENT_FRAMES - num_pending)

    def _fix(self, frames: Sequence[TimedFrame], references: Sequence[list[Any]]) -> None:
        given = references if any(references) else None
        images = [frame.rgb for frame in frames]
        fixed = self._pipeline.fix_images(images, given, strength=self._strength, with_weight=False)
        for frame, result in zip(frames, fixed, strict=True):
            steadied = result.image if self._filter is None else self._filter(frame.rgb, result.image)
            change = float(np.abs(steadied.astype(np.int16) - frame.rgb).mean()) / 255
            self.verdicts.append(replace(result.verdict, applied_change=change))
            if isinstance(self._sink, SegmentFolder):
                full = self._sink.write(steadied, frame.pts, frame.duration)
            else:
                index = self._sink.num_finished + self._sink.num_pending
                pixels = steadied if frame.alpha is None else np.concatenate([steadied, frame.alpha], axis=-1)
                full = self._sink.write(Image.fromarray(pixels), self.job.image_path(index))
            if full:
                self._sink.finish_segment(self._state())

    def _with_references(self, skip: int) -> Iterator[tuple[TimedFrame, list[Image.Image]]]:
        """Pair every frame with the references of all, or with its own."""
        per_frame = self.job.references
        # Frames that follow each other mostly have the same ones.
        opened = functools.lru_cache(maxsize=PHOTOS_IN_MEMORY)(open_image)
        for number, frame in enumerate(self.job.frames(skip), start=skip):
            own = number if len(per_frame) > 1 or self.job.choice is not None else 0
            if per_frame and own >= len(per_frame):
                raise InputError(f"{self.job.source} has more frames than there are references ({len(per_frame)})")
            yield frame, [opened(path) for path in per_frame[own]] if per_frame else []

    def _state(self) -> dict[str, np.ndarray]:
        return {} if self._filter is None else self._filter.state()

    def _restore(self, state: dict[str, np.ndarray] | None) -> None:
        if state and self._filter is not None:
            self._filter.restore(state)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._complete()
            return
        try:
            self.frames_written = self._keep()
        except InputError as failure:
            message = f"; {failure}; the finished frames are in {self.job.work_folder}, and --resume goes on with them"
        else:
            message = f"; {self.job.out} holds the {self.frames_written} frames before" if self.frames_written else ""
        if isinstance(error, InputError) and message:
            raise InputError(f"{error}{message}") from error

    def _complete(self) -> None:
        if isinstance(self._sink, SegmentFolder):
            segments = self._sink.with_pending()
            if not segments:
                self._sink.discard()
                raise InputError(f"{self.job.source} has no frames")
            try:
                self.notice = self._join(self._sink, segments, whole=True)
            except InputError as error:
                raise InputError(
                    f"{error}; the finished frames are in {self._sink.folder}, and --resume goes on with them"
                ) from error
        self._sink.discard()

    def _keep(self) -> int:
        if isinstance(self._sink, ImageFolder):
            return self._sink.num_finished + self._sink.num_pending
        segments = self._sink.with_pending()
        if not segments:
            self._sink.discard()
            return 0
        self._join(self._sink, segments, whole=False)
        return sum(len(segment.pts) for segment in segments)

    def _join(self, sink: SegmentFolder, segments: Sequence[Any], *, whole: bool) -> str | None:
        last = segments[-1]
        end = (last.pts[-1] + (last.durations[-1] or 1)) * sink.kind.time_base
        return join_segments(
            segments,
            sink.folder,
            sink.kind,
            self.job.out,
            source=None if self.job.info is None else self.job.source,
            until=None if whole else end,
        )


def _identity(job: VideoJob, settings: dict[str, Any]) -> dict[str, Any]:
    """What the result depends on: files by name, size and time, and settings."""
    numbers: dict[Path, int] = {}
    of_frames = [[numbers.setdefault(path, len(numbers)) for path in several] for several in job.references]
    given = [_file_identity(path) for path in (job.source, *job.images)]
    return {**settings, "input": given, "reference": [[_file_identity(path) for path in numbers], of_frames]}


def _file_identity(path: Path) -> list[str | int]:
    status = path.stat()
    return [path.name, status.st_size if path.is_file() else 0, status.st_mtime_ns if path.is_file() else 0]
