"""A run's results as its report sees them, without a run."""

from __future__ import annotations

from typing import Any

from difix3d import ProgressiveConfig, RunSettings
from difix3d.report.facts import RunFacts
from difix3d.report.results import VariantResult
from difix_model import FixVerdict
from splat_recon import Evaluation, Split, TrainConfig, TrainingPoints

POINTS = TrainingPoints(num_kept=300, num_all=900, num_train=6, num_views=9, num_tracked=900)


def facts(loop: str = "rounds", **changes: Any) -> RunFacts:
    values: dict[str, Any] = {
        "scene_name": "s",
        "settings": RunSettings(loop=loop),  # type: ignore[arg-type]
        "config": ProgressiveConfig(train=TrainConfig(background=(1.0, 0.0, 0.2))),
        "split": Split(train=("a",), test=("b",), policy="p"),
        "points": POINTS,
        "num_rounds": 3,
        "num_rounds_learned": 3,
        "novel": None,
        "fixed": True,
        "step": 10,
        "splat_step": 10,
        "transparency": 0.02,
    }
    return RunFacts(**(values | changes))


def results(plain: float, loop: float, fixed: float, verdict: FixVerdict | None = None) -> list[VariantResult]:
    verdicts = {} if verdict is None else {"b": verdict}
    return [
        VariantResult(
            name=name,
            evaluation=Evaluation(psnr=psnr, ssim=0.5, lpips=None, per_view={}),
            num_gaussians=1,
            renders_u8={},
            verdicts=verdicts if name == "loop_fixed" else {},
        )
        for name, psnr in (("plain", plain), ("plain_fixed", plain), ("loop", loop), ("loop_fixed", fixed))
    ]
