"""From nothing to a small DiffSplat: GSRecon, GSVAE, denoiser and text encoder, on generated objects.

    uv run python -m diffsplat_small --out runs/small

Run the same command again after an interruption: it goes on where it stood. The folder `weights/` is what
`diffsplat generate --model` takes; `figures.json` holds held-out figures of every stage.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="diffsplat_small", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings and of the finished stack")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=4,
        metavar=("MAPS", "GSRECON", "GSVAE", "DENOISER"),
        help="other lengths of the trainings",
    )
    parser.add_argument("--num-objects", type=int, nargs=2, metavar=("RECON", "TEXT"), help="other numbers of objects")
    parser.add_argument("--num-prompts", type=int, default=100, help="held-out prompts that are judged")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, judge, and say where the stack lies."""
    options = parsed(arguments)

    import torch

    from diffsplat_small.stages import Recipe, train_all

    torch.set_num_threads(options.threads)
    given = {name: tuple(value) for name in ("steps", "num_objects") if (value := getattr(options, name)) is not None}
    recipe = Recipe(**given)
    train_all(options.out, recipe, num_prompts=options.num_prompts, report=lambda line: print(line, flush=True))
    print(options.out / "weights")


if __name__ == "__main__":
    main()
