"""Parse, make pairs with a progress bar, and tell how it ended by the exit code."""

import sys
from typing import TYPE_CHECKING

import tyro

from difix3d.errors import InputError
from difix3d_pairs_app.cli import PairsCommand

if TYPE_CHECKING:
    from difix3d.pairs.make import SceneSource


def main(arguments: list[str] | None = None) -> int:
    """Run `difix3d-pairs` and return its exit code: 0, or 2 for bad input."""
    options = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    command = tyro.cli(PairsCommand, args=arguments, prog="difix3d-pairs", config=options)
    try:
        return _make(command)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _make(command: PairsCommand) -> int:
    from difix3d.pairs.make import colmap_sources, generated_sources, open_pairs_folder, write_all_pairs

    sources = colmap_sources(command.scenes, command.config)
    sources += generated_sources(command.generated, command.first_seed, command.config)
    open_pairs_folder(command.out, command.config)
    try:
        records = _make_scenes(command, sources)
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to go on with the scene that was not finished.")
        return 130
    path = write_all_pairs(command.out, records)
    counts = {split: sum(record.split == split for record in records) for split in ("train", "test")}
    print(f"{counts['train']} pairs to train on, {counts['test']} to test with")
    print(path)
    return 0


def _make_scenes(command: PairsCommand, sources: "list[SceneSource]") -> list:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from difix3d.pairs.make import make_scene_pairs

    columns = (TextColumn("Scenes"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn())
    records = []
    with Progress(*columns, TextColumn("{task.fields[note]}")) as bars:
        task = bars.add_task("scenes", total=len(sources), note="")
        for source in sources:
            bars.update(task, note=source.name)
            records += make_scene_pairs(source, command.out, command.config)
            bars.update(task, advance=1, note=f"{len(records)} pairs")
    return records


if __name__ == "__main__":
    sys.exit(main())
