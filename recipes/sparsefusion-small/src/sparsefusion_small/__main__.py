"""From nothing to a small SparseFusion: transformer, autoencoder and diffusion model, on generated objects.

    uv run python -m sparsefusion_small --out runs/small

Run the same command again after an interruption: it goes on where it stood. `weights/model.safetensors` is what
`sparsefusion reconstruct --model` takes; `figures.json` holds held-out figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="sparsefusion_small", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings and of the finished weights")
    parser.add_argument(
        "--steps", type=int, nargs=4, metavar=("EFT", "VAE", "DENOISER", "DECODER"), help="other lengths"
    )
    parser.add_argument("--num-objects", type=int, help="another number of objects")
    parser.add_argument("--num-judged", type=int, help="another number of unseen objects that the figures are of")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train what is missing, measure, and say where the weights lie."""
    options = parsed(arguments)

    import torch

    from sparsefusion_small.stages import Recipe, train_all

    torch.set_num_threads(options.threads)
    recipe = Recipe()
    recipe = Recipe(
        steps=tuple(options.steps) if options.steps else recipe.steps,
        num_objects=options.num_objects or recipe.num_objects,
        num_judged=options.num_judged or recipe.num_judged,
    )
    print(train_all(options.out, recipe, report=lambda line: print(line, flush=True)))


if __name__ == "__main__":
    main()
