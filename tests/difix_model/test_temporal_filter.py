"""Frames steadied in time: the flicker figures fall for a flickering fixer, and nothing happens to what is steady."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from difix_model import TemporalFilterConfig
from difix_model.video.flicker import Flicker, FlickerMeter
from difix_model.video.motion import inside, motion, warped
from difix_model.video.temporal_filter import TemporalFilter

Frames = list[np.ndarray]


def texture(width: int = 160, height: int = 120, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (height // size, width // size, 3), dtype=np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            ),
            dtype=float,
        )
        for size in (24, 10, 5)
    ]
    return (layers[0] * 0.5 + layers[1] * 0.3 + layers[2] * 0.2).round().astype(np.uint8)


def moving(count: int, step: tuple[int, int]) -> Frames:
    """A window that travels over a larger picture."""
    picture = texture(320, 240)
    return [
        picture[40 + step[1] * i : 40 + step[1] * i + 96, 60 + step[0] * i : 60 + step[0] * i + 128].copy()
        for i in range(count)
    ]


def flickering(frames: Frames, size: float = 12.0) -> Frames:
    """What a fixer makes that invents blotches anew for each frame."""
    rng = np.random.default_rng(3)
    fixed = []
    for frame in frames:
        height, width = frame.shape[:2]
        blotches = rng.normal(0, size, (height // 4, width // 4, 3)).repeat(4, 0).repeat(4, 1)
        fixed.append((frame + blotches).round().clip(0, 255).astype(np.uint8))
    return fixed


def steadied(frames: Frames, fixed: Frames, config: TemporalFilterConfig | None = None) -> Frames:
    steady = TemporalFilter(config or TemporalFilterConfig())
    return [steady(frame, result) for frame, result in zip(frames, fixed, strict=True)]


def measured(frames: Frames, results: Frames) -> Flicker:
    meter = FlickerMeter()
    for frame, result in zip(frames, results, strict=True):
        meter.update(frame, result)
    return meter.result()


def unit(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame.copy()).float() / 255


@pytest.mark.parametrize("step", [(0, 0), (3, 0), (-5, 2), (1, -4), (9, 6)])
def test_motion_is_found_and_followed(step: tuple[int, int]) -> None:
    before, now = (unit(frame) for frame in moving(2, step))
    vectors = motion(before, now)
    assert torch.median((vectors - torch.tensor(step, dtype=torch.float32)).norm(dim=-1)) < 0.3
    seen = inside(vectors)
    error = (warped(before, vectors) - now).abs().mean(dim=-1)[seen].mean()
    assert error < 0.25 * (before - now).abs().mean() or step == (0, 0)


def test_motion_between_pixels_is_found() -> None:
    large = Image.fromarray(texture(512, 384))
    before, now = (
        unit(np.asarray(large.crop((x, 8, x + 448, 8 + 336)).resize((112, 84), Image.Resampling.BOX))) for x in (16, 18)
    )
    assert abs(float(motion(before, now)[..., 0].median()) - 0.5) <= 0.13


def test_equal_frames_do_not_move_by_one_bit() -> None:
    frame = unit(texture())
    vectors = motion(frame, frame)
    assert not vectors.any()
    assert torch.equal(warped(frame, vectors), frame)


def test_a_still_clip_under_a_steady_fixer_is_returned_bit_by_bit() -> None:
    frames = [texture()] * 6
    fixed = [255 - texture(seed=4)] * 6
    assert np.array_equal(np.stack(steadied(frames, fixed)), np.stack(fixed))
    assert measured(frames, fixed) == Flicker(change=0.0, warped=0.0, input_warped=0.0, seen_fraction=1.0)


def test_frames_that_are_not_changed_stay_bit_by_bit() -> None:
    frames = moving(5, (3, 1))
    assert all(np.array_equal(result, frame) for result, frame in zip(steadied(frames, frames), frames, strict=True))


@pytest.mark.parametrize("step", [(0, 0), (3, 1)])
def test_flicker_falls(step: tuple[int, int]) -> None:
    frames = moving(7, step)
    fixed = flickering(frames)
    results = steadied(frames, fixed)
    before, after = measured(frames, fixed), measured(frames, results)
    assert before.seen_fraction > 0.8
    assert after.warped < 0.5 * before.warped
    assert after.change < 0.6 * before.change
    # The blotches are noise around the truth here: averaging them comes nearer to it.
    truth = np.stack(frames).astype(float)
    assert np.abs(np.stack(results) - truth).mean() < 0.8 * np.abs(np.stack(fixed) - truth).mean()


def test_without_following_only_still_parts_are_steadied() -> None:
    frames = moving(6, (4, 0))
    fixed = flickering(frames)
    results = steadied(frames, fixed, TemporalFilterConfig(follow_motion=False))
    assert measured(frames, results).warped > 0.8 * measured(frames, fixed).warped


def test_a_cut_starts_afresh() -> None:
    first, second = [texture(seed=1)] * 3, [texture(seed=2)] * 3
    fixed = flickering([*first, *second])
    results = steadied([*first, *second], fixed)
    at_cut = np.abs(results[3].astype(int) - fixed[3]).mean()
    within = np.abs(results[4].astype(int) - fixed[4]).mean()
    assert at_cut < 0.25 * within


def test_a_change_of_size_starts_afresh() -> None:
    steady = TemporalFilter()
    steady(texture(64, 48), texture(64, 48, seed=1))
    fixed = texture(80, 48, seed=1)
    assert np.array_equal(steady(texture(80, 48), fixed), fixed)


def test_the_state_is_all_that_is_needed_to_go_on() -> None:
    frames = moving(6, (2, 1))
    fixed = flickering(frames)
    whole = steadied(frames, fixed)
    first = TemporalFilter()
    for frame, result in zip(frames[:3], fixed[:3], strict=True):
        first(frame, result)
    second = TemporalFilter()
    second.restore(first.state())
    for frame, result, expected in zip(frames[3:], fixed[3:], whole[3:], strict=True):
        assert np.array_equal(second(frame, result), expected)


def test_known_motion_can_be_given_to_the_meter() -> None:
    frames = moving(4, (3, 0))
    meter = FlickerMeter()
    vectors = torch.zeros(96, 128, 2)
    vectors[..., 0] = 3
    for frame in frames:
        meter.update(frame, frame, vectors)
    assert meter.result().warped < 1e-3
    assert meter.result().seen_fraction == pytest.approx(125 / 128)


@pytest.mark.parametrize("wrong", [{"weight": 1.0}, {"weight": -0.1}, {"tolerance": 0.0}, {"window": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TemporalFilterConfig(**wrong)


def test_a_meter_needs_two_frames() -> None:
    meter = FlickerMeter()
    with pytest.raises(ValueError, match="two frames"):
        meter.result()
