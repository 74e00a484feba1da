"""The end of a run: plain training and the loop, with and without a final fix, scored on the test photos."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING

from difix3d.enhance.renderer import EnhancedRenderer
from difix3d.errors import as_input_error
from difix3d.fixers.contract import resident
from difix3d.report.decision import decided
from difix3d.report.film import write_film
from difix3d.report.metrics import run_metrics
from difix3d.report.page import write_report
from difix3d.report.pictures import write_comparison
from difix3d.report.results import VariantResult, evaluate_variant, final_fix_changes_nothing, rgb_renderer
from difix3d.run.facts import run_facts
from difix3d.run.fixing_time import TIME_FILE
from difix3d.run.progress import Progress
from image_metrics import make_lpips
from splat_recon.export import export_ply
from splat_recon.pages.scene_page import MAX_EMBEDDED_GAUSSIANS, scene_page

if TYPE_CHECKING:
    from difix3d.distillation import Distillation
    from difix3d.loop.progressive import ProgressiveTrainer
    from difix3d.report.curves import Curves
    from difix3d.run.fixing_time import FixingTime
    from difix3d.run.inputs import RunInputs
    from splat_recon.trainer import SplatTrainer


def compare(
    inputs: RunInputs, plain: SplatTrainer, loop: ProgressiveTrainer | Distillation, curves: Curves, time: FixingTime
) -> Generator[Progress, None, tuple[str, str]]:
    """Score all variants, and write splats, pictures, film, metrics and the report into the run's folder.

    Returns:
        The verdict, and what to do now; a sentence or two each.
    """
    folder, splats = inputs.folder, {"plain": plain, "loop": loop.trainer}
    yield Progress(phase="compare", done=0, total=4)
    lpips = make_lpips(device=inputs.device)
    results: list[VariantResult] = []
    for name in ("plain", "plain_fixed", "loop", "loop_fixed"):
        trainer, fixes = splats[name.removesuffix("_fixed")], name.endswith("_fixed")
        enhanced = EnhancedRenderer(trainer.render, inputs.fixer, inputs.captured, extent=inputs.extent)
        render, size = enhanced if fixes else rgb_renderer(trainer), len(trainer.gaussians)
        with resident(inputs.fixer) if fixes else nullcontext():
            results.append(evaluate_variant(name, render, inputs.held_out, num_gaussians=size, lpips=lpips))
        yield Progress(phase="compare", done=len(results), total=4)
    with as_input_error():
        for name, trainer in splats.items():
            _export(inputs, name, trainer)
        write_comparison(folder.images, inputs.held_out, results, inputs.scene.names)
        shown = write_film(
            folder.path / "path.mp4",
            plain.render,
            loop.trainer.render,
            fixer=inputs.fixer if inputs.has_fixer and not final_fix_changes_nothing(results) else None,
            captured=inputs.captured,
            extent=inputs.extent,
            batch_size=inputs.config.fix_batch_size,
        )
        for done, total in shown:
            yield Progress(phase="film", done=done, total=total)
        facts = run_facts(inputs, loop, results)
        metrics = run_metrics(facts, results)
        decision = decided(facts, results, curves)
        folder.write_json("metrics.json", {**metrics, "decision": asdict(decision)})
        best = splats[decision.splat]
        _export(inputs, "best", best)
        # Beside it and not in it: metrics are the same bit for bit after any stop, times are not.
        folder.write_json(TIME_FILE, time.to_dict())
        page = _scene_page(inputs, best)
        write_report(folder.path, facts, results, curves, inputs.held_out, inputs.captured, scene_page=page)
    yield Progress(phase="report", done=1, total=1)
    return metrics["verdict"], decision.sentences


def _export(inputs: RunInputs, name: str, trainer: SplatTrainer) -> None:
    export_ply(
        inputs.folder.path / f"{name}.ply",
        trainer.gaussians,
        inputs.scene.T_scene_colmap,
        background=trainer.config.background,
        near_plane=trainer.config.render_near,
    )


def _scene_page(inputs: RunInputs, trainer: SplatTrainer) -> str:
    """A page that shows a splat in 3D, where it is small enough to stand in the report."""
    if len(trainer.gaussians) > MAX_EMBEDDED_GAUSSIANS:
        return ""
    cameras = {view.name: view.camera for view in inputs.captured}
    return scene_page(
        trainer.gaussians,
        cameras,
        title=inputs.scene.name,
        background=trainer.config.background,
        near_plane=trainer.config.render_near,
    )
