"""A whole run from few photos: which loop it is, its report, and that stops change nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from difix3d import (
    Experiment,
    FixRequest,
    FixResult,
    RoundsConfig,
    RunFolder,
    RunSettings,
    ValidationConfig,
    ViewFixer,
    ViewFixerConfig,
)
from difix3d.loop.target_config import AroundTargets, SpreadTargets
from difix3d.run.configs import progressive_config
from difix3d.run.defaults import for_photos, resolved
from difix3d.run.stereo_start import keep_stereo, kept_stereo
from splat_recon import AdcConfig, StereoConfig, StereoStart, SyntheticConfig, generate_scene, write_scene


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    folder = tmp_path_factory.mktemp("scene") / "shelf"
    config = SyntheticConfig(layout="shelf", num_views=6, width=56, height=42, num_points=80)
    write_scene(folder, generate_scene(12, config))
    return RunSettings(
        scene=str(folder), max_steps=10, max_gaussians=400, split="every:3", num_novel=4, checkpoint_every=7
    )


def run(
    settings: RunSettings,
    folder: Path,
    *,
    stop_at: int | None = None,
    resume: bool = False,
    fixer: ViewFixer | None = None,
) -> Experiment:
    experiment = Experiment(settings, RunFolder(folder), resume=resume, fixer=fixer)
    phases = [progress.phase for progress in experiment.run(stop_at=stop_at)]
    assert phases[0] == "prepare"
    return experiment


@pytest.fixture(scope="module")
def whole(settings: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(settings, folder).finished
    return folder


def test_few_photos_are_distilled_unless_rounds_are_asked_for():
    few = for_photos(resolved(RunSettings(), "cpu"), 6)
    assert (few.loop, few.fixer.model, few.num_novel, few.validation.fraction) == ("distillation", "none", 60, 0)
    config = progressive_config(few)
    assert isinstance(config.targets, SpreadTargets)
    assert few.distillation.num_steps(config.train, stereo=True) == (1600, 1600)
    assert few.distillation.num_steps(config.train, stereo=False) == (1600, 1600, 1600, 1600)
    many = for_photos(resolved(RunSettings(), "cpu"), 13)
    assert (many.loop, many.fixer.model, many.num_novel) == ("rounds", "default", 16)
    assert isinstance(progressive_config(many).targets, AroundTargets)
    for asked in (
        RunSettings(rounds=RoundsConfig(num_rounds=2)),
        RunSettings(validation=ValidationConfig(fraction=0.1)),
        RunSettings(start="a.ply"),
    ):
        assert for_photos(resolved(asked, "cpu"), 6).loop == "rounds"
    assert for_photos(resolved(RunSettings(preset="released"), "cpu"), 6).loop == "rounds"
    own = for_photos(
        resolved(RunSettings(fixer=ViewFixerConfig(model="default"), num_novel=7, targets="path"), "cpu"), 6
    )
    assert (own.loop, own.fixer.model, own.num_novel, own.targets) == ("distillation", "default", 7, "path")
    with pytest.raises(ValueError, match="trains its splats from the photos"):
        RunSettings(loop="distillation", preset="paper")
    with pytest.raises(ValueError, match="has no rounds"):
        RunSettings(loop="distillation", rounds=RoundsConfig(num_rounds=2))
    with pytest.raises(ValueError, match="preset paper has rounds of its own"):
        RunSettings(preset="paper", num_references=2)


def test_depths_that_nobody_believes_make_no_picture(whole: Path, tmp_path: Path):
    believed = kept_stereo(RunFolder(whole))
    assert believed is not None
    doubted = [dataclasses.replace(each, valid=np.zeros_like(each.valid)) for each in believed.depth_maps]
    for name, depth_maps in (("believed", believed.depth_maps), ("doubted", doubted)):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        keep_stereo(folder, StereoStart.of(depth_maps, StereoConfig()))
        assert folder.stereo.is_file()
        assert folder.stereo_picture.is_file() == (name == "believed")


def test_a_run_leaves_figures_of_every_part(whole: Path):
    metrics = json.loads((whole / "metrics.json").read_text())
    parts = metrics["parts"]
    assert list(parts) == [
        "one splat, from the points",
        "one splat, with stereo",
        "2 splats together",
        "the splat that learned from them",
    ]
    assert parts["the splat that learned from them"] == metrics["variants"]["loop"]["psnr"]
    assert parts["one splat, from the points"] == metrics["variants"]["plain"]["psnr"]
    assert metrics["variants"]["loop"]["step"] == 10 + 10 + 10
    assert "several splats taught one" in metrics["verdict"]
    report = (whole / "report.html").read_text()
    assert "Several splats taught one more" in report
    assert "The start by stereo" in report
    assert "Photos that no training saw" in report
    assert "They count where the render is opaque" not in report
    assert "all together (trained on)" in report
    assert (whole / "stereo.png").is_file()
    assert len(list((whole / "images" / "round_00").glob("*.png"))) == 4
    assert json.loads((whole / "config.json").read_text())["resolved"]["distillation"]["num_members"] == 1


def test_a_report_without_test_photos_speaks_of_none(settings: RunSettings, tmp_path: Path):
    run(dataclasses.replace(settings, split="none", stereo="off", max_steps=2), tmp_path / "run")
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Photos that were trained on" in report
    for words in ("no training saw", "test photos", "test views", "Test views"):
        assert words not in report, words


def test_stops_in_every_stage_change_nothing(settings: RunSettings, whole: Path, tmp_path: Path):
    folder = tmp_path / "parts"
    for number, stop_at in enumerate((6, 12, 20, 25, None)):
        experiment = run(settings, folder, stop_at=stop_at, resume=number > 0)
        assert experiment.step == (stop_at or 30)
    assert (folder / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert (folder / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert (folder / "loop.ply").read_bytes() == (whole / "loop.ply").read_bytes()
    assert (folder / "plain.ply").read_bytes() == (whole / "plain.ply").read_bytes()


def test_without_stereo_there_are_no_splats_that_start_with_it(settings: RunSettings, tmp_path: Path):
    run(dataclasses.replace(settings, stereo="off"), tmp_path / "run")
    assert "one splat, with stereo" not in json.loads((tmp_path / "run" / "metrics.json").read_text())["parts"]
    assert not (tmp_path / "run" / "stereo.npz").exists()


def test_a_fixer_works_on_what_the_splats_show_together(settings: RunSettings, tmp_path: Path):
    asked = []

    def fixer(request: FixRequest) -> FixResult:
        asked.append(len(request))
        return FixResult.of(request, request.rgb)

    run(settings, tmp_path / "run", stop_at=21, fixer=fixer)
    assert sum(asked) == 4


def test_no_more_novel_views_are_made_than_memory_has_room_for(settings: RunSettings, tmp_path: Path):
    few = dataclasses.replace(settings, num_novel=None, stereo="off", image_memory=0.005)
    experiment = run(few, tmp_path / "run", stop_at=1)
    assert experiment.inputs.settings.num_novel is not None
    assert 1 < experiment.inputs.settings.num_novel < 60
    assert len(experiment.inputs.T_world_target) == experiment.inputs.settings.num_novel


def test_rounds_start_with_stereo_in_both_trainings(settings: RunSettings, tmp_path: Path):
    asked = dataclasses.replace(
        settings, rounds=RoundsConfig(num_rounds=1), fixer=ViewFixerConfig(model="none"), num_novel=2
    )
    experiment = run(asked, tmp_path / "run", stop_at=3)
    assert experiment.inputs.stereo is not None
    assert len(experiment.inputs.scene.points) > 200
    strategy = experiment.inputs.config.train.strategy
    assert isinstance(strategy, AdcConfig)
    assert strategy.grow_grad2d == StereoConfig().grow_grad2d
