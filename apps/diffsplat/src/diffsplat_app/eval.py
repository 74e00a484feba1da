"""`diffsplat eval`: generated views against true ones, and renders against their prompts."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from commands import Device, Groups, ended, run_command, verb_of
from diffsplat import GenerationConfig, InputError
from diffsplat_app.opening import opened_pipeline
from diffsplat_app.prompts import read_prompts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesEval:
    """Generate every object from its first view, and compare renders with its other views: PSNR, SSIM, LPIPS."""

    data: Path
    """A folder with one folder per object, each with images and transforms.json (as NeRF's synthetic scenes)."""

    out: Path
    """Folder of scores.json, index.html and the pictures."""

    prompt: str = ""
    """Said to the network besides the image."""

    model: str = "default"
    """Weights, as in `diffsplat generate`; the model with an image is taken."""

    base: str | None = None
    """Folder or hub id of the base model, instead of the original's."""

    generation: Annotated[GenerationConfig, tyro.conf.arg(name="")] = field(default_factory=GenerationConfig)
    """How objects are generated; their elevation is that of the first view unless one is given."""

    size: int = 256
    """Side of the compared images in pixels."""

    device: Device = "auto"
    """Where to compute; auto takes CUDA if it is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptsEval:
    """Generate every prompt of a list and score its renders by CLIP: similarity and R-precision."""

    prompts: Path
    """A text file with one prompt per line, such as one of T3Bench's lists."""

    out: Path
    """Folder of scores.json, index.html and the pictures."""

    model: str = "default"
    """Weights, as in `diffsplat generate`."""

    base: str | None = None
    """Folder or hub id of the base model, instead of the original's."""

    clip: str = "openai/clip-vit-base-patch32"
    """CLIP's folder, or its name in the hub's cache; it is not downloaded."""

    generation: Annotated[GenerationConfig, tyro.conf.arg(name="")] = field(default_factory=GenerationConfig)
    """How objects are generated."""

    num_views: int = 4
    """Renders per prompt, in equal steps around it."""

    size: int = 256
    """Side of the renders in pixels."""

    device: Device = "auto"
    """Where to compute; auto takes CUDA if it is there."""


KINDS: dict[str, Any] = {"images": ImagesEval, "prompts": PromptsEval}
"""What can be evaluated, and with which flags."""

GROUPS: dict[str, Groups] = {
    kind: {"what matters": (given, "out", more, "model", "base", "size", "num_steps", "guidance", "seed", "device")}
    for kind, given, more in (("images", "data", "prompt"), ("prompts", "prompts", "clip"))
}
"""What `--help` shows; `--help all` shows the rest."""


def main(arguments: list[str]) -> int:
    """Evaluate, show progress and print where the scores lie."""
    verb, given = verb_of(
        KINDS, arguments, prog="diffsplat eval", distribution="diffsplat-app",
        description="Score generated objects against true views, or against their prompts.",
    )  # fmt: skip
    run: Any = {"images": eval_images, "prompts": eval_prompts}[verb]
    return run_command(
        KINDS[verb], run, given, prog=f"diffsplat eval {verb}", distribution="diffsplat-app", groups=GROUPS[verb]
    )


def eval_images(settings: ImagesEval) -> int:
    """Score every object of a folder."""
    from dataclasses import replace

    import torch

    from diffsplat.render import rendered
    from diffsplat.view_folders import object_folders, read_posed_views
    from image_metrics import make_lpips, psnr, ssim

    folders = object_folders(settings.data)
    views = {folder.name: read_posed_views(folder, settings.size) for folder in folders}
    pipe = opened_pipeline(settings.model, settings.device, image=True, base=settings.base)
    lpips = make_lpips(device=str(pipe.device))
    rows: list[dict[str, Any]] = []
    for name, one in _progress(views.items()):
        config = settings.generation
        if config.elevation_deg is None:
            config = replace(config, elevation_deg=one.elevation_deg)
        side = pipe.parts.input_res
        condition = torch.nn.functional.interpolate(one.rgb[:1], size=(side, side), mode="bilinear", antialias=True)
        (splat,) = pipe([settings.prompt], config, images=condition)
        found = rendered(
            splat.gaussians, one.T_world_cam[None, 1:], one.fxfycxcy[None, 1:], settings.size, settings.size
        ).rgb[0].clamp(0, 1).cpu()  # fmt: skip
        pairs = [(a.permute(1, 2, 0), b.permute(1, 2, 0)) for a, b in zip(found, one.rgb[1:], strict=True)]
        row = {
            "object": name,
            "num_views": len(pairs),
            "psnr": float(np.mean([psnr(a, b) for a, b in pairs])),
            "ssim": float(np.mean([ssim(a, b, border="inside") for a, b in pairs])),
        }
        if lpips is not None:
            row["lpips"] = float(np.mean([lpips(a, b) for a, b in pairs]))
        rows.append(row | {"picture": _picture(settings.out, name, torch.cat([one.rgb[:5], found[:5]]))})
    return _written(settings, rows, "The given view and up to four true ones; below, up to five generated ones.")


def eval_prompts(settings: PromptsEval) -> int:
    """Score every prompt of a list."""
    import torch

    from diffsplat.clip_scores import ClipScorer, similarity_and_precision
    from diffsplat.pipeline import orbit_frames

    prompts = read_prompts(settings.prompts)
    if settings.num_views < 1:
        raise InputError(f"--num-views must be at least 1, got {settings.num_views}")
    scorer = ClipScorer.from_pretrained(settings.clip)
    pipe = opened_pipeline(settings.model, settings.device, image=False, base=settings.base)
    rows: list[dict[str, Any]] = []
    embedded = []
    for index, prompt in enumerate(_progress(prompts)):
        seeds = [settings.generation.seed + index]
        (splat,) = pipe([prompt], settings.generation, seeds=seeds)
        views = splat.render(orbit_frames(settings.num_views, splat.elevation_deg), settings.size).cpu()
        embedded.append(scorer.of_images(views))
        rows.append({"prompt": prompt, "picture": _picture(settings.out, f"{index:04d}", views)})
    similarity, precision = similarity_and_precision(torch.stack(embedded), scorer.of_prompts(prompts))
    for row, one, other in zip(rows, similarity.tolist(), precision.tolist(), strict=True):
        row |= {"clip_similarity": one, "r_precision": 100 * other}
    return _written(settings, rows, f"Renders of every prompt. R-precision is among these {len(prompts)} prompts.")


def _progress(items: Any) -> Any:
    from commands import progress_bar

    items = list(items)
    with progress_bar() as progress:
        bar = progress.add_task("Scoring", total=len(items), note="")
        for item in items:
            yield item
            progress.advance(bar)


def _picture(out: Path, name: str, views: Tensor) -> str:
    """Views in rows of up to five, as a file; returns its name."""
    from PIL import Image

    tiles = (255 * views.permute(0, 2, 3, 1).numpy()).round().astype(np.uint8)
    rows = [np.concatenate(list(tiles[start : start + 5]), axis=1) for start in range(0, len(tiles), 5)]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    try:
        out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(padded)).save(out / f"{name}.png")
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error}") from error
    return f"{name}.png"


def _written(settings: Any, rows: list[dict[str, Any]], said: str) -> int:
    """One JSON and one page of pictures."""
    numbers = [key for key, value in rows[0].items() if isinstance(value, float)]
    means = {key: float(np.mean([row[key] for row in rows])) for key in numbers}
    found = {"mean": means, "objects": rows, "settings": json.loads(json.dumps(asdict(settings), default=str))}
    (settings.out / "scores.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    shown = ", ".join(f"{key} {value:.3f}" for key, value in means.items())
    body = "".join(
        f"<h2>{html.escape(str(row.get('object') or row.get('prompt')))}</h2><p>"
        + ", ".join(f"{key} {row[key]:.3f}" for key in numbers)
        + f'</p><img src="{html.escape(row["picture"])}" alt="">'
        for row in rows
    )
    (settings.out / "index.html").write_text(
        f'<!doctype html><meta charset="utf-8"><title>DiffSplat</title><h1>Mean: {shown}</h1><p>{said}</p>{body}\n',
        encoding="utf-8",
    )
    print(shown)
    ended(settings.out)
    return 0
