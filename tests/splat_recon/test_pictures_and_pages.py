import numpy as np
import pytest

from splat_recon import View
from splat_recon.evaluate import evaluate
from splat_recon.pages.contact_sheet import contact_sheet
from splat_recon.pages.pictures import depth_colors, error_map
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
