"""The method around nerfacto: rounds, resume to the bit, evaluation without the fixer, checkpoints that do not fit."""

from __future__ import annotations

import copy
from pathlib import Path

import difix3d_nerfstudio.entry  # noqa: F401 - lets torch read nerfstudio's checkpoints, as every ns-* command does.
import pytest
import torch
from difix3d_nerfstudio.checkpoints import check_model_state
from difix3d_nerfstudio.errors import InputError
from difix3d_nerfstudio.models import NOVEL

from conftest import NUM_PHOTOS, small_nerfacto, train


def checkpoint_of(trainer) -> Path:
    (path,) = trainer.checkpoint_dir.glob("*.ckpt")
    return path


@pytest.fixture(scope="module")
def trained(scene: Path, tmp_path_factory: pytest.TempPathFactory):
    """A finished run; tests read it and leave its parameters alone."""
    return train(small_nerfacto(scene, tmp_path_factory.mktemp("trained")))


def test_two_rounds_train_stop_resume_and_evaluate(nerfacto, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole = train(copy.deepcopy(nerfacto))
    pipeline = whole.pipeline
    assert pipeline.num_rounds == 3  # After 8, 18 and 28 steps.
    assert len(pipeline.novel) == 3
    said = capsys.readouterr().out
    assert "Difix3D round 0 at step 8" in said
    assert "novel views" in said
    pictures = sorted(path.name for path in (whole.base_dir / "rounds" / "round_001").iterdir())
    assert pictures[:3] == ["000_fixed.png", "000_reference.png", "000_render.png"]
    assert len(pictures) == 9

    # 15 and 15 steps are 30, bit for bit; the first half ends between two rounds.
    half = copy.deepcopy(nerfacto)
    half.experiment_name, half.max_num_iterations = "half", 15
    first = train(half)
    assert first.pipeline.num_rounds == 1
    rest = copy.deepcopy(half)
    rest.load_dir = first.checkpoint_dir
    second = train(rest)
    assert second.pipeline.num_rounds == 3
    state, again = whole.pipeline.state_dict(), second.pipeline.state_dict()
    assert set(state) == set(again)
    for key, value in state.items():
        if key != "_extra_state":
            assert torch.equal(value, again[key]), key
    for one, other in zip(pipeline.novel.views, second.pipeline.novel.views, strict=True):
        assert (one.rgb_u8 == other.rgb_u8).all()
        assert one.reference == other.reference

    # ns-eval's way: no fixer is opened and no novel view is decoded.
    from nerfstudio.utils.eval_utils import eval_setup

    _, evaluated, _, _ = eval_setup(whole.base_dir / "config.yml", test_mode="test")
    assert evaluated.novel is None
    assert evaluated.fixer._pipeline is None
    metrics = evaluated.get_average_eval_image_metrics()
    assert 0 < metrics["psnr"] < 100
    assert metrics["lpips"] != metrics["lpips"]  # NaN: its network is not here.


def test_novel_batches_come_from_novel_views_and_leave_poses_alone(trained):
    pipeline = trained.pipeline
    bundle, batch = pipeline.novel.rays(64, torch.Generator().manual_seed(1))
    references = {view.reference for view in pipeline.novel.views}
    assert set(bundle.camera_indices.flatten().tolist()) <= references <= set(range(NUM_PHOTOS - 1))
    assert bundle.metadata[NOVEL].shape == (64, 1)
    assert batch["image"].shape == (64, 3)
    batch["weight"] = torch.ones(64)  # A field of 30 steps is transparent: none of its pixels would count.
    pipeline.train()
    outputs = pipeline.model(bundle)
    losses = pipeline.model.get_loss_dict(outputs, batch, pipeline.model.get_metrics_dict(outputs, batch))
    pipeline.zero_grad()
    losses["rgb_loss"].backward()
    adjustment = pipeline.model.camera_optimizer.pose_adjustment
    assert adjustment.grad is None or not adjustment.grad.any()
    embedding = pipeline.model.field.embedding_appearance.embedding.weight.grad
    rows = set(embedding.abs().sum(dim=1).nonzero().flatten().tolist())
    assert rows
    assert rows <= references
    # Rays of photos do move poses.
    photo_bundle, photo_batch = pipeline.datamanager.next_train(0)
    outputs = pipeline.model(photo_bundle)
    photo = pipeline.model.get_loss_dict(outputs, photo_batch, pipeline.model.get_metrics_dict(outputs, photo_batch))
    photo["rgb_loss"].backward()
    assert adjustment.grad.abs().max() > 0


def test_weights_of_pixels_decide_what_the_loss_sees(trained):
    pipeline = trained.pipeline
    bundle, batch = pipeline.novel.rays(32, torch.Generator().manual_seed(2))
    pipeline.eval()
    outputs = pipeline.model(bundle)
    batch["weight"] = (torch.arange(32) < 16).float()
    changed = {**batch, "image": batch["image"].clone()}
    changed["image"][16:] = 0.123
    loss, same = (pipeline.model.get_loss_dict(outputs, each)["rgb_loss"] for each in (batch, changed))
    assert torch.equal(loss, same)
    expected = ((outputs["rgb"][:16] - batch["image"][:16]) ** 2).mean()
    torch.testing.assert_close(loss, expected)


def test_checkpoints_that_do_not_fit_name_the_flag(trained, nerfacto):
    state = torch.load(checkpoint_of(trained), map_location="cpu", weights_only=True)["pipeline"]
    model = trained.pipeline.model
    check_model_state(state, model, method="difix3d")
    without_poses = {key: value for key, value in state.items() if "camera_optimizer" not in key}
    with pytest.raises(InputError, match=r"camera-optimizer\.mode off") as refused:
        check_model_state(without_poses, model, method="difix3d")
    assert refused.value.code == 2
    fewer = {key: value[:, :-4] if "mlp_head.layers.0.weight" in key else value for key, value in state.items()}
    with pytest.raises(InputError, match="appearance-embed-dim"):
        check_model_state(fewer, model, method="difix3d")
    with pytest.raises(InputError, match="difix3d-splat"):
        check_model_state({"_model.gauss_params.means": torch.zeros(3, 3)}, model, method="difix3d")
    renamed = {key.replace("field.mlp_base", "field.mlp_bass"): value for key, value in state.items()}
    with pytest.raises(InputError, match="does not fit difix3d"):
        check_model_state(renamed, model, method="difix3d")
    compiled = {("_model.field.mlp_base.params" if "mlp_base" in key else key): value for key, value in state.items()}
    with pytest.raises(InputError, match="tinycudann"):
        check_model_state(compiled, model, method="difix3d")


def test_a_finished_nerfacto_begins_with_a_round(trained, nerfacto):
    state = torch.load(checkpoint_of(trained), map_location="cpu", weights_only=True)
    state["pipeline"].pop("_extra_state")  # As nerfacto itself writes it.
    path = trained.base_dir / "nerfacto.ckpt"
    torch.save(state, path)
    config = copy.deepcopy(nerfacto)
    config.experiment_name, config.load_checkpoint, config.max_num_iterations = "after", path, 4
    after = train(config)
    assert after._start_step == 30
    assert after.pipeline.num_rounds == 1
    assert after.pipeline.next_round_step == 40


def test_data_that_cannot_be_read_is_one_sentence(nerfacto, tmp_path: Path, scene: Path):
    import shutil

    def fails(match: str, **changes) -> None:
        config = copy.deepcopy(nerfacto)
        config.pipeline.datamanager.data = changes.pop("data", scene)
        for name, value in changes.items():
            setattr(config.pipeline.datamanager.dataparser, name, value)
        with pytest.raises(InputError, match=match) as refused:
            config.pipeline.setup(device="cpu")
        assert refused.value.code == 2

    fails("images_4.*--downscale-factor 1", downscale_factor=4)
    bad = tmp_path / "bad"
    shutil.copytree(scene, bad)
    text = (bad / "transforms.json").read_text(encoding="utf-8")
    (bad / "transforms.json").write_text(text.replace("image_train_1", "photo_1"), encoding="utf-8")
    for place in ("images", "images_2"):
        (bad / place / "image_train_1.png").rename(bad / place / "photo_1.png")
    fails("--eval-mode fraction", data=bad)
    fails("there is no folder or file .*nowhere", data=tmp_path / "nowhere")


def test_targets_are_checked_before_the_first_step(nerfacto, tmp_path: Path):
    config = copy.deepcopy(nerfacto)
    config.pipeline.targets.kind, config.pipeline.targets.path = "file", tmp_path / "absent.json"
    trainer = config.setup(local_rank=0, world_size=1)
    with pytest.raises(InputError, match=r"targets.path .*absent.json"):
        trainer.setup()


def test_one_gpu_only(nerfacto):
    with pytest.raises(InputError, match="one GPU"):
        nerfacto.pipeline.setup(device="cpu", world_size=2)


def test_weights_that_are_not_there_name_the_flag(nerfacto):
    from difix3d_nerfstudio.rounds import Fixer, Rendered

    nerfacto.pipeline.fixer.model = "no-such/weights"
    fixer = Fixer(nerfacto.pipeline.fixer, "cpu")
    with pytest.raises(InputError, match=r"--pipeline.fixer.model no-such/weights"):
        fixer([Rendered(torch.zeros(8, 8, 3), torch.ones(8, 8))], [[torch.zeros(8, 8, 3)]])


def test_lpips_that_cannot_be_downloaded_is_missing_not_fatal(monkeypatch: pytest.MonkeyPatch, capsys):
    from urllib.error import URLError

    from difix3d_nerfstudio.models import MissingLpips, lpips_may_be_missing
    from torchmetrics.image import lpip

    def offline(**_):
        raise URLError("no route")

    monkeypatch.setattr(lpip, "LearnedPerceptualImagePatchSimilarity", offline)
    with lpips_may_be_missing():
        made = lpip.LearnedPerceptualImagePatchSimilarity(normalize=True)
    assert isinstance(made, MissingLpips)
    assert "LPIPS is not measured" in capsys.readouterr().out
    assert lpip.LearnedPerceptualImagePatchSimilarity is offline
