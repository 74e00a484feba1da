"""SparseFusion on generated objects that no training saw: held-out views, by part, with the spread over objects.

    uv run python benchmarks/sparsefusion_objects.py --objects 10 --out runs/sparsefusion_objects

One JSON file per object; an object that is there already is not measured again. The last lines are the table.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from pathlib import Path

import torch

from sparsefusion import Distillation, DistillConfig, SparseFusionModel, choose_inputs, load_model, start_distillation
from sparsefusion.checkpoints import EMBEDDED_MODEL
from sparsefusion.config import small_distillation, small_field
from sparsefusion.data.generated import HELD_OUT_SEED, generated_sequence
from sparsefusion.perceptual import find_lpips
from sparsefusion.results import nearest_input
from sparsefusion.scores import mean_scores, score

NUM_INPUTS = 2


def measured(model: SparseFusionModel, index: int, config: DistillConfig) -> dict[str, dict[str, float | None] | None]:
    """Mean scores of the held-out views of one object, by method."""
    sequence = generated_sequence(HELD_OUT_SEED + index, image_size=config.image_size)
    chosen = list(choose_inputs(len(sequence), NUM_INPUTS, index))
    asked = [at for at in range(len(sequence)) if at not in chosen]
    axes = sequence.cameras.relative_to(sequence.cameras[0], "axes")
    perceptual = find_lpips()
    field = small_field(model.config.eft.depth_margin)

    def rows(images: list[torch.Tensor]) -> dict[str, float | None] | None:
        pairs = zip(images, asked, strict=True)
        return mean_scores(score(image, sequence.rgb[at, None], perceptual) for image, at in pairs)

    def rendered(distillation: Distillation) -> list[torch.Tensor]:
        distillation.train_until(config.max_steps)
        return [distillation.render(axes[at]).rgb.clamp(0, 1) for at in asked]

    found = {"nearest input": rows([sequence.rgb[nearest_input(sequence.cameras, chosen, at), None] for at in asked])}
    alone = start_distillation(sequence, chosen, config=config, field=field)
    found["field from the inputs alone"] = rows(rendered(alone))
    for mode in ("eval", "train"):
        start = start_distillation(sequence, chosen, model, config=config, field=field, mode=mode)  # type: ignore[arg-type]
        assert start.cached is not None
        found[f"EFT alone, {mode} mode"] = rows([start.cached.rgb[at, None] for at in asked])
    whole = start_distillation(sequence, chosen, model, config=config, field=field)
    without = start_distillation(sequence, chosen, model, config=config, field=field, with_diffusion=False)
    whole.train_until(config.diffusion_start + 1)  # Until here both are the same.
    without.load_state_dict(copy.deepcopy(whole.state_dict()))
    found["field of the EFT, no diffusion"] = rows(rendered(without))
    found["full method"] = rows(rendered(whole))
    return found


def table(results: list[dict[str, dict[str, float | None]]]) -> str:
    """Means over objects and standard deviations between them."""
    measures = [name for name, value in results[0]["full method"].items() if value is not None]
    lines = ["| method | " + " | ".join(name.upper() for name in measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for method in results[0]:
        cells = []
        for name in measures:
            values = [float(one[method][name]) for one in results]  # type: ignore[arg-type]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            digits = 2 if name == "psnr" else 3
            cells.append(f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=EMBEDDED_MODEL)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="begin with this one, as a second process may")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    model = load_model(options.model)
    config = small_distillation(model.config.image_size)
    results = []
    for index in range(options.first, options.objects):
        path = options.out / f"{index:03d}.json"
        if not path.is_file():
            path.write_text(json.dumps(measured(model, index, config), indent=1) + "\n", encoding="utf-8")
        results.append(json.loads(path.read_text(encoding="utf-8")))
        print(index, {name: round(values["psnr"], 2) for name, values in results[-1].items()}, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
