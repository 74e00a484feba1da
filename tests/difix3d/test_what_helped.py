"""The report says what each part of a run was worth, and what to do next."""

from __future__ import annotations

import pytest

from difix3d.report.what_helped import FROM_POINTS, WITH_STEREO, what_helped
from difix_model import FixVerdict
from support.run_results import facts, results


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
    _, background, loop, fixer = what_helped(facts(transparency=0.3), results(20.0, 19.0, 19.0, held))
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
