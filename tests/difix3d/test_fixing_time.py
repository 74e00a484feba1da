"""The share of time spent in the fixer: counted, carried over, and written down."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from difix3d import (
    Experiment,
    FixRequest,
    FixResult,
    InputError,
    RoundsConfig,
    RunFolder,
    RunSettings,
    ValidationConfig,
    ViewFixerConfig,
)
from difix3d.run.fixing_time import FixingTime, TimedFixer
from support.fix_requests import request


def test_what_the_fixer_takes_is_counted_for_its_phase(tmp_path: Path) -> None:
    def slow(asked: FixRequest) -> FixResult:
        time.sleep(0.05)
        return FixResult.of(asked, asked.rgb)

    spent = FixingTime()
    fixer = TimedFixer(slow, spent)
    asked = request(torch.zeros(1, 4, 4, 3))
    fixer(asked)
    assert spent.fraction("training") == 0
    with spent.phase("training"):
        fixer(asked)
        time.sleep(0.05)
        spent.save(tmp_path)
    assert 0.05 <= spent.fixing_seconds["training"] < spent.seconds["training"]
    assert spent.fraction("training") == pytest.approx(
        spent.fixing_seconds["training"] / spent.seconds["training"], abs=0.01
    )
    assert spent.fixing_seconds["comparison"] == 0
    again = FixingTime()
    again.load(tmp_path)
    assert again.fixing_seconds == spent.fixing_seconds
    for damaged in ("", "[]", '{"seconds": {"training": 1}}'):
        (tmp_path / "time.json").write_text(damaged)
        with pytest.raises(InputError, match=r"time\.json does not hold a run's times"):
            again.load(tmp_path)


def test_a_run_says_how_much_of_it_was_fixing(tmp_path: Path) -> None:
    settings = RunSettings(
        fixer=ViewFixerConfig(model="none"),
        max_steps=6,
        max_size=40,
        max_gaussians=300,
        rounds=RoundsConfig(num_rounds=1),
        num_novel=2,
        validation=ValidationConfig(fraction=0.0),
    )
    experiment = Experiment(settings, RunFolder(tmp_path / "run"))
    list(experiment.run())
    written = json.loads((tmp_path / "run" / "time.json").read_text(encoding="utf-8"))
    assert written["fixing_seconds"]["training"] + written["fixing_seconds"]["comparison"] > 0
    assert 0 <= written["fixing_fraction"] < 1
    assert written["seconds"]["training"] > 0
    assert "% of training" in experiment.time.sentence()
