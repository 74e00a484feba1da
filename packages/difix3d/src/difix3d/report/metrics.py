"""The content of a run's metrics.json."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from difix3d.report.facts import RunFacts
from difix3d.report.results import VariantResult, best_variant, verdict
from difix3d.report.what_helped import what_helped


def run_metrics(facts: RunFacts, results: Sequence[VariantResult]) -> dict[str, Any]:
    """The best variant's scores, all of them under `variants`, and what the run was."""
    steps = {"plain": facts.config.train.max_steps, "loop": facts.step}
    side = "test" if facts.holds_out else "train"
    variants = {
        result.name: result.evaluation.to_dict(
            step=steps[result.name.removesuffix("_fixed")], split=side, num_gaussians=result.num_gaussians
        )
        for result in results
    }
    best, policy = best_variant(results).name, facts.policy
    return {
        **variants[best],
        "best_variant": best,
        "verdict": verdict(results, fixed=facts.fixed, distilled=facts.distilled, held_out=facts.holds_out),
        "saw_test_poses": facts.saw_test_poses,
        "targets": facts.settings.targets,
        "start_points": None if facts.points is None else asdict(facts.points),
        "progress_to_targets": facts.progress,
        "parts": facts.parts,
        "what_helped": [asdict(part) for part in what_helped(facts, results)],
        "rounds": {
            "made": facts.num_rounds,
            "learned": facts.num_rounds_learned,
            "undone": policy.num_rounds_undone if policy else 0,
        },
        "validation": _validation(facts),
        "fixes": _fixes(facts, results),
        "variants": variants,
    }


def _validation(facts: RunFacts) -> dict[str, Any] | None:
    """The scores on validation photos, and what they led to; None where there were none."""
    policy = facts.policy
    if policy is None:
        return None
    return {
        "views": list(facts.held_back),
        "stopped_early": policy.stopped,
        "splat_step": facts.splat_step,
        "scores": [asdict(score) for score in policy.scores],
    }


def _fixes(facts: RunFacts, results: Sequence[VariantResult]) -> dict[str, Any]:
    """What became of every fix: of the newest round's novel views, and of the test views at the end."""
    views = facts.novel.views if facts.novel else ()
    return {
        "novel_views": [{"reference": view.reference_name, **asdict(view.verdict)} for view in views],
        "final": {
            result.name: {name: asdict(verdict) for name, verdict in result.verdicts.items()}
            for result in results
            if result.verdicts
        },
    }
