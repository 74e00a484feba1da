"""Do no harm: what a fixer takes from good renders and gives to bad ones, with and without the gate.

Two steps, because the first takes long and the second is repeated:

    uv run python benchmarks/do_no_harm.py renders --scenes SCENES --out RENDERS
    uv run python benchmarks/do_no_harm.py table --scenes SCENES --renders RENDERS --out TABLES
    uv run python benchmarks/do_no_harm.py references --scenes SCENES --renders RENDERS

The first trains Gaussians on all photos of every captured scene (good) and on its six sparse views (bad), and keeps
the renders: of the photos' own cameras, or of the test views. It skips what is there already. The second fixes all of
them with the embedded weights and with simulated fixers, some of them harmful, and compares with the photos. The third
tells how near, by pose, the photos are that are chosen by looks.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch.nn import functional

from difix_model.references.camera_poses import CameraPoses

SCENES = ("kermit", "miku", "fern", "garden", "lund")
DONE = "done.json"
"""Written last into a folder of renders; without it the folder is made again."""


def make_renders(
    *,
    scenes: Path,
    out: Path,
    names: tuple[str, ...] = SCENES,
    num_views: int = 6,
    max_size: int = 256,
    max_steps: int = 2000,
) -> None:
    """Train on all photos, and on the sparse list; keep render, opacity and photo of every view to compare."""
    for name in names:
        for kind in ("good", "bad"):
            folder = out / kind / name
            if (folder / DONE).is_file():
                continue
            start = time.time()
            num_rendered = _render_one(
                scenes / name, folder, None if kind == "good" else num_views, max_size, max_steps
            )
            seconds = round(time.time() - start)
            (folder / DONE).write_text(
                json.dumps({"views": num_rendered, "max_size": max_size, "max_steps": max_steps, "seconds": seconds})
            )
            print(f"{folder}: {num_rendered} views, {seconds} s", flush=True)


def _render_one(scene_folder: Path, folder: Path, num_views: int | None, max_size: int, max_steps: int) -> int:
    from splat_recon import AdcConfig, SplatTrainer, TrainConfig, ViewSet, make_split, read_scene, with_training_points

    scene = read_scene(scene_folder, max_size=max_size)
    names = [view.name for view in scene.views]
    train, rendered = names, names
    if num_views is not None:
        split = make_split(names, "auto", sparse=num_views, scene_folder=scene_folder)
        train, rendered = list(split.train), list(split.test)
    config = TrainConfig(strategy=AdcConfig(cap_max=30_000)).scaled_to(max_steps)
    scene, _ = with_training_points(scene, train)
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.select(train)), dataclasses.replace(config, sh_degree=1))
    trainer.train_until(max_steps)
    for part in ("renders", "alphas", "photos", "references"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in rendered:
        view = scene.view(name)
        output = trainer.render(view.camera)
        file = f"{Path(name).stem}.png"
        _save(folder / "renders" / file, output.rgb.clamp(0, 1).numpy())
        _save(folder / "alphas" / file, output.alpha[..., 0].clamp(0, 1).numpy())
        Image.fromarray(view.rgb_u8).save(folder / "photos" / file)
    for name in train:
        Image.fromarray(scene.view(name).rgb_u8).save(folder / "references" / f"{Path(name).stem}.png")
    return len(rendered)


def _save(path: Path, values: np.ndarray) -> None:
    Image.fromarray((values * 255 + 0.5).astype(np.uint8)).save(path)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A render with its photo and its nearest reference; RGB in [0, 1], `[1 h w 3]`."""

    kind: str
    scene: str
    name: str
    render: torch.Tensor
    photo: torch.Tensor
    reference: torch.Tensor
    alpha: torch.Tensor


def known_poses(poses: CameraPoses, paths: Sequence[Path]) -> np.ndarray:
    """Return the pose of every image, all of which are listed: the renders were made at them."""
    found = [pose for path in paths if (pose := poses.of(path)) is not None]
    if len(found) != len(paths):
        raise SystemExit(f"error: {poses.source} lists {len(found)} of {len(paths)} cameras: render again")
    return np.stack(found)


def read_samples(scenes: Path, renders: Path) -> list[Sample]:
    """Read all renders; the reference is the photo with the nearest camera, the render's own photo left out."""
    from difix_model.references.camera_poses import poses_extent, read_poses
    from difix_model.references.poses import pose_distances

    samples = []
    for done in sorted(renders.glob(f"*/*/{DONE}")):
        folder = done.parent
        poses = read_poses(scenes / folder.name)
        photos = sorted((folder / "references").iterdir())
        T_world_photo = known_poses(poses, photos)
        for path in sorted((folder / "renders").iterdir()):
            T_world_cam = poses.of(path)
            assert T_world_cam is not None
            distances = pose_distances(T_world_cam[None], T_world_photo, extent=poses_extent(T_world_photo))[0]
            distances[[photo.stem == path.stem for photo in photos]] = np.inf
            samples.append(
                Sample(
                    kind=folder.parent.name,
                    scene=folder.name,
                    name=path.stem,
                    render=_rgb(path),
                    photo=_rgb(folder / "photos" / path.name),
                    reference=_rgb(photos[int(np.argmin(distances))]),
                    alpha=_rgb(folder / "alphas" / path.name)[..., 0],
                )
            )
    return samples


def print_references(*, scenes: Path, renders: Path) -> None:
    """Choose a photo for every render by similarity, its own left out, and rank the choice by pose."""
    from difix_model.references.camera_poses import poses_extent, read_poses
    from difix_model.references.poses import pose_distances
    from difix_model.references.similarity import similarities

    print("| renders | scene | renders | photos | nearest by pose | among 3 nearest | by chance |")
    print("|---|---|---|---|---|---|---|")
    for kind in ("good", "bad"):
        ranks: list[int] = []
        for done in sorted(renders.glob(f"{kind}/*/{DONE}")):
            poses = read_poses(scenes / done.parent.name)
            photos = sorted((renders / "good" / done.parent.name / "photos").iterdir())
            paths = sorted((done.parent / "renders").iterdir())
            T_world_photo = known_poses(poses, photos)
            T_world_cam = known_poses(poses, paths)
            distances = pose_distances(T_world_cam, T_world_photo, extent=poses_extent(T_world_photo))
            own = np.array([[photo.stem == path.stem for photo in photos] for path in paths])
            chosen = np.where(own, -np.inf, similarities(paths, photos)).argmax(axis=1)
            distances[own] = np.inf
            rank = (distances < distances[np.arange(len(paths)), chosen][:, None]).sum(axis=1)
            ranks += rank.tolist()
            fractions = f"{(rank == 0).mean():.0%} | {(rank < 3).mean():.0%} | {3 / (len(photos) - 1):.0%}"
            print(f"| {kind} | {done.parent.name} | {len(paths)} | {len(photos) - 1} | {fractions} |")
        total = np.array(ranks)
        print(f"| {kind} | all | {len(total)} | | {(total == 0).mean():.0%} | {(total < 3).mean():.0%} | |")


def _rgb(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255)[None]


def _planes(rgb: torch.Tensor) -> torch.Tensor:
    return rgb.movedim(-1, 1)


def blurred(rgb: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur with a Gaussian."""
    radius = max(1, int(3 * sigma + 0.5))
    offsets = torch.arange(-radius, radius + 1).float()
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = functional.pad(_planes(rgb), (radius,) * 4, mode="reflect")
    x = functional.conv2d(functional.conv2d(x, kernel, groups=3), kernel.transpose(2, 3), groups=3)
    return x.movedim(1, -1)


def low_resolution(rgb: torch.Tensor, factor: float) -> torch.Tensor:
    """Make small and large again."""
    height, width = rgb.shape[1:3]
    small = functional.interpolate(
        _planes(rgb), size=(round(height / factor), round(width / factor)), mode="bicubic", antialias=True
    )
    return functional.interpolate(small, size=(height, width), mode="bicubic").movedim(1, -1).clamp(0, 1)


def sharpened(rgb: torch.Tensor, sigma: float, amount: float) -> torch.Tensor:
    """Exaggerate detail."""
    return (rgb + amount * (rgb - blurred(rgb, sigma))).clamp(0, 1)


def invented_detail(rgb: torch.Tensor, size: float) -> torch.Tensor:
    """Add texture where there is texture."""
    noise = torch.randn(rgb.shape, generator=torch.Generator().manual_seed(0))
    noise = blurred(noise, 0.8) - blurred(noise, 2.5)
    contrast = blurred((rgb - blurred(rgb, 2.0)).abs().mean(-1, keepdim=True).expand_as(rgb), 4.0)
    return (rgb + size * noise / noise.std() * (contrast / contrast.mean()).clamp(max=3)).clamp(0, 1)


def moved(rgb: torch.Tensor, pixels: float) -> torch.Tensor:
    """Shift to the lower right, between the pixels."""
    height, width = rgb.shape[1:3]
    theta = torch.tensor([[[1.0, 0.0, -2 * pixels / width], [0.0, 1.0, -2 * pixels / height]]])
    grid = functional.affine_grid(theta, [1, 3, height, width], align_corners=False)
    x = functional.grid_sample(_planes(rgb), grid, mode="bicubic", padding_mode="border", align_corners=False)
    return x.movedim(1, -1).clamp(0, 1)


def redrawn(rgb: torch.Tensor) -> torch.Tensor:
    """Lose some resolution, gain sharpness, noise and a slight tint: what a latent diffusion model does to an image."""
    tint = torch.tensor([1.02, 1.0, 0.99])
    return invented_detail((sharpened(low_resolution(rgb, 1.5), 1.0, 0.6) * tint + 0.005).clamp(0, 1), 0.02)


def invented_objects(rgb: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Paint four blobs of the reference's content somewhere."""
    generator = np.random.default_rng(5)
    height, width = rgb.shape[1:3]
    content = functional.interpolate(_planes(reference), size=(height, width), mode="bilinear").movedim(1, -1)
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    for _ in range(4):
        row, column = int(generator.integers(0, height)), int(generator.integers(0, width))
        radius = generator.uniform(0.025, 0.05) * width
        weight = torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * radius**2))[None, ..., None]
        other = torch.roll(content, tuple(int(generator.integers(20, 100)) for _ in range(2)), dims=(1, 2))
        rgb = torch.lerp(rgb, other, weight)
    return rgb


def waves(rgb: torch.Tensor, size: float) -> torch.Tensor:
    """Tint broad regions."""
    field = torch.randn((1, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    field = functional.interpolate(field, size=rgb.shape[1:3], mode="bicubic").movedim(1, -1)
    return (rgb + size * field).clamp(0, 1)


HARMFUL: dict[str, Callable[[Sample], torch.Tensor]] = {
    "blurred and sharpened": lambda s: sharpened(blurred(s.render, 1.2), 1.2, 1.0),
    "colors shifted": lambda s: (s.render * torch.tensor([1.06, 1.0, 0.94]) + 0.02).clamp(0, 1),
    "more contrast": lambda s: ((s.render - 0.5) * 1.12 + 0.5).clamp(0, 1),
    "half resolution": lambda s: low_resolution(s.render, 2),
    "quarter resolution": lambda s: low_resolution(s.render, 4),
    "invented detail": lambda s: invented_detail(s.render, 0.04),
    "moved by 0.8 pixels": lambda s: moved(s.render, 0.8),
    "redrawn": lambda s: redrawn(s.render),
    "invented objects": lambda s: invented_objects(s.render, s.reference),
    "broad regions tinted": lambda s: waves(s.render, 0.08),
}
"""Simulated fixers that know nothing of the photo."""

HELPFUL: dict[str, Callable[[Sample], torch.Tensor]] = {
    "half of the way to the photo": lambda s: torch.lerp(s.render, s.photo, 0.5),
    "the photo at half resolution": lambda s: low_resolution(s.photo, 2),
    "the photo at quarter resolution": lambda s: low_resolution(s.photo, 4),
    "the photo, redrawn": lambda s: redrawn(s.photo),
}
"""Simulated fixers that know the photo."""


def make_tables(*, scenes: Path, renders: Path, out: Path, model: str = "default") -> None:
    """Fix everything with and without a gate; write JSON and Markdown."""
    from difix_model import DifixPipeline
    from difix_model.gate.apply import apply_gate
    from difix_model.gate.config import DEFAULT_GATE

    pipe = DifixPipeline.from_pretrained(model)
    own = pipe.metadata.gate
    gates = {"no gate": None, "the weights' own gate": own, "default gate": DEFAULT_GATE}
    rows: list[dict[str, Any]] = []
    samples = read_samples(scenes, renders)
    for number, sample in enumerate(samples):
        fixers = {name: fixer(sample) for name, fixer in (HARMFUL | HELPFUL).items()}
        fixers[f"weights: {model}"] = pipe.fix(
            sample.render, sample.reference if pipe.uses_reference else None, gate="off"
        )
        for fixer, fixed in fixers.items():
            for gate, config in gates.items():
                if gate == "the weights' own gate" and (own is None or not fixer.startswith("weights")):
                    continue
                for alpha in (None, sample.alpha) if config is not None else (None,):
                    result = apply_gate(sample.render, fixed, config, alpha=alpha, references=sample.reference).rgb
                    named = f"{gate}, opacity given" if alpha is not None else gate
                    rows.append(
                        {"kind": sample.kind, "scene": sample.scene, "view": sample.name, "fixer": fixer}
                        | {"gate": named}
                        | _change(sample, result)
                    )
        print(f"{number + 1} of {len(samples)}: {sample.kind}/{sample.scene}/{sample.name}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "do_no_harm.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = _markdown(rows, f"weights: {model}")
    (out / "do_no_harm.md").write_text(text, encoding="utf-8")
    print(text)
    print(out / "do_no_harm.md")


def _change(sample: Sample, result: torch.Tensor) -> dict[str, float]:
    from image_metrics import psnr, ssim

    # As it would be in an image file.
    result = (result * 255).round() / 255
    before = float(psnr(sample.render[0], sample.photo[0])), ssim(sample.render[0], sample.photo[0], border="inside")
    after = float(psnr(result[0], sample.photo[0])), ssim(result[0], sample.photo[0], border="inside")
    return {"before": before[0], "psnr": after[0] - before[0], "ssim": after[1] - before[1]}


def _markdown(rows: list[dict[str, Any]], weights: str) -> str:
    lines = ["| renders | scene | views | before dB | gate | mean dB | worst dB | mean SSIM | worst SSIM |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for kind in ("good", "bad"):
        names = sorted({row["scene"] for row in rows if row["kind"] == kind})
        for scene in [*names, "all"]:
            for gate in dict.fromkeys(row["gate"] for row in rows):
                found = _select(rows, kind=kind, fixer=weights, gate=gate)
                found = [row for row in found if scene in (row["scene"], "all")]
                if found:
                    before = np.mean([row["before"] for row in found])
                    lines.append(
                        f"| {kind} | {scene} | {len(found)} | {before:.2f} | {gate} | {_mean_worst(found, 'psnr', 2)} "
                        f"| {_mean_worst(found, 'ssim', 4)} |"
                    )
    lines += [
        "",
        "| simulated fixer | good: no gate, mean (worst) | good: default gate | bad: no gate | bad: default gate |",
    ]
    lines.append("|---|---|---|---|---|")
    for fixer in HARMFUL | HELPFUL:
        cells = []
        for kind in ("good", "bad"):
            for gate in ("no gate", "default gate"):
                gains = [row["psnr"] for row in _select(rows, kind=kind, fixer=fixer, gate=gate)]
                cells.append(f"{np.mean(gains):+.2f} ({min(gains):+.2f})" if gains else "")
        lines.append(f"| {fixer} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _select(rows: list[dict[str, Any]], **wanted: str) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _mean_worst(rows: list[dict[str, Any]], key: str, digits: int) -> str:
    values = [row[key] for row in rows]
    return f"{np.mean(values):+.{digits}f} | {min(values):+.{digits}f}"


if __name__ == "__main__":
    verbs = {"renders": make_renders, "table": make_tables, "references": print_references}
    tyro.extras.subcommand_cli_from_dict(verbs, description=__doc__)
