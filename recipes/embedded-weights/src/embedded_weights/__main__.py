"""From nothing to the weights that come with the project: generated pairs, three stages of training, a model folder.

    uv run python -m embedded_weights --out runs/weights                    # CPU, two hours of two cores
    uv run python -m embedded_weights --out runs/weights --device cuda      # larger and longer

Pairs are made once (`pairs_128/`, `pairs_192/` and, of scenes with photographic textures, `photographic_128/` to train
on, `held_out/` and `photographic_held_out/` to validate on) and taken from there afterwards; `--pairs` takes other
folders. Panoramas come from a package in the public domain, see `panoramas.py`. Run the same command again after an
interruption. The folder `model/` is what `DifixPipeline.from_pretrained` and `--model` take.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedded_weights.config import RecipeConfig

ON_CUDA: dict[str, Any] = {"max_steps": 60_000, "batch_size": 128}
"""What differs on a GPU in stage 2."""


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="embedded_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, nargs="+", help="folders of pairs to train on; the first for stage 1")
    parser.add_argument("--held-out", type=Path, nargs="+", help="folders of pairs of other scenes to validate on")
    parser.add_argument("--captured", type=Path, help="folder of renders of captured scenes, to validate on as well")
    parser.add_argument("--num-scenes", type=int, default=400)
    parser.add_argument("--num-photographic", type=int, default=200, help="further scenes, textured with panoramas")
    parser.add_argument("--num-held-out", type=int, default=8)
    parser.add_argument("--panoramas", help="folder with train/ and held_out/, instead of fetching them; none: without")
    parser.add_argument("--num-processes", type=int, default=2, help="scenes that are made at a time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels", type=int, nargs="+", default=(32, 64), help="of the UNet's levels")
    parser.add_argument("--max-steps", type=int, help="of stage 2")
    parser.add_argument("--identity-steps", type=int, help="of stage 3")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Make what is missing, train, and write the model."""
    options = parsed(arguments)

    from embedded_weights.coarse_pairs import cached_coarse_pairs
    from embedded_weights.stages import Data, new_network, save_model, train_all

    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    folders, held_out = _made_pairs(options)
    recipe = _recipe(options)
    encoder, _ = new_network(recipe.channels)
    small, further = (cached_coarse_pairs(out, part, encoder) for part in (folders[:1], folders[1:]))
    data = Data(
        small=small,
        all=[*small, *further],
        held_out=cached_coarse_pairs(out, held_out, encoder),
        captured=cached_coarse_pairs(out, [options.captured] if options.captured else [], encoder),
    )

    def report(row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)

    network, embedding = train_all(out, data, recipe, device=options.device, report=report)
    save_model(out / "model", network, embedding)
    print(out / "model")


def _recipe(options: argparse.Namespace) -> RecipeConfig:
    """The stages, with what the command line changes."""
    from embedded_weights.config import RecipeConfig

    recipe = RecipeConfig(channels=tuple(options.channels))
    main, identity = recipe.main, recipe.identity_fine_tuning
    if options.device.startswith("cuda"):
        main = dataclasses.replace(main, **ON_CUDA)
    if options.max_steps:
        main = dataclasses.replace(main, max_steps=options.max_steps)
    if options.identity_steps:
        identity = dataclasses.replace(identity, max_steps=options.identity_steps)
    return dataclasses.replace(recipe, main=main, identity_fine_tuning=identity)


def _made_pairs(options: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Folders of pairs to train on and to validate on, made where they are not given and not there."""
    from embedded_weights.panoramas import fetched_panoramas
    from embedded_weights.scenes import HELD_OUT, LARGE, PHOTOGRAPHIC, PHOTOGRAPHIC_HELD_OUT, SMALL, make_pairs

    folders: list[Path] = list(options.pairs or ())
    held_out: list[Path] = list(options.held_out or ())
    wanted = [] if folders else [(SMALL, options.num_scenes), (LARGE, options.num_scenes)]
    if not folders and options.panoramas != "none":
        wanted.append((PHOTOGRAPHIC, options.num_photographic))
    if not held_out:
        wanted.append((HELD_OUT, options.num_held_out))
        if options.panoramas != "none":
            wanted.append((PHOTOGRAPHIC_HELD_OUT, options.num_held_out))
    panoramas = None
    if any(pairs.panoramas for pairs, _ in wanted):
        panoramas = Path(options.panoramas) if options.panoramas else fetched_panoramas(options.out)
    making = {"num_processes": options.num_processes, "device": options.device, "panoramas": panoramas}
    for pairs, count in wanted:
        folder = options.out / pairs.folder
        make_pairs(folder, pairs, count, **making)
        (held_out if pairs.test else folders).append(folder)
    return folders, held_out


if __name__ == "__main__":
    main()
