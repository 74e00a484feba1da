"""Several processes: the engine's part on CPUs over gloo, and what is asked of gsplat's distributed mode.

gsplat itself exchanges projected Gaussians between GPUs; here a stand-in gathers the Gaussians of all processes and
renders them with the CPU rasterizer, which gives each process the same image and the same gradients.
"""

import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splat_recon import AdcConfig, InputError, PoseConfig, SplatTrainer, TrainConfig, ViewSet, absgrad_config
from splat_recon.distributed import World, check_world, joined_tensors, shared_tensors
from splat_render import Gaussians, RenderConfig
from splat_render.gsplat_backend import SharedGsplatRasterizer
from support.ranks import run_ranks
from support.rendered_scenes import ball, photographed, ring_camera
from support.splat_scenes import make_camera, make_gaussians, watched

PROCESS = """
    import sys
    from pathlib import Path
    import torch
    import torch.distributed as dist
    from splat_recon import distributed, trainer as engine
    from splat_recon.config import TrainConfig
    from splat_recon.distributed import World
    from splat_recon.views.view_set import ViewSet
    import json
    from support.rendered_scenes import ball, photographed, ring_camera
    from support.shared_rasterizer import GatheringRasterizer

    engine.SharedGsplatRasterizer = GatheringRasterizer
    torch.set_num_threads(1)

    def main():
        out = Path(sys.argv[1])
        config = TrainConfig.from_dict(json.loads(sys.argv[2]))
        scene = photographed(ball(80), [ring_camera(index, 6, width=24, height=20) for index in range(6)])
        world = World.from_environment()
        with world.joined("gloo"):
            trainer = engine.SplatTrainer(scene, ViewSet.from_views(scene.views), config, world=world)
            trainer.train_until(6)
            trainer.save(out / "six")
            dist.barrier()
            trainer = engine.SplatTrainer.load(out / "six", scene, ViewSet.from_views(scene.views), world=world)
            trainer.train_until(12)
            assert len(trainer.gaussians) == 40
            every = trainer.all_gaussians()
            trainer.save(out / "twelve")
            if world.rank == 0:
                torch.save({"gaussians": every.parameters(), "loss": trainer.history[-1].loss}, out / "result.pt")
"""


def test_two_processes_train_as_one_does_with_two_photos_per_step(tmp_path: Path):
    config = TrainConfig(
        max_steps=20, sh_degree=1, sh_degree_every=5, log_every=4, opacity_reg=0.01, random_background=True,
        strategy=AdcConfig(refine_stop=0, reset_every=0), init_opacity=0.6,
    )  # fmt: skip
    run_ranks(PROCESS, tmp_path, json.dumps(config.to_dict()), folder=tmp_path)
    shared = torch.load(tmp_path / "result.pt")

    scene = photographed(ball(80), [ring_camera(index, 6, width=24, height=20) for index in range(6)])
    alone = SplatTrainer(scene, ViewSet.from_views(scene.views), replace(config, batch_size=2))
    alone.train_until(12)
    assert shared["loss"] == pytest.approx(alone.history[-1].loss, rel=1e-3)
    # The shards lie one after the other; the colors never change places within them.
    order = torch.cat([torch.arange(80)[rank::2] for rank in range(2)])
    order = torch.cat([order[rank::2] for rank in range(2)])
    for name, tensor in alone.gaussians.parameters().items():
        torch.testing.assert_close(shared["gaussians"][name], tensor[order], rtol=0.02, atol=2e-3)
    loaded = SplatTrainer.load(tmp_path / "twelve", scene, ViewSet.from_views(scene.views))
    assert loaded.step == 12
    assert len(loaded.gaussians) == 80
    loaded.train_until(13)


def test_shares_are_joined_and_shared_again():
    shards = [
        {"gaussians.means": torch.full((2, 3), float(rank)), "adam.step.means": torch.tensor(4.0),
         "generator.density": torch.tensor([rank])}
        for rank in range(3)
    ]  # fmt: skip
    joined = joined_tensors(shards)
    assert joined["gaussians.means"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    own = shared_tensors(joined, World(rank=1, size=3))
    assert own["gaussians.means"][:, 0].tolist() == [0, 2]
    assert own["adam.step.means"] == 4
    assert own["generator.density"].tolist() == [1]
    assert shared_tensors(joined, World()).keys() == shards[0].keys()


def test_the_world_is_torchruns(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert World.from_environment() == World(rank=0, size=1, local_rank=0)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert World.from_environment() == World(rank=5, size=8, local_rank=1)


def test_what_several_processes_cannot_do_is_refused_at_once():
    world, sizes = World(size=2), [(8, 8), (8, 8)]
    check_world(TrainConfig(), world, sizes)
    check_world(absgrad_config(), World(), sizes)
    for config, where, sentence in (
        (absgrad_config(), sizes, "no absolute gradients"),
        (TrainConfig(pose=PoseConfig()), sizes, "one process only"),
        (TrainConfig(packed=True), sizes, "are for one process"),
        (TrainConfig(), [(8, 8), (9, 8)], "one size, found 2"),
    ):
        with pytest.raises(InputError, match=sentence):
            check_world(config, world, where)


def test_gsplat_is_asked_for_its_distributed_mode_and_gradients_of_all_photos_come_back(
    monkeypatch: pytest.MonkeyPatch,
):
    calls = []

    def rasterization(**arguments):
        calls.append(arguments)
        means2d = torch.stack([arguments["means"][:, :2] * factor for factor in (1.0, 10.0)])
        colors = torch.zeros(1, 12, 20, 4) + means2d[0].sum() + 3 * means2d[1].sum()
        radii = torch.tensor([[[3, 4], [0, 0], [9, 2]], [[1, 1], [2, 5], [0, 0]]], dtype=torch.int32)
        return colors, torch.full((1, 12, 20, 1), 0.5), {"means2d": means2d, "radii": radii}

    fake = types.ModuleType("gsplat")
    fake.rasterization = rasterization  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gsplat", fake)
    gaussians: Gaussians = watched(make_gaussians(3))
    camera = make_camera(20, 12)
    output = SharedGsplatRasterizer(RenderConfig(near=0.02))(gaussians, camera, sh_degree=1, background=None)
    (call,) = calls
    assert call["distributed"] is True
    assert call["packed"] is False
    assert call["near_plane"] == 0.02
    np.testing.assert_allclose(call["viewmats"][0].numpy(), camera.T_cam_world, rtol=1e-6)
    output.rgb.mean().backward()
    assert [stats.radii_px.tolist() for stats in output.all_stats] == [[4, 0, 9], [1, 5, 0]]
    for stats, gradient in zip(output.all_stats, (1.0, 3.0), strict=True):
        torch.testing.assert_close(stats.means2d.grad, torch.full((3, 2), gradient))
