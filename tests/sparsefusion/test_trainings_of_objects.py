"""Trainings lower their losses, go on bit for bit, and see what they are told to see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparsefusion import (
    Co3dCategory,
    EftConfig,
    InputError,
    ModelConfig,
    SparseFusionModel,
    UNetConfig,
    VaeConfig,
    build_model,
    cache_views,
)
from sparsefusion.training.autoencoder import DECODER, VaeTask, scale_of_latents
from sparsefusion.training.config import DenoiserTrainConfig, GeneratedObjectsConfig, JointTrainConfig, VaeTrainConfig
from sparsefusion.training.denoiser import DenoiserTask
from sparsefusion.training.features import QueryFeatures, weights_digest
from sparsefusion.training.joint import JointTask, draw_query
from sparsefusion.training.objects import Co3dObjects, PrecastObjects
from support.sparsefusion_cases import ReferenceData
from train_runs import Loop, LoopConfig, OptimizerConfig

NETWORKS = ModelConfig(
    eft=EftConfig(encoder_width=4, encoder_tail=False, hidden=16, num_layers=1, num_depths=4, depth_margin=2.0),
    unet=UNetConfig(dim=8, dim_mults=(1, 2), num_resnet_blocks=1, cond_channels=16, num_heads=2, head_dim=8),
    vae=VaeConfig(block_channels=(8, 8, 8), norm_groups=4),
    image_size=32,
)
OBJECTS = GeneratedObjectsConfig(image_size=32, num_objects=4, num_views=6)
QUICK = OptimizerConfig(learning_rate=2e-3)


@pytest.fixture(autouse=True)
def _gradients():
    with torch.enable_grad():
        yield


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> PrecastObjects:
    return PrecastObjects(tmp_path_factory.mktemp("objects"), OBJECTS)


def networks() -> SparseFusionModel:
    torch.manual_seed(0)
    return build_model(NETWORKS)


def joint(objects, **more) -> JointTask:
    changes: dict[str, Any] = {"diffusion_batch": 2} | more
    config = JointTrainConfig(eft=QUICK, denoiser=QUICK, **changes)
    return JointTask(config, networks(), objects)


def autoencoder(objects) -> VaeTask:
    return VaeTask(VaeTrainConfig(optimizer=QUICK, batch_size=2), networks().vae, objects)


def decoder(objects) -> VaeTask:
    return VaeTask(VaeTrainConfig(optimizer=QUICK, batch_size=2, decoder_only=True), networks().vae, objects)


def features(objects) -> QueryFeatures:
    return QueryFeatures(objects.folder / "features", networks().eft, NETWORKS, objects, num_queries=2)


def denoiser(objects) -> DenoiserTask:
    return DenoiserTask(DenoiserTrainConfig(optimizer=QUICK, batch_size=4), networks(), features(objects))


@pytest.mark.parametrize("make", [joint, autoencoder, decoder, denoiser])
def test_a_stopped_training_ends_in_the_same_bits(objects, tmp_path: Path, make):
    config = LoopConfig(max_steps=2, checkpoint_every=1, ema_decay=0.9, ema_warmup="power")
    Loop(make(objects), tmp_path / "whole", config).train_until(2)
    Loop(make(objects), tmp_path / "halves", config).train_until(1)
    again = Loop(make(objects), tmp_path / "halves", config)
    assert again.step == 1
    again.train_until(2)
    (file,) = (tmp_path / "whole" / "model").glob("*.safetensors")
    whole, halves = load_file(file), load_file(tmp_path / "halves" / "model" / file.name)
    assert all(torch.equal(value, halves[name]) for name, value in whole.items())


def test_both_networks_learn_and_the_autoencoder_is_left_alone(objects):
    task = joint(objects)
    frozen = {name: value.clone() for name, value in task.model.vae.state_dict().items()}
    loop = Loop(task, None, LoopConfig(max_steps=20, log_every=5))
    loop.train_until(20)
    first, last = loop.history[0].terms, loop.history[-1].terms
    assert last["color"] < 0.9 * first["color"]
    assert last["diffusion"] < 0.9 * first["diffusion"]
    assert all(torch.equal(value, frozen[name]) for name, value in task.model.vae.state_dict().items())


def test_a_denoiser_alone_learns_and_the_others_are_left_alone(objects):
    task = denoiser(objects)
    frozen = {name: value.clone() for part in (task.model.eft, task.model.vae) for name, value in state(part).items()}
    loop = Loop(task, None, LoopConfig(max_steps=30, log_every=5))
    loop.train_until(30)
    assert loop.history[-1].terms["diffusion"] < 0.9 * loop.history[0].terms["diffusion"]
    after = {name: value for part in (task.model.eft, task.model.vae) for name, value in state(part).items()}
    assert all(torch.equal(value, frozen[name]) for name, value in after.items())


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return module.state_dict()


def test_features_are_what_the_transformer_says_and_are_computed_once(objects):
    found = features(objects)
    (file,) = found.paths
    made_at = file.stat().st_mtime_ns
    sequence, photos, asked = found.query(5)
    assert asked not in photos
    assert sequence.name == objects.read(2).name
    inputs = sequence.subset(photos)
    told = cache_views(
        networks().eft, inputs.rgb, inputs.cameras, sequence.cameras, sequence.cameras[[asked]], latent_size=8
    )
    torch.testing.assert_close(found.features(5), told.features[0], atol=5e-3, rtol=5e-3)
    assert torch.equal(found.view(5), sequence.rgb[asked])
    assert features(objects).paths == found.paths
    assert file.stat().st_mtime_ns == made_at
    other = build_model(NETWORKS).eft
    assert weights_digest(other) != weights_digest(networks().eft)
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="delete it"):
        features(objects).features(5)
    file.unlink()


def test_a_decoder_is_trained_without_its_encoder(objects):
    task = decoder(objects)
    before = {name: value.clone() for name, value in state(task.vae.model).items()}
    Loop(task, None, LoopConfig(max_steps=1)).train_until(1)
    changed = {name for name, value in state(task.vae.model).items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(DECODER) for name in changed)


def test_the_diffusion_loss_reaches_the_transformer(objects):
    task = joint(objects)
    torch.nn.init.normal_(task.model.denoiser.final_conv.weight)
    losses = task.losses(objects.read(0), step=0, generator=torch.Generator().manual_seed(0))
    losses["diffusion"].backward()
    assert all(value.grad.abs().sum() > 0 for value in task.model.eft.t3.pre.parameters())  # type: ignore[union-attr]


def test_an_autoencoder_learns(objects):
    loop = Loop(autoencoder(objects), None, LoopConfig(max_steps=25, log_every=5))
    loop.train_until(25)
    assert loop.history[-1].terms["absolute"] < 0.7 * loop.history[0].terms["absolute"]
    vae, rgb = loop.task.vae.eval(), objects.read(0).rgb  # type: ignore[attr-defined]
    with torch.no_grad():
        assert (scale_of_latents(vae, rgb) * vae.encode(2 * rgb - 1).std() / vae.scale).item() == pytest.approx(1)


def test_queries_take_what_they_are_told(objects):
    model, generator = networks(), torch.Generator().manual_seed(0)
    config = JointTrainConfig(diffusion_batch=0, num_rays=20, distinct_query=True, min_contexts=2, max_contexts=3)
    sequence = objects.read(1)
    seen = set()
    for _ in range(12):
        query = draw_query(sequence, model, config, generator)
        seen.add(len(query.photos))
        assert query.view.names[0] not in query.photos.names
        assert len(set(query.rays.tolist())) == 20
    assert seen == {2, 3}
    published = draw_query(sequence, model, JointTrainConfig(), generator)
    assert len(published.rays) == 8 * 8
    assert published.noise.shape == (12, 4, 8, 8)


def test_generated_objects_are_cast_once_and_read_back(objects, tmp_path: Path):
    (file,) = objects.folder.glob("*.safetensors")
    made_at = file.stat().st_mtime_ns
    again = PrecastObjects(objects.folder, OBJECTS).read(2)
    assert file.stat().st_mtime_ns == made_at
    assert torch.equal(again.rgb, objects.read(2).rgb)
    assert not torch.equal(again.rgb, objects.read(3).rgb)
    assert (again.rgb[:, :, again.masks.amax(dim=(0, 1)) == 0] == 0).all()
    damaged = PrecastObjects(tmp_path, OBJECTS)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="delete it"):
        damaged.read(0)


@pytest.mark.reference
def test_a_co3d_category_is_trained_on(recordings: ReferenceData, tmp_path: Path):
    root = recordings.folder / "co3d_tiny"
    name = next(path.name for path in sorted(root.iterdir()) if (path / "frame_annotations.jgz").is_file())
    for subset in ("fewview_train", "fewview_dev"):
        if (root / name / "set_lists" / f"set_lists_{subset}.json").is_file():
            objects = Co3dObjects(Co3dCategory(root, name, subset, image_size=32), num_frames=5)  # type: ignore[arg-type]
    assert len(objects.read(0, 1)) == 5
    assert objects.read(0, 1).names == objects.read(0, 1).names
    loop = Loop(joint(objects), None, LoopConfig(max_steps=2, log_every=1))
    loop.train_until(2)
    assert loop.history[-1].terms["diffusion"] > 0


@pytest.mark.slow
def test_two_processes_train_one_model(objects, tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from sparsefusion.checkpoints import build_model\n"
        "from sparsefusion.config import EftConfig, ModelConfig, UNetConfig, VaeConfig\n"
        "from sparsefusion.training.config import GeneratedObjectsConfig, JointTrainConfig\n"
        "from sparsefusion.training.joint import JointTask\n"
        "from sparsefusion.training.objects import PrecastObjects\n"
        "from train_runs import Loop, LoopConfig, OptimizerConfig, Processes\n"
        f"networks, objects_config, quick = {NETWORKS!r}, {OBJECTS!r}, {QUICK!r}\n"
        "processes = Processes()\n"
        "torch.manual_seed(processes.rank)\n"
        f"objects = PrecastObjects(Path({str(objects.folder)!r}), objects_config)\n"
        "config = JointTrainConfig(eft=quick, denoiser=quick, diffusion_batch=2)\n"
        "task = JointTask(config, build_model(networks), objects, processes=processes)\n"
        f"loop = Loop(task, Path({str(tmp_path / 'run')!r}), LoopConfig(max_steps=3), processes=processes)\n"
        "loop.train_until(3)\n"
        "total = sum(float(v.double().sum()) for v in loop.parameters.values())\n"
        f"Path({str(tmp_path)!r}, f'total_{{processes.rank}}').write_text(repr(total))\n"
        "processes.close()\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=300, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "total_0").read_text() == (tmp_path / "total_1").read_text()
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
