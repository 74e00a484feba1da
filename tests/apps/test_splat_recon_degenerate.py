"""Degenerate scenes end in a result or in one clear sentence, through the command."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from splat_recon import Points, Scene, SyntheticConfig, View, generate_scene, write_scene
from splat_recon_app.__main__ import main


@cache
def _scene() -> Scene:
    return generate_scene(5, SyntheticConfig(num_views=4, width=40, height=32, num_points=60, layout="table"))


def _with_points(p_world: np.ndarray) -> Scene:
    p_world = np.asarray(p_world, dtype=np.float32)
    return replace(_scene(), points=Points(p_world=p_world, rgb_u8=np.full(p_world.shape, 128, np.uint8)))


def _with_photo(rgb_u8: np.ndarray) -> Scene:
    first, *others = _scene().views
    return replace(_scene(), views=(replace(first, rgb_u8=rgb_u8), *others))


def _cropped(view: View, width: int, height: int) -> View:
    camera = replace(view.camera, width=width, height=height)
    return replace(view, camera=camera, rgb_u8=np.ascontiguousarray(view.rgb_u8[:height, :width]))


def _points() -> np.ndarray:
    return _scene().points.p_world


def _centers() -> np.ndarray:
    return np.stack([view.camera.center_world for view in _scene().views]).astype(np.float32)


TRAINS: dict[str, Callable[[], Scene]] = {
    "two photos": lambda: replace(_scene(), views=_scene().views[:2]),
    "no points": lambda: _with_points(np.zeros((0, 3))),
    "ten points": lambda: _with_points(_points()[:10]),
    "one point": lambda: _with_points(_points()[:1]),
    "points in the camera centers": lambda: _with_points(np.concatenate([_points(), _centers()])),
    "only points in the camera centers": lambda: _with_points(np.repeat(_centers(), 5, axis=0)),
    "all points in one place": lambda: _with_points(np.repeat(_points()[:1], 30, axis=0)),
    "a point far away": lambda: _with_points(np.concatenate([_points(), [[1e6, 1e6, 1e6]]])),
    "a black photo": lambda: _with_photo(np.zeros((32, 40, 3), np.uint8)),
    "only black photos": lambda: replace(
        _scene(), views=tuple(replace(view, rgb_u8=np.zeros_like(view.rgb_u8)) for view in _scene().views)
    ),
    "all photos from one place": lambda: replace(
        _scene(), views=tuple(replace(view, camera=_scene().views[0].camera) for view in _scene().views)
    ),
}

REFUSED: dict[str, tuple[Callable[[], Scene], str]] = {
    "one photo": (lambda: replace(_scene(), views=_scene().views[:1]), "no training views of 1"),
    "a point that is no number": (lambda: _with_points(np.append(_points(), [[np.nan, 0, 0]], axis=0)), "not finite"),
    "photos smaller than the SSIM window": (
        lambda: replace(_scene(), views=tuple(_cropped(view, 40, 9) for view in _scene().views)),
        "at least 11x11",
    ),
}


def _train(scene: Scene, folder: Path, *more: str) -> tuple[int, Path]:
    write_scene(folder / "scene", scene)
    out = folder / "run"
    argv = [
        "train",
        "--stereo",
        "off",
        "--scene",
        str(folder / "scene"),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--split",
        "every:2",
    ]
    return main([*argv, "--max-steps", "12", "--max-gaussians", "300", *more]), out


@pytest.mark.parametrize("preset", ["default", "mcmc"])
@pytest.mark.parametrize("name", TRAINS)
def test_what_can_be_trained_is_trained(name: str, preset: str, tmp_path: Path):
    code, out = _train(TRAINS[name](), tmp_path, "--preset", preset)
    assert code == 0
    scores = json.loads((out / "metrics.json").read_text())
    assert np.isfinite(scores["psnr"])
    assert scores["num_gaussians"] > 0
    assert (out / "point_cloud.ply").stat().st_size > 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_is_told_in_a_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make, sentence = REFUSED[name]
    code, out = _train(make(), tmp_path)
    message = capsys.readouterr().err
    assert code == 2
    assert "error: " in message
    assert sentence in message
    assert "Traceback" not in message
    assert not out.exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--refine-poses"],
        ["--appearance", "exposure"],
        ["--appearance", "bilateral"],
        ["--depth-weight", "0.01"],
        ["--batch-size", "5"],
        ["--preset", "absgrad", "--antialiased", "--random-background"],
    ],
)
def test_options_stand_two_photos_and_ten_points(flags: list[str], tmp_path: Path):
    scene = replace(_with_points(_points()[:10]), views=_scene().views[:2])
    code, out = _train(scene, tmp_path, *flags)
    assert code == 0
    scores = json.loads((out / "metrics.json").read_text())
    assert np.isfinite(scores["psnr"])
    assert ("color_corrected" in scores) == ("--appearance" in flags)
    assert (out / "cameras_refined.json").exists() == ("--refine-poses" in flags)


def test_a_training_that_diverges_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Absurd rates throw every number out of range."""
    from splat_recon import LearningRates
    from splat_recon_app import presets

    made = presets.train_config
    rates = LearningRates(means=1e38, quats=1e38)
    monkeypatch.setattr(presets, "train_config", lambda *args, **of: replace(made(*args, **of), learning_rates=rates))
    code, out = _train(_scene(), tmp_path)
    message = capsys.readouterr().err
    assert code == 2, message
    assert "no longer finite numbers at step 12: resume from the last checkpoint with lower learning rates" in message
    assert "Traceback" not in message
    assert (out / "config.json").exists()


@pytest.mark.parametrize("flag", ["--packed", "--visible-adam"])
def test_gsplats_own_modes_are_refused_on_a_cpu(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, out = _train(_scene(), tmp_path, flag)
    assert code == 2
    assert "is for gsplat on CUDA" in capsys.readouterr().err
    assert not out.exists()
