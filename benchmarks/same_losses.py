"""Losses and weights of short seeded trainings, to the bit: run it on two revisions and compare what it prints.

    uv run python benchmarks/same_losses.py > after.txt
    git worktree add ../before REVISION
    cp benchmarks/same_losses.py ../before/benchmarks/
    (cd ../before && uv run --frozen python benchmarks/same_losses.py) > before.txt
    diff before.txt after.txt

A change that is not meant to change results shows no difference. A tiny fixer is trained on pairs of noise, with all
that the result of a step depends on: accumulation, moving average, cosine schedule with warm-up, augmentation,
references that are dropped or wrong, and a second part after a save and a load; then the UNet of the
embedded weights, for some steps of their recipe; then splats on a small generated scene: rounds whose fixer adds a
little of the photo and a little noise, rounds whose fixer does harm and is undone, and distillation with a fixer; each
beside its plain training; then splats on noise with every option of their trainer. Compare on one machine: the bits are
those of a CPU with one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

SIDE = 32


def write_pairs(folder: Path) -> Path:
    """Pairs of noise, with and without a reference, as a pairs file."""
    rng = np.random.default_rng(0)
    splits: dict[str, dict[str, dict[str, str]]] = {"train": {}, "test": {}}
    for number in range(7):
        entry = {"prompt": "remove degradation"}
        for key in ("image", "target_image", *(("ref_image",) if number % 3 else ())):
            entry[key] = f"{key}_{number}.png"
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / entry[key])
        splits["train" if number < 5 else "test"][f"pair_{number}"] = entry
    path = folder / "pairs.json"
    path.write_text(json.dumps(splits), encoding="utf-8")
    return path


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of all tensors of a model."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:32]


def train_fixer(folder: Path) -> None:
    """Twelve steps of a tiny network, stopped and resumed after seven."""
    from difix_train import DataConfig, LossConfig, OptimizerConfig, RunSettings, TrainConfig, open_run

    config = TrainConfig(
        max_steps=12,
        batch_size=2,
        gradient_accumulation=2,
        ema_decay=0.9,
        trainable="all",
        log_every=1,
        checkpoint_every=7,
        validate_every=6,
        loss=LossConfig(lpips_weight=0.0, gram_weight=0.0, l1_weight=0.3),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=3),
        data=DataConfig(
            height=SIDE, width=SIDE, drop_reference_prob=0.3, wrong_reference_prob=0.3, horizontal_flip_prob=0.5
        ),
    )
    settings = RunSettings(pairs=write_pairs(folder), out=folder / "run", preset="tiny", config=config)
    for part in (dataclasses.replace(settings, stop_at=7), dataclasses.replace(settings, resume=True)):
        run = open_run(part)
        while not run.done:
            run.advance()
    for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        if values["kind"] == "train":
            print(
                "fixer", values["step"], values["loss"].hex(), values["grad_norm"].hex(), values["learning_rate"].hex()
            )
        else:
            print("fixer", values["step"], *(f"{name} {row['psnr']:.4f}" for name, row in values["after"].items()))
    print("fixer weights", digest(load_file(folder / "run" / "model" / "model.safetensors")))


def train_recipe() -> None:
    """Eight steps of the recipe of the embedded weights."""
    from difix_model import DifixNetwork, small_config
    from difix_model.identity import start_at_identity
    from embedded_weights.coarse_pairs import CoarsePairs
    from embedded_weights.config import StageConfig, stage_optimizer
    from embedded_weights.task import CoarseTask
    from train_runs import Loop

    torch.manual_seed(0)
    network = DifixNetwork(small_config((16, 32)))
    start_at_identity(network)
    embedding = torch.randn(4, network.config.unet.cross_attention_dim)
    config = StageConfig(
        max_steps=8,
        batch_size=4,
        log_every=1,
        optimizer=stage_optimizer(warmup_steps=3),
        ema_decay=0.995,
        ema_warmup="ratio_from_zero",
    )
    pairs = [CoarsePairs(**values) for values in _coarse_values()]
    loop = Loop(CoarseTask(network, pairs, config, text_embedding=embedding), None, config)
    loop.train_until(8)
    losses = [record.loss for record in loop.history]
    assert loop.ema is not None
    loop.ema.swap(loop.parameters)
    for step, loss in enumerate(losses, start=1):
        print("recipe", step, loss.hex())
    print("recipe weights", digest(network.unet.state_dict()))


def _coarse_values() -> list[dict[str, torch.Tensor]]:
    """Two sets of coarse pairs of noise."""
    found = []
    for seed, height, width in ((1, 8, 10), (2, 12, 8)):
        rng = np.random.default_rng(seed)
        values = {
            name: torch.from_numpy(rng.uniform(0, 1, (12, 4, height, width))).float()
            for name in ("rendered", "photo", "reference")
        }
        found.append(values | {"irreducible_mse": torch.from_numpy(rng.uniform(0, 0.01, 12)).float()})
    return found


def mixed_in(request: Any) -> Any:
    """A fixer: a tenth of the nearest photo's mean color."""
    from difix3d import FixResult

    colors = torch.stack([references[0].mean(dim=(0, 1)) for references in request.references])
    return FixResult.of(request, 0.9 * request.rgb + 0.1 * colors[:, None, None].to(request.rgb))


def harmful(request: Any) -> Any:
    """A fixer that inverts colors."""
    from difix3d import FixResult

    return FixResult.of(request, 1 - request.rgb)


LOOPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rounds": (mixed_in, {"loop": "rounds", "rounds.num_rounds": 3, "num_references": 2, "validation.fraction": 0.0}),
    "confidence": (
        mixed_in,
        {"loop": "rounds", "rounds.num_rounds": 2, "mixture.unseen_weight": 0.3, "mixture.photo_tolerance": 0.1},
    ),
    "rollback": (
        harmful,
        {
            "loop": "rounds",
            "mixture.novel_prob": 0.9,
            "mixture.novel_weight": 2.0,
            "validation.fraction": 0.2,
            "validation.min_views": 5,
        },
    ),
    "distillation": (mixed_in, {"loop": "distillation", "num_novel": 6, "stereo": "off"}),
}
"""Fixer and settings of each loop."""


def train_loop(name: str, scene: Path, folder: Path) -> None:
    """One run of difix3d on a scene: its measurements and splats."""
    from difix3d import Experiment, RunFolder, RunSettings
    from splat_render import read_ply

    fixer, own = LOOPS[name]
    settings = RunSettings(scene=str(scene), max_steps=60, split="every:3", seed=1, device="cpu")
    for setting, value in own.items():
        settings = settings.changed(setting, value)
    for _ in Experiment(settings, RunFolder(folder), fixer=fixer).run():
        pass
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        loss = values["loss"]
        print(name, values["step"], values["variant"], values["psnr"].hex(), "-" if loss is None else loss.hex())
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    print(name, "rounds", metrics["rounds"]["made"], "undone", metrics["rounds"]["undone"])
    for splat in ("plain", "loop"):
        gaussians = read_ply(folder / f"{splat}.ply")
        tensors = {field.name: getattr(gaussians, field.name) for field in dataclasses.fields(gaussians)}
        print(name, splat, len(gaussians), digest(tensors), metrics["variants"][splat]["psnr"].hex())


def train_splats(folder: Path) -> None:
    """Every loop on one small generated scene."""
    from splat_recon import SyntheticConfig, generate_scene, write_scene

    config = SyntheticConfig(layout="table", num_views=12, width=40, height=32, num_points=100, samples_per_axis=1)
    write_scene(folder / "scene", generate_scene(5, config))
    for name in LOOPS:
        train_loop(name, folder / "scene", folder / name)


def train_options(folder: Path) -> None:
    """Sixteen steps of splats, stopped and resumed after nine, by each kind of density control and option."""
    from splat_recon import (
        AdcConfig,
        BilateralGridConfig,
        DepthConfig,
        ExposureConfig,
        McmcConfig,
        PoseConfig,
        SplatTrainer,
        TrainConfig,
        ViewSet,
    )
    from splat_recon.evaluate import evaluate

    scene = _noise_scene()
    adc = AdcConfig(refine_start=2, refine_every=4, refine_stop=11, reset_every=0, grow_grad2d=1e-6, cap_max=120)
    mcmc = McmcConfig(refine_start=2, refine_every=4, refine_stop=11, cap_max=80, growth=0.2)
    steps: dict[str, Any] = {"max_steps": 16, "log_every": 1, "sh_degree_every": 4}
    configs = {
        "adc": TrainConfig(strategy=adc, **steps),
        "absgrad": TrainConfig(
            strategy=dataclasses.replace(adc, absgrad=True, revised_opacity=True, reset_every=6),
            antialiased=True, random_background=True, dropout=0.2, batch_size=2, **steps,
        ),
        "mcmc": TrainConfig(strategy=mcmc, opacity_reg=0.01, scale_reg=0.01, init_scale=0.3, **steps),
        "photos": TrainConfig(
            strategy=adc, pose=PoseConfig(start=1), appearance=ExposureConfig(), depth=DepthConfig(), **steps
        ),
        "bilateral": TrainConfig(strategy=mcmc, appearance=BilateralGridConfig(width=4, height=4, levels=2), **steps),
    }  # fmt: skip
    for name, config in configs.items():
        trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), config)
        trainer.train_until(9)
        trainer.save(folder / name)
        trainer = SplatTrainer.load(folder / name, scene, ViewSet.from_views(scene.views))
        trainer.train_until(16)
        for record in trainer.history:
            print("options", name, record.step, record.loss.hex(), record.num_gaussians)
        scores = evaluate(lambda camera, trainer=trainer: trainer.render(camera).rgb, scene.views)
        print("options", name, scores.psnr.hex(), scores.ssim.hex(), digest(trainer.gaussians.parameters()))


def _noise_scene() -> Any:
    """Four photos of smooth noise, some with a mask, around forty points."""
    from splat_recon import Points, Scene, View
    from splat_render import Camera

    rng = np.random.default_rng(0)
    K = np.array([[40.0, 0, 18], [0, 40, 14], [0, 0, 1]])
    views = []
    for number in range(4):
        T_world_cam = np.eye(4)
        T_world_cam[:3, 3] = (0.3 * number - 0.5, 0.1 * number, -3.0)
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        views.append(
            View(
                name=f"{number}.png",
                camera=Camera(T_world_cam=T_world_cam, K=K, width=36, height=28),
                rgb_u8=np.asarray(small.resize((36, 28), Image.Resampling.BICUBIC)),
                mask=None if number % 2 else np.indices((28, 36))[1] < 30,
            )
        )
    points = Points(
        p_world=rng.normal(size=(40, 3)).astype(np.float32), rgb_u8=rng.integers(0, 256, (40, 3), dtype=np.uint8)
    )
    return Scene(views=tuple(views), points=points, name="noise")


def main() -> None:
    """Train, and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train_fixer(Path(folder))
    train_recipe()
    with tempfile.TemporaryDirectory() as folder:
        train_splats(Path(folder))
        train_options(Path(folder))


if __name__ == "__main__":
    main()
