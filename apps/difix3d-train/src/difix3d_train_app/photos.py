"""The first part of `difix3d-train --photos`: cameras."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from commands import exit_code, left, messages_to, next_line
from difix3d.run import photos
from difix3d_train_app.progress import run_bars

if TYPE_CHECKING:
    from pathlib import Path

    from difix3d import RunFolder, RunSettings
    from difix3d.run.estimate import RunEstimate
    from difix3d_train_app.progress import RunBars

STEPS = ("extracting", "matching", "reconstructing", "undistorting")
"""What structure from motion says when it begins a step, in order."""

PARTS = (0.0, 0.35, 0.65, 0.9)
"""How much of its time is over by then."""


def find_cameras(folder: RunFolder, source: Path, settings: RunSettings, estimate: RunEstimate) -> int:
    """Find the cameras of a run's photos, where they are not known yet; returns 0, or the exit code when stopped."""
    if photos.has_cameras(folder):
        return 0
    try:
        with run_bars(estimate) as bars, _steps_shown(bars):
            found = photos.find_cameras(folder, source, settings)
    except KeyboardInterrupt as interrupt:
        again = next_line("difix3d-train", "--out", folder.path, "--resume")
        print(f"Stopped while cameras were found. Go on with: {again}", file=sys.stderr)
        return left(exit_code(interrupt), at_once=photos.search_goes_on())
    print(f"{len(found.registered)} of {found.num_photos} photos have a camera, {found.num_points} points.", flush=True)
    for advice in found.advice:
        print(f"note: {advice}", file=sys.stderr)
    return 0


@contextmanager
def _steps_shown(bars: RunBars) -> Iterator[None]:
    """The library's messages about its steps as progress."""
    from difix3d import Progress

    def show(done: float, note: str = "") -> None:
        bars.show(Progress(phase="cameras", done=round(100 * done), total=100, note=note))

    def note(message: str) -> None:
        for step, part in zip(STEPS, PARTS, strict=True):
            if message.startswith(step):
                show(part, message)

    show(0.0)
    with messages_to(note, "splat_recon.io.sfm"):
        yield
    show(1.0)
