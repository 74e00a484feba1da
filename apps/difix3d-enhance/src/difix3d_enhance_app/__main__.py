"""Parse, enhance with a progress bar, and tell how it ended by the exit code."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from commands import as_flag, ended, exit_code, run_command
from difix3d import InputError
from difix3d.enhance.config import EnhanceConfig
from difix3d.viewer.config import LiveConfig
from difix3d_enhance_app.cli import DISTRIBUTION, ENHANCE, ENHANCE_GROUPS, LOOK, VIEW

if TYPE_CHECKING:
    from rich.progress import TaskID

    from difix3d.enhance.run import Enhancement

PHASES = {"fix": "Fixing", "compare": "Side by side"}
"""What the phases are called on the screen."""


def main(arguments: list[str] | None = None) -> int:
    """Run `difix3d-enhance` and return its exit code: 0, 2 for bad input, 128 + signal when stopped."""
    given = sys.argv[1:] if arguments is None else arguments
    # Without a verb the command enhances: a page is the other thing that it does.
    if given[:1] == [VIEW]:
        return run_command(
            LiveConfig,
            _view,
            given[1:],
            prog=f"difix3d-enhance {VIEW}",
            distribution=DISTRIBUTION,
            description=LOOK,
            flat=True,
        )
    return run_command(
        EnhanceConfig,
        _enhance,
        given,
        prog="difix3d-enhance",
        distribution=DISTRIBUTION,
        groups=ENHANCE_GROUPS,
        description=ENHANCE,
        flat=True,
    )


def _enhance(config: EnhanceConfig) -> int:
    if not config.source.exists():
        raise InputError(f"there is no {config.source}: give a splat, a folder of renders or a video")
    enhancement: Enhancement | None = None
    try:
        enhancement = _opened(config)
        _say_references(enhancement)
        _show(enhancement)
    except KeyboardInterrupt as interrupt:
        print(_after_a_stop(enhancement), file=sys.stderr)
        return exit_code(interrupt)
    if enhancement.notice:
        print(f"note: {enhancement.notice}", file=sys.stderr)
    for sentence in enhancement.outcome():
        print(sentence[0].upper() + sentence[1:], file=sys.stderr)
    if config.side_by_side is not None:
        print(config.side_by_side)
    _ended(config, enhancement)
    return 0


def _ended(config: EnhanceConfig, enhancement: Enhancement) -> None:
    """Say what was made, and what to do next: the same without the gate where it kept all, else look live."""
    if enhancement.kept_by_gate:
        out = config.out.with_name(f"{config.out.stem}_ungated{config.out.suffix}")
        ended(enhancement.job.out, "difix3d-enhance", *_source(config), "--out", out, "--gate", "off")
    elif config.of_splat:
        ended(enhancement.job.out, "difix3d-enhance", VIEW, *_source(config), extra="viewer")
    else:
        ended(enhancement.job.out, "difix-fix", "serve", "--model", config.fixer.model, extra="serve")


def _source(config: EnhanceConfig) -> list[str]:
    """The flags that say what is fixed, with which photos and which weights."""
    given = {name: getattr(config, name) for name in ("splat", "input", "scene", "cameras")}
    given |= {name: getattr(config.fixer, name) for name in ("model", "base")}
    given = {name: value for name, value in given.items() if value not in (None, "default")}
    if config.of_splat and config.which != "best":
        given["which"] = config.which
    return [word for name, value in given.items() for word in (as_flag(name), str(value))]


def _view(config: LiveConfig) -> int:
    from commands import console

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
    from commands import console

    with console.status("Loading the network"):
        # Here, after everything that can be said without it, torch is loaded.
        from difix3d.enhance.run import Enhancement

        return Enhancement(config)


def _say_references(enhancement: Enhancement) -> None:
    names = {name for several in enhancement.reference_names() for name in several}
    total = enhancement.job.num_frames
    what = f"{len(names)} photos serve as references" if names else "no references"
    print(f"{total if total is not None else 'All'} frames, {what}.", file=sys.stderr)


def _show(enhancement: Enhancement) -> None:
    from commands import progress_bar

    tasks: dict[str, TaskID] = {}
    with progress_bar() as bars, closing(enhancement.run()) as steps:
        for step in steps:
            if step.phase not in tasks:
                tasks[step.phase] = bars.add_task(PHASES[step.phase], total=step.total, note="")
            bars.update(tasks[step.phase], completed=step.done, total=step.total)


def _after_a_stop(enhancement: Enhancement | None) -> str:
    if enhancement is None:
        return "Stopped before a frame was finished."
    if enhancement.frames_written:
        kept = f"{enhancement.job.out} holds the first {enhancement.frames_written} frames"
        return f"Stopped: {kept}. Go on with the same command and --resume."
    return "Stopped. Go on with the same command and --resume."


if __name__ == "__main__":
    sys.exit(main())
