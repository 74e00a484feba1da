"""The gate says what became of every fix, and there is one way to open a pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from difix_model import FixerConfig, FixVerdict, GateConfig, open_pipeline
from difix_model.gate.apply import apply_gate
from difix_model.gate.config import EvidenceConfig
from difix_model.gate.verdict import NOT_ASKED, verdict_summary, what_to_try


def blobs(seed: int) -> torch.Tensor:
    """Broad patches of color, `[1 64 64 3]`."""
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, size=(64, 64), mode="bilinear").movedim(1, -1)


def test_a_fix_that_is_taken_as_it_is() -> None:
    render = 0.8 * blobs(0)
    (verdict,) = apply_gate(render, render + 0.1, None).verdicts
    assert verdict.reason == "passed"
    assert verdict.proposed_change == pytest.approx(0.1, abs=1e-6)
    assert verdict.applied_change == pytest.approx(0.1, abs=1e-6)
    assert verdict.let_through == pytest.approx(1)
    assert verdict.sentence() == "changed by 25.5 of 255"
    (same,) = apply_gate(render, render, None).verdicts
    assert same.reason == "no_change"
    assert same.let_through is None
    (half,) = apply_gate(render, render + 0.1, None, strength=0.5).verdicts
    assert half.reason == "limited"
    assert half.let_through == pytest.approx(0.5, abs=1e-3)


def test_each_reason_is_told_apart_in_one_batch() -> None:
    render = blobs(0).repeat(3, 1, 1, 1)
    fixed = render.clone()
    fixed[0, 10:14, 10:14] += 0.2  # Something small in a good render.
    fixed[1] = blobs(1)  # Everything else than it was.
    fixed[2] = blobs(1) * torch.tensor([1.0, 0.1, 0.1])  # Likewise, in other colors than the reference.
    gate = GateConfig(evidence=EvidenceConfig())
    references = torch.cat([render[:1], fixed[1:2], render[:1]])
    result = apply_gate(render, fixed, gate, references=references, with_weight=True)
    detail, other, red = result.verdicts
    assert (detail.reason, other.reason, red.reason) == ("low_coverage", "passed", "palette_drift")
    assert detail.coverage is not None
    assert detail.coverage < 0.1
    assert other.coverage == pytest.approx(1, abs=0.01)
    assert red.palette_drift is not None
    assert red.palette_drift > 0.5
    assert f"({detail.coverage:.0%})" in detail.sentence()
    # The figures are those of the images.
    for index, verdict in enumerate(result.verdicts):
        applied = float((result.rgb[index] - render[index]).abs().double().mean())
        assert verdict.applied_change == pytest.approx(applied, abs=1e-6)
    summary = verdict_summary([*result.verdicts, NOT_ASKED], "view")
    assert summary.startswith("changed 1 of 4 views (mean ")
    assert "1 kept: only redrawn detail" in summary
    assert "1 kept: its colors move away" in summary
    assert "1 kept: not fixed" in summary


def test_a_small_change_and_a_local_one() -> None:
    render = blobs(0)
    (small,) = apply_gate(render, render + 0.01, GateConfig(trusted_change=0.1)).verdicts
    assert small.reason == "small_change"
    assert small.let_through is not None
    assert 0.05 < small.let_through <= 0.1
    fixed = render.clone()
    fixed[:, :40] = blobs(1)[:, :40]
    fixed[:, 40:] += 0.3 * (torch.arange(64) % 2).float()[None, None, :, None] - 0.15
    evidence = EvidenceConfig(low_change=0.1, high_change=0.2, hysteresis=0)
    (local,) = apply_gate(render, fixed.clamp(0, 1), GateConfig(evidence=evidence)).verdicts
    assert local.reason == "local"
    assert local.let_through is not None
    assert 0.4 < local.let_through < 0.95


def test_a_verdict_of_a_view_that_was_not_asked() -> None:
    assert NOT_ASKED.let_through is None
    assert "not fixed" in NOT_ASKED.sentence()
    assert FixVerdict(proposed_change=0.5, applied_change=0.25).let_through == 0.5


def test_references_of_any_number_and_size_go_in_one_call(checkpoint_folder: Path) -> None:
    pipe = open_pipeline(FixerConfig(model=str(checkpoint_folder), gate="off"), device="cpu")
    generator = torch.Generator().manual_seed(0)
    rendered = torch.rand(2, 24, 40, 3, generator=generator)
    first, second = torch.rand(30, 20, 3, generator=generator), torch.rand(24, 40, 3, generator=generator)
    together = pipe.fix_with_verdicts(rendered, [[first, second], []])
    assert len(together.verdicts) == 2
    alone = pipe.fix(rendered[:1], [[first, second]])
    torch.testing.assert_close(together.rgb[:1], alone)
    torch.testing.assert_close(together.rgb[1:], pipe.fix(rendered[1:]))
    assert not torch.allclose(alone, pipe.fix(rendered[:1], [[first]]), atol=1e-4)


def test_one_way_to_open_has_the_same_defaults_everywhere(checkpoint_folder: Path) -> None:
    pipe = open_pipeline(FixerConfig(model=str(checkpoint_folder)), device="cpu")
    assert (pipe.gate, pipe.dtype, pipe.batch_size) == ("auto", torch.float32, 1)
    config = FixerConfig(model=str(checkpoint_folder), precision="bfloat16", gate="off", batch_size=3)
    pipe = open_pipeline(config, device="auto" if not torch.cuda.is_available() else "cpu")
    assert (pipe.gate, pipe.dtype, pipe.batch_size) == ("off", torch.bfloat16, 3)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        FixerConfig(batch_size=0)
    with pytest.raises(ValueError, match="strength must be in"):
        FixerConfig(strength=2)


def test_a_call_returns_its_verdict_with_the_weight(checkpoint_folder: Path) -> None:
    pipe = open_pipeline(FixerConfig(model=str(checkpoint_folder), gate="off"), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    (found,) = pipe.fix_images(pixels, strength=0.5)
    change = np.abs(found.image.astype(float) - pixels).mean() / 255
    assert found.verdict.applied_change == pytest.approx(change, abs=2e-3)
    assert found.verdict.reason == "limited"


def _verdict(change: float, reason: str = "passed", proposed: float = 0.1) -> FixVerdict:
    return FixVerdict(proposed_change=proposed, applied_change=change, reason=reason)  # type: ignore[arg-type]


def test_a_run_is_told_in_a_sentence_and_what_to_do_where_nothing_changed() -> None:
    some = [_verdict(2 / 255), _verdict(4 / 255), _verdict(3 / 255, "local"), _verdict(0.0, "low_coverage")]
    assert verdict_summary(some, "image") == (
        "changed 3 of 4 images (mean 3.0 of 255); 1 kept: only redrawn detail: too little of the image changes "
        "coarsely; 1 in part: let through only where the change is coarse"
    )
    assert what_to_try(some) is None
    assert what_to_try([]) is None
    assert verdict_summary([_verdict(1e-6)], "image").startswith("changed 0 of 1 image; 1 kept: the proposed change is")
    for reason, word in (("low_coverage", "--gate off"), ("no_change", "--model"), ("limited", "--strength")):
        assert word in (what_to_try([_verdict(0.0, reason)] * 3) or "")
