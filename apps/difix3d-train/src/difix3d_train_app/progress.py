"""What is seen of a run: one bar for the whole of it, by the time that it is likely to take, and one per phase."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from difix3d import Progress
    from difix3d.run.estimate import RunEstimate

PHASES = {
    "cameras": "Finding cameras",
    "prepare": "Preparing",
    "stereo": "Matching photos",
    "train": "Training",
    "compare": "Comparing",
    "film": "Filming",
    "report": "Reporting",
}
"""What the phases of a run are called on the screen; a line fits into 80 columns."""


class RunBars:
    """Bars of a run.

    Args:
        estimate: How long the phases are likely to take; None: there is no bar of the whole.
    """

    def __init__(self, bars: Bars, estimate: RunEstimate | None) -> None:
        self._bars, self._estimate = bars, estimate
        self._tasks: dict[str, TaskID] = {}
        self._whole: TaskID | None = None
        if estimate is not None:
            self._whole = bars.add_task("All", total=max(estimate.total, 1e-3), note="")

    def show(self, progress: Progress) -> None:
        """Draw how far a phase has come, and with it the run."""
        if progress.phase not in self._tasks:
            self._tasks[progress.phase] = self._bars.add_task(PHASES[progress.phase], note="")
        task = self._tasks[progress.phase]
        self._bars.update(task, completed=progress.done, total=progress.total, note=progress.note)
        if self._whole is not None and self._estimate is not None and progress.phase in self._estimate.seconds:
            part = progress.done / progress.total if progress.total else 0.0
            seconds = self._estimate.before(progress.phase) + part * self._estimate.seconds[progress.phase]
            self._bars.update(self._whole, completed=seconds)


@contextmanager
def run_bars(estimate: RunEstimate | None) -> Iterator[RunBars]:
    """Bars, as long as the block lasts; warnings of the libraries stand above them."""
    from commands import progress_bar, warnings_on

    with progress_bar(percent=True) as bars, warnings_on():
        yield RunBars(bars, estimate)
