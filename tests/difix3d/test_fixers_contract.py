"""Any callable of the contract is a fixer: it gets all that is known, and its verdicts reach metrics and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from difix3d import (
    DifixFixer,
    Experiment,
    FixRequest,
    FixResult,
    ProgressiveTrainer,
    RoundsConfig,
    RunFolder,
    RunSettings,
    ValidationConfig,
    ViewFixer,
    ViewFixerConfig,
)
from difix3d.run.defaults import resolved
from difix_model import DifixPipeline, FixVerdict
from difix_model.gate.apply import Gated
from support.fix_requests import request


class Whitening:
    """Halfway to white on the left, where it is sure; the gate that it stands for holds the rest back."""

    def __init__(self) -> None:
        self.asked: list[FixRequest] = []

    def __call__(self, asked: FixRequest) -> FixResult:
        self.asked.append(asked)
        half = asked.rgb.shape[2] // 2
        fixed, confidence = asked.rgb.clone(), torch.zeros(asked.rgb.shape[:3])
        fixed[:, :, :half] = 0.5 * fixed[:, :, :half] + 0.5
        confidence[:, :, :half] = 0.75
        verdict = FixVerdict(proposed_change=0.5, applied_change=0.125, reason="low_coverage", coverage=0.0625)
        return FixResult(rgb=fixed, verdicts=(verdict,) * len(asked), confidence=confidence)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Whitening, Experiment]:
    fixer = Whitening()
    settings = RunSettings(
        max_steps=8,
        max_size=40,
        max_gaussians=300,
        rounds=RoundsConfig(num_rounds=1),
        num_novel=3,
        validation=ValidationConfig(fraction=0.0),
    )
    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("difix3d.report.film.VIDEO_FRAMES", 2)
        experiment = Experiment(settings, RunFolder(folder), fixer=fixer)
        list(experiment.run())
    return folder, fixer, experiment


def test_a_whole_run_takes_any_fixer_and_hands_it_what_is_known(run: tuple[Path, Whitening, Experiment]) -> None:
    _, fixer, experiment = run
    assert isinstance(fixer, ViewFixer)
    first = fixer.asked[0]
    assert len(first) == 3
    assert first.alpha is not None
    assert first.alpha.shape == first.rgb.shape[:3]
    assert all(len(views) == 1 for views in first.references)
    assert {(camera.height, camera.width) for camera in first.cameras} == {tuple(first.rgb.shape[1:3])}
    # A round, the test views of two splats, and the film.
    held_out = experiment.inputs.held_out
    assert sum(map(len, fixer.asked)) == 3 + 2 * len(held_out) + 2


def test_its_confidence_weighs_the_pixels_that_are_learned_from(run: tuple[Path, Whitening, Experiment]) -> None:
    _, _, experiment = run
    loop = experiment.loop
    assert isinstance(loop, ProgressiveTrainer)
    assert loop is not None
    assert loop.main.novel is not None
    for view, learned in zip(loop.main.novel.views, loop.trainer.views.sets[1], strict=True):  # type: ignore[union-attr]
        opaque = (view.alpha[..., 0] > 0.5).float()
        half = opaque.shape[1] // 2
        assert learned.pixel_weight is not None
        assert torch.equal(learned.pixel_weight[:, :half], 0.75 * opaque[:, :half])
        assert not learned.pixel_weight[:, half:].any()


def test_its_verdicts_are_in_metrics_and_report(run: tuple[Path, Whitening, Experiment]) -> None:
    folder, _, experiment = run
    fixes = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["fixes"]
    expected: dict[str, Any] = {
        "proposed_change": 0.5,
        "applied_change": 0.125,
        "reason": "low_coverage",
        "coverage": 0.0625,
        "palette_drift": None,
    }
    names = {view.name for view in experiment.inputs.captured}
    assert len(fixes["novel_views"]) == 3
    for found in fixes["novel_views"]:
        assert found.pop("reference") in names
        assert found == expected
    assert set(fixes["final"]) == {"plain_fixed", "loop_fixed"}
    assert fixes["final"]["loop_fixed"] == {view.name: expected for view in experiment.inputs.held_out}
    page = (folder / "report.html").read_text(encoding="utf-8")
    sentence = "changed by 31.9 of 255, 127.5 proposed: only redrawn detail"
    assert page.count(sentence) == 3
    assert "The newest round: changed 3 of 3 novel views" in page
    num_held_out = len(experiment.inputs.held_out)
    assert f"The final fix: changed {num_held_out} of {num_held_out} test views" in page
    assert "round 1: changed 3 of 3 novel views" in (folder / "log.txt").read_text(encoding="utf-8")


def test_difix_gets_opacity_and_all_references_in_one_call() -> None:
    calls: list[tuple[Any, Any]] = []

    class Recording(DifixPipeline):
        def __init__(self, *, uses_reference: bool) -> None:
            self.uses_reference = uses_reference

        def fix_with_verdicts(self, rendered: Any, references: Any = None, **options: Any) -> Gated:
            calls.append((references, options["alpha"]))
            verdict = FixVerdict(proposed_change=0.0, applied_change=0.0, reason="no_change")
            return Gated(rgb=rendered, verdicts=(verdict,) * len(rendered))

    rgb, alpha = torch.rand(2, 8, 10, 3), torch.rand(2, 8, 10)
    asked = request(rgb, torch.rand(2, 8, 10, 3), alpha)
    DifixFixer(Recording(uses_reference=True))(asked)
    DifixFixer(Recording(uses_reference=False))(asked)
    assert calls[0][0] is asked.references
    assert calls[1][0] is None
    assert all(found is alpha for _, found in calls)


def test_a_request_that_does_not_fit_together_is_refused() -> None:
    asked = request(torch.rand(2, 8, 10, 3))
    with pytest.raises(ValueError, match="got 2 renders, 1 cameras and 2 tuples"):
        FixRequest(rgb=asked.rgb, alpha=None, cameras=asked.cameras[:1], references=asked.references)


def test_the_gate_can_be_chosen_and_is_the_commands_own_by_default() -> None:
    assert resolved(RunSettings(), "cpu").fixer.gate == "auto"
    assert resolved(RunSettings(preset="released"), "cpu").fixer.gate == "checkpoint"
    assert resolved(RunSettings(fixer=ViewFixerConfig(gate="off", base="b")), "cpu").fixer.gate == "off"
    assert resolved(RunSettings(fixer=ViewFixerConfig(gate="off", base="b")), "cpu").fixer.base == "b"
