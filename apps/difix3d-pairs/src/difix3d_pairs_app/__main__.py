"""Parse, make or merge pairs with a progress bar, and tell how it ended by the exit code."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import DONE, FAILED, ended, exit_code, run_command
from difix3d_pairs_app.cli import GROUPS, MergeCommand, PairsCommand

if TYPE_CHECKING:
    from difix3d.pairs.sources import SceneSource

DISTRIBUTION = "difix3d-pairs-app"


def main(arguments: list[str] | None = None) -> int:
    """Run `difix3d-pairs`.

    Returns:
        The exit code: 0 all done, 1 some scenes failed, 2 bad input, 130 and 143 stopped by Ctrl-C and SIGTERM.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["merge"]:
        return run_command(MergeCommand, _merge, given[1:], prog="difix3d-pairs merge", distribution=DISTRIBUTION)
    return run_command(
        PairsCommand, _make, given, prog="difix3d-pairs", distribution=DISTRIBUTION, groups=GROUPS, flat=True
    )


def _make(command: PairsCommand) -> int:
    from difix3d import generated_sources, open_pairs_folder, publish_pairs
    from difix3d.pairs.make import check_places
    from difix3d.pairs.run import locked
    from difix3d.pairs.sources import colmap_sources
    from difix3d.pairs.split import check_test_scenes

    sources = colmap_sources(command.scenes, command.config)
    sources += generated_sources(command.generated, command.first_seed, command.config)
    check_test_scenes([source.name for source in sources], command.config)
    check_places(sources, command.out)
    with locked(command.out):
        open_pairs_folder(command.out, command.config)
        try:
            failed = _make_scenes(command, sources)
        except KeyboardInterrupt as interrupt:
            print("Stopped. Run the same command again to go on with scenes that were not finished.", file=sys.stderr)
            return exit_code(interrupt)
        card = publish_pairs(command.out, command.config, failed)
    _say(card)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if card["num_pairs"]:
        _ended(command.out)
    else:
        ended(command.out / "CARD.md")
    return FAILED if failed else DONE


def _make_scenes(command: PairsCommand, sources: "list[SceneSource]") -> dict[str, str]:
    """Make them; returns why scenes failed."""
    from commands import progress_bar
    from difix3d import make_pairs

    failed: dict[str, str] = {}
    num_pairs = 0
    outcomes = make_pairs(
        sources, command.out, command.config, num_processes=command.num_processes, ray_address=command.ray
    )
    with progress_bar() as bars, closing(outcomes):
        task = bars.add_task("Scenes", total=len(sources), note="")
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
    _ended(command.out)
    return DONE


def _ended(folder: Path) -> None:
    run = folder.with_name(f"{folder.resolve().name}-fixer")
    ended(folder / "pairs.json", "difix-train", "run", "--pairs", folder / "pairs.json", "--out", run)


def _say(card: dict[str, Any]) -> None:
    """Print what is in a folder of pairs."""
    for name, entry in card["strategies"].items():
        print(f"{name}: {entry['count']} pairs, mean PSNR {entry['mean_psnr']:.2f} dB")
    left_out = ", ".join(f"{count} {reason}" for reason, count in card["left_out"].items()) or "none"
    print(f"left out: {left_out}; photos without a pose: {card['num_unregistered_photos']}")
    for split, words in (("train", "to train on"), ("test", "to test with")):
        entry = card["splits"][split]
        print(f"{entry['pairs']} pairs {words}, of {len(entry['scenes'])} scenes")


if __name__ == "__main__":
    sys.exit(main())
