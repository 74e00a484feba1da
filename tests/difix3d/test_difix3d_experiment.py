"""A whole run on a generated scene: what it writes, what it says, and that stopping changes nothing."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch

from difix3d import (
    DifixFixer,
    Experiment,
    IdentityFixer,
    InputError,
    RoundsConfig,
    RunFolder,
    RunSettings,
    ViewFixerConfig,
    open_fixer,
)
from difix3d.report.curves import Curves
from difix3d.report.pictures import labeled_pair
from difix3d.report.results import VariantResult, verdict
from difix3d.report.variants import VARIANTS
from difix3d.run.defaults import resolved
from difix3d.run.fixing_time import FixingTime
from difix3d.run.inputs import RunInputs
from difix3d.run.run_folder import KEPT_CHECKPOINTS, newest_run, numbered
from report_pages import beside
from splat_recon import Evaluation, ViewScore, read_scene
from splat_render import read_ply
from support.fix_requests import request
from support.table_scene import write_table
from support.tiny_fixer import write_tiny_fixer

NUM_FRAMES = 4


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory):
    return write_table(tmp_path_factory, num_views=9, width=40, height=32, num_points=100, samples_per_axis=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of random weights."""
    return write_tiny_fixer(tmp_path_factory.mktemp("weights"), uses_reference=True)


@pytest.fixture(autouse=True)
def _short_film(monkeypatch):
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", NUM_FRAMES)


@pytest.fixture(scope="module")
def settings(scene_folder, weights):
    return RunSettings(
        scene=str(scene_folder),
        fixer=ViewFixerConfig(model=str(weights), gate="off"),
        targets="test",
        stereo="off",
        max_steps=24,
        rounds=RoundsConfig(num_rounds=2),
        split="every:3",
        seed=1,
    )


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("difix3d.report.film.VIDEO_FRAMES", NUM_FRAMES)
        folder = RunFolder(tmp_path_factory.mktemp("runs") / "whole")
        experiment = Experiment(settings, folder)
        phases = [(progress.phase, progress.done, progress.total) for progress in experiment.run()]
    return experiment, folder.path, phases


def test_every_phase_is_reported_up_to_its_end(finished):
    experiment, _, phases = finished
    assert experiment.finished
    assert list(dict.fromkeys(phase for phase, _, _ in phases)) == ["prepare", "train", "compare", "film", "report"]
    for name in {phase for phase, _, _ in phases}:
        done = [(done, total) for phase, done, total in phases if phase == name]
        assert done == sorted(done)
        assert done[-1][0] == done[-1][1]


def test_metrics_hold_all_variants(finished):
    _, folder, _ = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["variants"]) == set(VARIANTS)
    names = set(metrics["per_view"])
    for values in metrics["variants"].values():
        assert values["step"] == 24
        assert values["split"] == "test"
        assert set(values["per_view"]) == names
        assert values["psnr"] == pytest.approx(np.mean([view["psnr"] for view in values["per_view"].values()]))
    best = max(metrics["variants"].values(), key=lambda values: values["psnr"])
    assert metrics["psnr"] == best["psnr"]
    assert metrics["variants"]["loop"]["psnr"] != metrics["variants"]["plain"]["psnr"]
    assert metrics["saw_test_poses"] is True
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 24
    assert {line["variant"] for line in lines} == {"plain", "loop"}


def test_report_is_one_page_that_says_what_it_used(finished):
    experiment, folder, _ = finished
    page = (folder / "report.html").read_text()
    assert "The loop knew where the test photos were taken" in page
    assert experiment.verdict in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<!--" not in page[page.index("<main>") :].replace("<!-- ", "")
    assert page.count("data:image/jpeg") == 3 * 4 + 3 * 3  # Test views, novel views.
    assert "data:video/mp4" in page
    assert "<svg" in page


def test_a_runs_log_says_which_model_was_read(scene_folder, tmp_path):
    for number in ("0", "1"):
        shutil.copytree(scene_folder / "sparse" / "0", tmp_path / "scene" / "sparse" / number)
    folder = RunFolder(tmp_path / "run")
    folder.create()
    with folder.logging_to_file(), pytest.raises(InputError):
        read_scene(tmp_path / "scene")
    assert "holds 2 models, 0 (9 photos), 1 (9 photos): 0 is read" in folder.log.read_text()


def test_run_folder_has_splats_pictures_and_versions(finished, scene_folder):
    _, folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["scene"] == str(scene_folder)
    assert config["resolved"]["max_gaussians"] > 0
    assert "torch" in config["versions"]
    for variant in ("photo", *VARIANTS):
        assert len(list((folder / "images" / variant).glob("*.png"))) == 3
    assert len(list((folder / "images" / "round_01").glob("*.png"))) == 3
    assert "round 2 of novel views" in (folder / "log.txt").read_text()
    assert len(list((folder / "checkpoints").iterdir())) == KEPT_CHECKPOINTS
    # The splat is back in the frame of the COLMAP folder, whose room is a few meters wide around the origin.
    means = read_ply(folder / "loop.ply").means
    assert 0.3 < float(means.std()) < 10


def test_stopping_and_resuming_gives_the_same_run(finished, settings, tmp_path):
    _, whole, _ = finished
    folder = RunFolder(tmp_path / "part")
    for _ in Experiment(settings, folder).run(stop_at=13):
        pass
    assert not (folder.path / "metrics.json").exists()
    # A damaged newest checkpoint is passed over.
    newest = folder.checkpoint(13)
    assert folder.checkpoint_steps()[-1] == 13
    (newest / "loop" / "main" / "splat" / "state.safetensors").write_bytes(b"damaged")
    resumed = Experiment(settings, folder, resume=True)
    list(resumed.run())
    assert resumed.finished
    for name in ("plain.ply", "loop.ply", "best.ply", "metrics.json", "metrics.jsonl"):
        assert (folder.path / name).read_bytes() == (whole / name).read_bytes(), name


def test_bad_input_leaves_nothing_behind(settings, tmp_path):
    for changes, words in (
        ({"scene": str(tmp_path / "nowhere")}, "nowhere"),
        ({"fixer": ViewFixerConfig(model=str(tmp_path / "no_weights"))}, "no_weights"),
        ({"split": "every:0"}, "every:N"),
        ({"sparse": 100}, "100"),
    ):
        folder = RunFolder(tmp_path / "run")
        with pytest.raises(InputError, match=words):
            list(Experiment(dataclasses.replace(settings, **changes), folder).run())
        assert not folder.path.exists()


def test_a_taken_folder_is_refused(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    (folder.path / "photo.png").touch()
    with pytest.raises(InputError, match="not empty"):
        folder.create()
    (folder.path / "config.json").touch()
    with pytest.raises(InputError, match="holds a run already"):
        folder.check_free()
    with pytest.raises(InputError, match="is a file"):
        RunFolder(folder.path / "photo.png").check_free()


def test_a_folder_with_nothing_but_a_log_is_free(tmp_path):
    """As a run leaves it that was killed before it was recorded."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    (folder.path / "log.txt").write_text("killed")
    folder.check_free()
    folder.create()
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        folder.check_free()


def test_a_run_that_goes_on_elsewhere_keeps_the_length_and_sizes_that_it_began_with(tmp_path, scene_folder):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    began_with = {"max_steps": 7, "max_size": 48, "max_gaussians": 300, "num_novel": 3}
    asked = RunSettings(scene=str(scene_folder), rounds=RoundsConfig(num_rounds=1), device="cpu")
    folder.write_configs(asked.to_dict(), asked.to_dict() | began_with, {})
    inputs = RunInputs(asked, folder, FixingTime(), resume=True, fixer=IdentityFixer())
    assert {name: getattr(inputs.settings, name) for name in began_with} == began_with
    assert inputs.config.train.max_steps == 7
    # What was asked for stays what was asked for.
    given = dataclasses.replace(asked, max_steps=9)
    longer = RunInputs(given, folder, FixingTime(), resume=True, fixer=IdentityFixer())
    assert longer.settings.max_steps == 9
    new = RunInputs(asked, folder, FixingTime(), resume=False, fixer=IdentityFixer())
    assert new.settings.max_steps not in (None, 7)


def test_folders_are_numbered_and_the_newest_is_found(tmp_path):
    assert newest_run(tmp_path / "demo") == tmp_path / "demo"
    names = []
    for _ in range(11):
        folder = numbered(tmp_path / "demo")
        names.append(folder.name)
        folder.mkdir()
        (folder / "config.json").touch()
    assert names[:3] == ["demo", "demo-2", "demo-3"]
    assert newest_run(tmp_path / "demo").name == "demo-11"


def test_fixers_by_name(weights):
    assert isinstance(open_fixer(ViewFixerConfig(model="none"), device="cpu"), IdentityFixer)
    fixer = open_fixer(ViewFixerConfig(model=str(weights), gate="off"), device="cpu")
    assert isinstance(fixer, DifixFixer)
    rendered, references = torch.rand(2, 20, 28, 3), torch.rand(2, 40, 30, 3)
    fixed = fixer(request(rendered, references)).rgb
    assert fixed.shape == rendered.shape
    assert 0 <= float(fixed.min()) <= float(fixed.max()) <= 1
    assert not torch.equal(fixed, fixer(request(rendered, 1 - references)).rgb)


def _result(name, psnrs, ssim=0.5, level=None):
    scores = {str(index): ViewScore(psnr=psnr, ssim=ssim, lpips=None) for index, psnr in enumerate(psnrs)}
    evaluation = Evaluation(psnr=sum(psnrs) / len(psnrs), ssim=ssim, lpips=None, per_view=scores)
    renders = {} if level is None else {view: np.full((4, 6, 3), level, dtype=np.uint8) for view in scores}
    return VariantResult(name=name, evaluation=evaluation, num_gaussians=1, renders_u8=renders)


def test_verdict_is_honest():
    plain = _result("plain", [20.0, 22.0], ssim=0.6)
    better = verdict([plain, _result("loop", [20.5, 21.9]), _result("loop_fixed", [21.0, 23.0])], fixed=True)
    assert "the loop + final fix is best: 22.00 dB, +1.00 dB" in better
    assert "2 of 2 views" in better
    assert "By SSIM the plain training is ahead" in better
    worse = verdict([plain, _result("loop", [19.0, 21.0]), _result("loop_fixed", [20.0, 22.02])], fixed=True)
    assert "nothing is clearly better than plain training (21.00 dB" in worse
    assert "-1.00 dB" in worse
    assert "control" in verdict([plain, _result("loop", [19.0, 21.0])], fixed=False)


def test_the_verdict_says_when_the_fixer_had_no_part():
    before, after = _result("loop", [20.5], level=7), _result("loop_fixed", [20.5], level=7)
    assert "changed no pixel" in verdict([_result("plain", [20.0], level=3), before, after], fixed=True)
    after = _result("loop_fixed", [20.5], level=8)
    assert "changed no pixel" not in verdict([_result("plain", [20.0], level=3), before, after], fixed=True)


def test_curves_join_the_loop_to_the_plain_training():
    curves = Curves()
    for step, variant, psnr in ((10, "plain", 11.0), (20, "plain", 12.0), (20, "loop", 13.0)):
        curves.add({"step": step, "variant": variant, "psnr": psnr, "ssim": 0.5})
    latest = curves.latest("loop")
    assert latest is not None
    assert latest["psnr"] == 13.0
    assert curves.latest("other") is None
    svg = curves.svg((12, 15))
    assert svg.startswith("<svg")
    assert ">loop<" in svg
    assert svg == curves.svg((12, 15))


def test_pictures_stand_side_by_side():
    one, other = np.zeros((20, 30, 3), np.uint8), np.full((40, 30, 3), 200, np.uint8)
    row = beside([one, other])
    assert row.shape == (20, 30 + 4 + 15, 3)
    assert row[10, -5].tolist() == [200] * 3
    pair = labeled_pair(torch.zeros(21, 31, 3), torch.ones(21, 31, 3), ("a", "b"))
    assert pair.shape == (20, 66, 3)


def test_without_held_out_photos_all_are_trained_on_and_nothing_is_called_better(settings, tmp_path):
    all_photos = dataclasses.replace(
        settings,
        split="none",
        fixer=ViewFixerConfig(model="none"),
        targets=None,
        max_steps=4,
        rounds=RoundsConfig(num_rounds=1),
    )
    experiment = Experiment(all_photos, RunFolder(tmp_path / "run"))
    assert list(experiment.run())[-1].phase == "report"
    assert len(experiment.inputs.captured) == 9
    assert "No photo was held out" in experiment.verdict
    assert "cannot tell which one is better" in experiment.decision
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["split"] == "train"
    assert {part["gain_db"] for part in metrics["what_helped"]} == {None}
    page = (tmp_path / "run/report.html").read_text()
    assert "Means over the training views" in page
    assert '<span class="gain">' not in page
    with pytest.raises(InputError, match="no test views"):
        list(Experiment(dataclasses.replace(all_photos, targets="test"), RunFolder(tmp_path / "other")).run())


def test_a_quality_is_a_length_and_a_size_for_each_device():
    draft, good, best = (resolved(RunSettings(scene="s", quality=name), "cpu") for name in ("draft", "good", "best"))
    for name in ("max_steps", "max_size", "max_gaussians"):
        assert getattr(draft, name) < getattr(good, name) < getattr(best, name)
        assert getattr(good, name) == getattr(resolved(RunSettings(scene="s"), "cpu"), name)
    assert resolved(RunSettings(scene="s", quality="best", max_steps=7), "cpu").max_steps == 7
