"""The report says what each part of a run was worth, and what to do next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from difix3d.report.curves import Curves
from difix3d.report.notes import run_notes
from difix3d.report.what_helped import FROM_POINTS, WITH_STEREO, what_helped
from difix3d.run.facts import taken_from_one_place, transparency_and_missing
from difix_model import FixVerdict
from splat_recon import Split, View
from splat_render import Camera, RenderOutput, RenderStats
from support.posed_scenes import orbit_camera
from support.run_results import POINTS, facts, results


def test_rounds_are_compared_with_plain_training_and_the_fix_with_none() -> None:
    start, background, loop, fixer = what_helped(facts(), results(20.0, 20.5, 20.51))
    assert (start.gain_db, background.gain_db) == (None, None)
    assert (loop.gain_db, fixer.gain_db) == (pytest.approx(0.5), pytest.approx(0.01))
    assert loop.gain() == "+0.50 dB"
    assert "no clear difference" in fixer.gain()
    assert start.gain() == "not measured in this run"
    assert what_helped(facts(), results(20.0, 20.5, 20.5 - 1e-8))[3].gain() == "+0.00 dB (no clear difference)"
    assert "300 of 900 points" in start.did
    assert "300 points are few for 6 photos" in start.advice
    assert "#ff0033; 2% of the light" in background.did
    assert not background.advice
    assert not loop.advice


def test_distillation_is_compared_with_one_splat_of_its_start() -> None:
    parts = {FROM_POINTS: 20.0, WITH_STEREO: 20.75}
    start, _, loop, _ = what_helped(facts("distillation", parts=parts, stereo="Stereo: x."), results(20.0, 22.0, 22.0))
    assert start.gain_db == pytest.approx(0.75)
    assert "Stereo: x." in start.did
    assert loop.gain_db == pytest.approx(1.25)
    without = what_helped(facts("distillation", parts={FROM_POINTS: 20.0}), results(20.0, 22.0, 22.0))
    assert without[0].gain_db is None
    assert without[2].gain_db == pytest.approx(2.0)


def test_what_goes_wrong_becomes_advice() -> None:
    held = FixVerdict(proposed_change=0.1, applied_change=0.0, reason="low_coverage", coverage=0.1)
    _, background, loop, fixer = what_helped(facts(transparency=0.3, missing=0.3), results(20.0, 19.0, 19.0, held))
    assert "no training photo shows these places" in background.advice
    assert "did harm" in loop.advice
    assert "--gate off" in fixer.advice
    # What is better than plain training is not to be thrown away, even where one part of it was better still.
    parts = {FROM_POINTS: 17.5, WITH_STEREO: 21.2}
    taught = what_helped(facts("distillation", parts=parts, fixed=False), results(17.5, 20.5, 20.5))[2]
    assert "plain.ply" not in taught.advice
    assert "splat-recon train --scene SCENE" in taught.advice
    assert "did harm" in what_helped(facts(), results(20.0, 21.0, 20.0, held))[3].advice
    none = what_helped(facts(fixed=False, num_rounds=0), results(20.0, 20.0, 20.0))
    assert none[3].gain_db is None
    assert none[2].did == "No round of novel views."
    finished = what_helped(facts(points=None), results(20.0, 20.0, 20.0))
    assert "finished splat" in finished[0].did


def test_where_nothing_is_held_out_no_figure_is_promised_and_no_test_photo_named() -> None:
    none = Split(train=("a", "b"), test=(), policy="none")
    parts = {FROM_POINTS: 20.0, WITH_STEREO: 20.75}
    for loop in ("distillation", "rounds"):
        known = facts(loop, split=none, parts=parts if loop == "distillation" else {}, stereo="Stereo: x.")
        for part in what_helped(known, results(20.0, 22.0, 22.0)):
            assert "figure" not in part.did
            assert "test" not in part.did
            assert part.gain() == "not measured in this run"
        assert not any("On the test photos" in note for note in run_notes(known, results(20.0, 22.0, 22.0)))
        assert "PSNR of training views" in Curves().svg((), known.side)


def test_advice_never_points_away_from_the_better_splat() -> None:
    better = {FROM_POINTS: 20.0, WITH_STEREO: 21.0}
    loop = what_helped(facts("distillation", parts=better), results(20.0, 19.5, 19.5))[2]
    assert "splat-recon train" in loop.advice
    assert "plain.ply" not in loop.advice
    worse = {FROM_POINTS: 20.0, WITH_STEREO: 19.0}
    start, _, loop, _ = what_helped(facts("distillation", parts=worse), results(20.0, 19.5, 19.5))
    assert "--stereo off" in start.advice
    assert loop.advice == "The loop did harm here: keep plain.ply."
    same = what_helped(
        facts("distillation", parts={FROM_POINTS: 20.0, WITH_STEREO: 20.04}), results(20.0, 19.98, 19.98)
    )
    assert not same[2].advice
    assert "points are few" not in same[0].advice, "stereo found points"


def test_removed_floaters_are_counted() -> None:
    loop = what_helped(facts("distillation", num_floaters=4), results(20.0, 21.0, 21.0))[2]
    assert "Floaters removed from it, which hid places that no photo shows: 4." in loop.did
    assert "removed" not in what_helped(facts("distillation"), results(20.0, 21.0, 21.0))[2].did


def test_a_backdrop_and_what_masks_leave_out_are_not_missing() -> None:
    def half(camera: Camera) -> RenderOutput:
        alpha = torch.full((camera.height, camera.width, 1), 0.5)
        stats = RenderStats(means2d=torch.zeros((0, 2)), radii_px=torch.zeros(0), width=8, height=8)
        return RenderOutput(rgb=torch.zeros((8, 8, 3)), alpha=alpha, depth=alpha, stats=stats)

    rgb_u8 = np.full((8, 8, 3), 255, np.uint8)
    rgb_u8[:, :2] = 40
    camera = Camera(T_world_cam=np.eye(4), K=np.diag([8.0, 8.0, 1.0]), width=8, height=8)
    photo = View(name="a.png", camera=camera, rgb_u8=rgb_u8)
    assert transparency_and_missing(half, [photo], (1.0, 1.0, 1.0)) == pytest.approx((0.5, 0.125))
    assert transparency_and_missing(half, [photo], (0.5, 0.5, 0.5)) == pytest.approx((0.5, 0.5))
    mask = np.zeros((8, 8), bool)
    mask[:, :4] = True
    masked = View(name="a.png", camera=camera, rgb_u8=rgb_u8, mask=mask)
    assert transparency_and_missing(half, [masked], (1.0, 1.0, 1.0)) == pytest.approx((0.5, 0.25))


def test_advice_on_the_start_names_what_is_wrong_with_it() -> None:
    same = results(20.0, 20.0, 20.0)
    assert "a few steps aside" in what_helped(facts(one_place=True), same)[0].advice
    drawn = replace(POINTS, num_kept=20_000, num_all=20_000, num_tracked=0, at_random=True)
    start = what_helped(facts(points=drawn), same)[0]
    assert "drawn at random" in start.did
    assert "structure from motion" in start.advice
    p_world = np.random.default_rng(0).normal(size=(30, 3))
    cameras = [orbit_camera(index, 3) for index in range(3)]
    rgb_u8 = np.zeros((24, 32, 3), np.uint8)
    views = [View(name=f"{index}", camera=camera, rgb_u8=rgb_u8) for index, camera in enumerate(cameras)]
    assert not taken_from_one_place(views, p_world)
    turned = [replace(view, camera=cameras[0]) for view in views]
    assert taken_from_one_place(turned, p_world)
    assert taken_from_one_place(turned, p_world[:0])
    assert not taken_from_one_place(turned[:1], p_world)
