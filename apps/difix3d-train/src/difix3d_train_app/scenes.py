"""`difix3d-train --scenes`: a queue over a folder of scenes, with a bar for the scenes and one for what is running."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import DONE, FAILED, ended
from difix3d import InputError, RunSettings
from difix3d.queue.scenes import run_queue, scene_tasks

if TYPE_CHECKING:
    from difix3d.queue.scene_task import RunOutcome
    from difix3d_train_app.cli import TrainCommand


def run_scenes(command: TrainCommand, received: list[int]) -> int:
    """Run all scenes of a folder; those that are finished are skipped, those that were stopped go on.

    Args:
        command: With `scenes` set.
        received: Numbers of signals that have come; the queue stops after the next piece of work.

    Returns:
        The exit code: 0, 1 if a scene failed, 128 + signal when stopped.
    """
    folder = command.scenes or Path()
    for name, given in (("scene", command.run.scene), ("stop-at", command.stop_at)):
        if given is not None:
            raise InputError(f"--{name} is for one scene: leave it out, or leave --scenes out")
    out = command.out or Path("runs") / folder.resolve().name
    tasks = scene_tasks(folder, out, RunSettings.of(command.run))
    print(f"Writing to {out}: {len(tasks)} scenes", flush=True)
    _say_left_out(folder, {task.name for task in tasks})
    failed: dict[str, str] = {}
    try:
        for outcome in _shown(command, tasks, out, received):
            if outcome.error is not None:
                failed[outcome.name] = outcome.error
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to go on.", file=sys.stderr)
        return 128 + (received[0] if received else 2)
    for name, reason in sorted(failed.items()):
        print(f"failed: {name}: {reason}", file=sys.stderr)
    done = next((out / task.name for task in tasks if task.name not in failed), None)
    page = () if done is None else ("splat-recon", "export", "--splat", done, "--to", done / "scene.html")
    ended(out / "summary.html", *page)
    return FAILED if failed else DONE


def _say_left_out(folder: Path, names: set[str]) -> None:
    """Name the folders that are no scenes: they may have been meant as such."""
    others = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in names)
    if others:
        shown = ", ".join(others[:10]) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
        print(
            f"left out: {shown}: no scenes (expected images/ and sparse/0/, or transforms.json; "
            "splat-recon sfm makes them of photos)",
            file=sys.stderr,
        )


def _shown(command: TrainCommand, tasks: list[Any], out: Path, received: list[int]) -> list[RunOutcome]:
    from commands import progress_bar

    outcomes: list[RunOutcome] = []
    with progress_bar() as bars:
        all_scenes = bars.add_task("Scenes", total=len(tasks), note="")
        current = bars.add_task("", total=1, note="", visible=False)

        def watch(name: str, progress: Any) -> None:
            if received:
                raise KeyboardInterrupt
            note = f"{progress.phase} {progress.note}".strip()
            bars.update(
                current, description=name, completed=progress.done, total=progress.total, note=note, visible=True
            )

        running = run_queue(tasks, out, num_processes=command.num_processes, ray_address=command.ray, on_progress=watch)
        with closing(running):
            for outcome in running:
                outcomes.append(outcome)
                num_failed = sum(each.error is not None for each in outcomes)
                note = f"last: {outcome.name}" + (f"; {num_failed} failed" if num_failed else "")
                bars.update(all_scenes, advance=1, note=note)
                if received:
                    raise KeyboardInterrupt
    return outcomes
