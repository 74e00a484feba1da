"""Parse, enhance with a progress bar, and tell how it ended by the exit code."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import tyro

from difix3d.errors import InputError
from difix3d_enhance_app.cli import VIEW, EnhanceCommand, ViewCommand

if TYPE_CHECKING:
    from difix3d.enhance.config import EnhanceConfig
    from difix3d.enhance.run import Enhancement
    from difix3d.viewer.config import LiveConfig

PHASES = {"fix": "Fixing", "compare": "Side by side"}
"""What the phases are called on the screen."""


def main(arguments: list[str] | None = None) -> int:
    """Run `difix3d-enhance` and return its exit code: 0, 2 for bad input, 128 + signal when stopped."""
    given = sys.argv[1:] if arguments is None else arguments
    flags = (tyro.conf.FlagCreatePairsOff,)
    # Without a verb the command enhances: a page is the other thing that it does.
    if given[:1] == [VIEW]:
        page = tyro.cli(ViewCommand, args=given[1:], prog=f"difix3d-enhance {VIEW}", config=flags).config
        run = functools.partial(_view, page)
    else:
        config = tyro.cli(EnhanceCommand, args=given, prog="difix3d-enhance", config=flags).config
        run = functools.partial(_enhance, config)
    try:
        return run()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _enhance(config: EnhanceConfig) -> int:
    if not config.input.exists():
        raise InputError(f"there is no {config.input}: give a splat, a folder of renders or a video")
    with _stoppable() as received:
        enhancement: Enhancement | None = None
        try:
            enhancement = _opened(config)
            _say_references(enhancement)
            _show(enhancement)
        except KeyboardInterrupt:
            print(_after_a_stop(enhancement), file=sys.stderr)
            return 128 + (received[-1] if received else signal.SIGINT)
    if enhancement.said:
        print(f"note: {enhancement.said}", file=sys.stderr)
    if config.side_by_side is not None:
        print(config.side_by_side)
    print(enhancement.job.out)
    return 0


def _view(config: LiveConfig) -> int:
    from rich.console import Console

    console = Console(stderr=True)
    with _stoppable():
        try:
            with console.status("Loading the splat and the network"):
                from difix3d.viewer.page import LivePage

                page = LivePage(config)
            with page:
                console.print(f"look at {page.url}; Ctrl-C ends it", soft_wrap=True)
                print(page.url, flush=True)
                page.serve()
        except KeyboardInterrupt:
            console.print("closed")
    return 0


def _opened(config: EnhanceConfig) -> Enhancement:
    from rich.console import Console

    with Console(stderr=True).status("Loading the network"):
        # Here, after everything that can be said without it, torch is loaded.
        from difix3d.enhance.run import Enhancement

        return Enhancement(config)


def _say_references(enhancement: Enhancement) -> None:
    names = {name for several in enhancement.reference_names() for name in several}
    total = enhancement.job.num_frames
    what = f"{len(names)} photos serve as references" if names else "no references"
    print(f"{total if total is not None else 'All'} frames, {what}.", file=sys.stderr)


def _show(enhancement: Enhancement) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with (
        Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as bars,
        closing(enhancement.run()) as steps,
    ):
        for step in steps:
            if step.phase not in tasks:
                tasks[step.phase] = bars.add_task(PHASES[step.phase], total=step.total)
            bars.update(tasks[step.phase], completed=step.done, total=step.total)


def _after_a_stop(enhancement: Enhancement | None) -> str:
    if enhancement is None:
        return "Stopped before a frame was finished."
    if enhancement.num_kept:
        kept = f"{enhancement.job.out} holds the first {enhancement.num_kept} frames"
        return f"Stopped: {kept}. Go on with the same command and --resume."
    return "Stopped. Go on with the same command and --resume."


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Let SIGTERM and Ctrl-C raise KeyboardInterrupt; the numbers of the signals are collected.

    So does SIGINT where the command was started with it ignored, as scripts do in the background: who sends one means
    it.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


if __name__ == "__main__":
    sys.exit(main())
