import sys

import numpy as np
import pytest

from splat_recon import Evaluation, InputError, View, ViewScore
from splat_recon.evaluate import evaluate
from splat_recon.pages.contact_sheet import contact_sheet
from splat_recon.pages.pictures import depth_colors, error_map
from splat_recon.pages.tensorboard import TensorBoardLog
from support.splat_scenes import make_camera


def gray(level, height=30, width=40):
    return np.full((height, width, 3), level, np.uint8)


def view(name, level, mask=None):
    return View(name=name, camera=make_camera(40, 30), rgb_u8=gray(level), mask=mask)


def test_errors_are_brighter_where_they_are_larger():
    photo, render = gray(100), gray(100)
    render[:, 20:] = 120
    render[:, 30:] = 250
    colors = error_map(render, photo).astype(int).sum(axis=2)
    assert colors[0, 0] < colors[0, 25] < colors[0, 35]
    assert np.ptp(colors[:, 30:]) == 0


def test_depths_are_brighter_where_they_are_nearer_and_black_where_nothing_is():
    depth = np.array([[1.0, 2.0, 8.0, 100.0, 0.0]])
    colors = depth_colors(depth, np.array([[1.0, 1, 1, 1, 0]]), 1.0, 8.0).astype(int).sum(axis=2)[0]
    assert colors[0] > colors[1] > colors[2] == colors[3] > colors[4] == 0
    with pytest.raises(ValueError, match="near < far"):
        depth_colors(depth, depth, 2.0, 1.0)


def test_a_contact_sheet_has_the_worst_view_on_top():
    views = [view("good.png", 100), view("bad.png", 100), view("fair.png", 100)]
    levels = {"good.png": 101, "bad.png": 180, "fair.png": 120}
    renders = {name: gray(level) for name, level in levels.items()}
    scores = evaluate_pictures(views, renders)
    sheet = contact_sheet(views, lambda v: renders[v.name], scores)
    # The column of renders, between the photo and the error.
    column = sheet[:, 40 + 4 + 20].astype(int)
    found = [int(np.flatnonzero((column == level).all(axis=1))[0]) for level in (180, 120, 101)]
    assert found == sorted(found)
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], lambda v: renders[v.name], scores)


def evaluate_pictures(views, renders):
    order = iter(views)

    def render(_camera):
        import torch

        return torch.from_numpy(renders[next(order).name]).float() / 255

    return evaluate(render, views)


def test_many_views_stand_in_columns_and_masks_are_gray():
    mask = np.ones((30, 40), bool)
    mask[:, 20:] = False
    views = [view(f"{index}.png", 10 * index, mask if index == 0 else None) for index in range(9)]
    renders = {v.name: gray(50) for v in views}
    sheet = contact_sheet(views, lambda v: renders[v.name], evaluate_pictures(views, renders))
    assert sheet.shape[1] == 2 * (3 * 40 + 2 * 4) + 6
    assert (sheet == 128).all(axis=2).sum() >= 30 * 20


def test_event_files_read_back(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    score = ViewScore(psnr=20.0, ssim=0.5, lpips=None)
    with TensorBoardLog(tmp_path) as log:
        for step in (10, 20, 30):
            log.add_training(step, loss=1 / step, num_gaussians=step, rates={"means": 0.1})
        scores = Evaluation(psnr=20.0, ssim=0.5, lpips=None, per_view={"a.png": score})
        log.add_scores(30, scores, {"a.png": gray(90)})
    with TensorBoardLog(tmp_path, step=20) as log:
        log.add_training(25, loss=0.5, num_gaussians=7, rates={})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    # The run was resumed at step 20: what came after it before is left out.
    assert [(event.step, round(event.value, 4)) for event in events.Scalars("train/loss")] == [(10, 0.1), (25, 0.5)]
    assert [event.value for event in events.Scalars("train/num_gaussians")] == [10, 7]
    assert events.Scalars("learning_rate/means")[0].value == pytest.approx(0.1)


def test_scores_and_pictures_are_events_too(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore[reportMissingImports]

    score = ViewScore(psnr=20.0, ssim=0.5, lpips=0.25)
    with TensorBoardLog(tmp_path) as log:
        scores = Evaluation(psnr=20.0, ssim=0.5, lpips=0.25, per_view={"a.png": score})
        log.add_scores(30, scores, {"a.png": gray(90)})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {name: events.Scalars(f"test/{name}")[0].value for name in ("psnr", "ssim", "lpips")} == {
        "psnr": 20.0,
        "ssim": 0.5,
        "lpips": 0.25,
    }
    (image,) = events.Images("test/a.png")
    assert (image.step, image.width, image.height) == (30, 40, 30)


def test_absent_tensorboard_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="uv run --extra tensorboard"):
        TensorBoardLog(tmp_path)
