"""Enhance a splat's film, a folder of renders or a video: frame after frame, resumable, and once more side by side."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from difix3d.enhance.config import EnhanceConfig
from difix3d.enhance.job import SplatJob, plan_enhancement
from difix3d.errors import InputError, as_input_error
from difix_model.gate.verdict import FixVerdict, nothing_but_gated, verdict_summary, what_to_try
from difix_model.jobs.files import open_image
from difix_model.opening import open_pipeline
from difix_model.video.fix import Fixer, VideoRun
from difix_model.video.job import VideoJob
from difix_model.video.temporal_filter import TemporalFilterConfig
from media_files.video_writer import VideoWriter
from media_files.videos import read_frames
from report_pages import beside, labeled

LABELS = ("before", "after")
"""What the halves of the comparison are called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnhanceProgress:
    """How far an enhancement has come."""

    phase: str
    """fix, or compare for the video of both."""

    done: int
    """Frames that are done."""

    total: int | None
    """Frames in all, as far as a video tells."""


class Enhancement:
    """A run over all frames.

    Args:
        config: What to do; it is checked here, and the weights are loaded.
        pipeline: What fixes; None loads what `config.fixer` names.

    Raises:
        InputError: Anything is absent, unreadable or would be overwritten.
    """

    def __init__(self, config: EnhanceConfig, pipeline: Fixer | None = None) -> None:
        self.config = config
        with as_input_error():
            self._check_side_by_side()
            self._pipeline = pipeline or open_pipeline(config.fixer, device=config.device)
            self.job: VideoJob = plan_enhancement(config, uses_reference=self._pipeline.uses_reference)
            self._run = VideoRun(
                self.job,
                self._pipeline,
                strength=config.fixer.strength,
                steady=TemporalFilterConfig() if config.steady else None,
                resume=config.resume,
                settings=self._identity(),
            )

    def run(self) -> Generator[EnhanceProgress, None, None]:
        """Fix everything; when closed or interrupted, the finished frames are kept for `resume`."""
        done, total = self._run.num_resumed, self.job.num_frames
        with as_input_error():
            with self._run as run:
                yield EnhanceProgress(phase="fix", done=done, total=total)
                for finished in run:
                    done += finished
                    yield EnhanceProgress(phase="fix", done=done, total=total)
            if self.config.side_by_side is not None:
                yield from self._compare(self.config.side_by_side, done)

    @property
    def frames_written(self) -> int:
        """Frames in the result after an interruption."""
        return self._run.frames_written

    @property
    def notice(self) -> str | None:
        """What could not be kept as it was."""
        return self._run.notice

    @property
    def verdicts(self) -> list[FixVerdict]:
        """What became of each frame that this run has fixed."""
        return self._run.verdicts

    def outcome(self) -> list[str]:
        """How many frames were changed, and what to do where none was; sentences."""
        advice = what_to_try(self.verdicts)
        return [verdict_summary(self.verdicts, "frame"), *([advice] if advice else [])] if self.verdicts else []

    @property
    def kept_by_gate(self) -> bool:
        """Whether no frame was changed, and it was the gate that kept them."""
        return nothing_but_gated(self.verdicts)

    def reference_names(self) -> list[tuple[str, ...]]:
        """Of every frame the photos that it is fixed with; one entry if all have the same."""
        return [tuple(path.name for path in several) for several in self.job.references]

    def _identity(self) -> dict[str, object]:
        """What the result depends on beside files: a run with other values is not resumed."""
        config = self.config
        values: dict[str, object] = {name: getattr(config.fixer, name) for name in ("model", "base", "gate")}
        return values | (self.job.identity() if isinstance(self.job, SplatJob) else {})

    def _check_side_by_side(self) -> None:
        target = self.config.side_by_side
        taken = {path.resolve() for path in (self.config.source, self.config.out)}
        if target is not None and target.resolve() in taken:
            raise InputError(f"{target} is named twice: give the side-by-side video a name of its own")

    def _compare(self, path: Path, total: int) -> Iterator[EnhanceProgress]:
        """Read or render the frames once more, and put the results beside them; nothing is held in memory."""
        with VideoWriter(path, rate=self.job.rate, even=True) as video, closing(self._results()) as results:
            for index, (frame, fixed) in enumerate(zip(self.job.frames(), results, strict=True)):
                halves = zip((frame.rgb, fixed), LABELS, strict=True)
                video.write(beside([labeled(np.ascontiguousarray(half), label) for half, label in halves]))
                yield EnhanceProgress(phase="compare", done=index + 1, total=total)

    def _results(self) -> Generator[UInt8[np.ndarray, "h w 3"], None, None]:
        if self.job.writes_video:
            yield from read_frames(self.job.out)
            return
        for index in range(self.job.num_frames or 0):
            yield np.array(open_image(self.job.image_path(index)).convert("RGB"))
