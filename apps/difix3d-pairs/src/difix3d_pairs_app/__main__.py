"""Parse, make or merge pairs with a progress bar, and tell how it ended by the exit code."""

import signal
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import tyro

from difix3d.errors import InputError
from difix3d_pairs_app.cli import MergeCommand, PairsCommand

if TYPE_CHECKING:
    from difix3d.pairs.sources import SceneSource

DONE, SOME_FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class _TerminatedError(KeyboardInterrupt):
    """The process is asked to end; it does so as after Ctrl-C."""


def main(arguments: list[str] | None = None) -> int:
    """Run `difix3d-pairs`.

    Returns:
        The exit code: 0 all done, 1 some scenes failed, 2 bad input, 130 and 143 stopped by Ctrl-C and SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    try:
        if arguments[:1] == ["merge"]:
            return _merge(tyro.cli(MergeCommand, args=arguments[1:], prog="difix3d-pairs merge", config=options))
        return _make(tyro.cli(PairsCommand, args=arguments, prog="difix3d-pairs", config=options))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def _make(command: PairsCommand) -> int:
    from difix3d.pairs.card import publish
    from difix3d.pairs.make import check_places, open_pairs_folder
    from difix3d.pairs.run import locked
    from difix3d.pairs.sources import colmap_sources, generated_sources
    from difix3d.pairs.split import check_test_scenes

    sources = colmap_sources(command.scenes, command.config)
    sources += generated_sources(command.generated, command.first_seed, command.config)
    check_test_scenes([source.name for source in sources], command.config)
    check_places(sources, command.out)
    with locked(command.out):
        open_pairs_folder(command.out, command.config)
        before = _interrupt_on_termination()
        try:
            failed = _make_scenes(command, sources)
        except KeyboardInterrupt as interrupt:
            print("Stopped. Run the same command again to go on with the scenes that were not finished.")
            return TERMINATED if isinstance(interrupt, _TerminatedError) else INTERRUPTED
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)
        card = publish(command.out, command.config, failed)
    _say(card)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    print(command.out / ("pairs.json" if card["num_pairs"] else "CARD.md"))
    return SOME_FAILED if failed else DONE


def _make_scenes(command: PairsCommand, sources: "list[SceneSource]") -> dict[str, str]:
    """Make them; returns why scenes failed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from difix3d.pairs.run import run_scenes

    columns = (TextColumn("Scenes"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn())
    failed: dict[str, str] = {}
    num_pairs = 0
    outcomes = run_scenes(
        sources, command.out, command.config, num_processes=command.num_processes, ray_address=command.ray
    )
    with Progress(*columns, TextColumn("{task.fields[note]}")) as bars, closing(outcomes):
        task = bars.add_task("scenes", total=len(sources), note="")
        for outcome in outcomes:
            num_pairs += outcome.num_pairs
            if outcome.error is not None:
                failed[outcome.name] = outcome.error
            note = f"{num_pairs} pairs" + (f", {len(failed)} scenes failed" if failed else "")
            bars.update(task, advance=1, note=f"{note}; last: {outcome.name}")
    return dict(sorted(failed.items()))


def _merge(command: MergeCommand) -> int:
    from difix3d.pairs.merge import merge_pairs

    _say(merge_pairs(command.folders, command.out))
    print(command.out / "pairs.json")
    return DONE


def _say(card: dict[str, Any]) -> None:
    """Print what is in a folder of pairs."""
    for name, entry in card["strategies"].items():
        print(f"{name}: {entry['count']} pairs, mean PSNR {entry['mean_psnr']:.2f} dB")
    left_out = ", ".join(f"{count} {reason}" for reason, count in card["left_out"].items()) or "none"
    print(f"left out: {left_out}; photos without a pose: {card['num_unregistered_photos']}")
    for split, words in (("train", "to train on"), ("test", "to test with")):
        entry = card["splits"][split]
        print(f"{entry['pairs']} pairs {words}, of {len(entry['scenes'])} scenes")


def _interrupt_on_termination() -> Any:
    """Let SIGTERM end the run as Ctrl-C does; returns what it did before, or None outside the main thread."""

    def interrupt(number: int, frame: object) -> None:
        raise _TerminatedError

    try:
        return signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main())
