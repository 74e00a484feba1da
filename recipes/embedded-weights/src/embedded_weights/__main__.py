"""From nothing to the weights that come with the project: generated pairs, three stages of training, a model folder.

    uv run python -m embedded_weights --out runs/weights                    # CPU, two hours of two cores
    uv run python -m embedded_weights --out runs/weights --device cuda      # larger and longer

Pairs are made once (`pairs_128/` and `pairs_192/` for training, `held_out/` to validate on) and taken from there
afterwards; `--pairs` takes other folders. Run the same command again after an interruption. The folder `model/` is what
`DifixPipeline.from_pretrained` and `--model` take.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

ON_CUDA: dict[str, Any] = {"max_steps": 60_000, "batch_size": 128}
"""What differs on a GPU in stage 2."""


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="embedded_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, nargs="+", help="folders of pairs to train on; the first for stage 1")
    parser.add_argument("--held-out", type=Path, help="folder of pairs of other scenes, instead of making them")
    parser.add_argument("--captured", type=Path, help="folder of renders of captured scenes, to validate on as well")
    parser.add_argument("--num-scenes", type=int, default=400)
    parser.add_argument("--num-held-out", type=int, default=8)
    parser.add_argument("--num-processes", type=int, default=2, help="scenes that are made at a time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels", type=int, nargs="+", default=(32, 64), help="of the UNet's levels")
    parser.add_argument("--max-steps", type=int, help="of stage 2")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Make what is missing, train, and write the model."""
    options = parsed(arguments)

    from embedded_weights.coarse_pairs import cached_coarse_pairs
    from embedded_weights.config import RecipeConfig
    from embedded_weights.scenes import HELD_OUT, LARGE, SMALL, make_pairs
    from embedded_weights.stages import Data, new_network, save_model, train_all

    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    folders: list[Path] = options.pairs or [out / SMALL.folder, out / LARGE.folder]
    held_out: Path = options.held_out or out / HELD_OUT.folder
    making = {"num_processes": options.num_processes, "device": options.device}
    if not options.pairs:
        for pairs, folder in zip((SMALL, LARGE), folders, strict=True):
            make_pairs(folder, pairs, options.num_scenes, test=False, **making)
    if not options.held_out:
        make_pairs(held_out, HELD_OUT, options.num_held_out, test=True, **making)
    recipe = RecipeConfig(channels=tuple(options.channels))
    if options.device.startswith("cuda"):
        recipe = dataclasses.replace(recipe, main=dataclasses.replace(recipe.main, **ON_CUDA))
    if options.max_steps:
        recipe = dataclasses.replace(recipe, main=dataclasses.replace(recipe.main, max_steps=options.max_steps))
    encoder, _ = new_network(recipe.channels)
    small, further = (cached_coarse_pairs(out, part, encoder) for part in (folders[:1], folders[1:]))
    data = Data(
        small=small,
        all=[*small, *further],
        held_out=cached_coarse_pairs(out, [held_out], encoder),
        captured=cached_coarse_pairs(out, [options.captured] if options.captured else [], encoder),
    )

    def report(row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)

    network, embedding = train_all(out, data, recipe, device=options.device, report=report)
    save_model(out / "model", network, embedding)
    print(out / "model")


if __name__ == "__main__":
    main()
