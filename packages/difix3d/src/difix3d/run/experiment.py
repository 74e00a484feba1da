"""One run from a folder of photos to a report: plain training beside the progressive loop, then the comparison.

Up to the first round the two trainings are one and the same, so it is done once; then the loop goes on from a copy.
Both advance side by side, in small pieces: between two pieces the run can be saved, stopped and taken up again. Where
captured views are held back, the loop begins with the run, and takes the splat from the plain training until its first
round or the first check that undoes something.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from difix3d.distillation import Distillation
from difix3d.enhance.renderer import EnhancedRenderer
from difix3d.errors import InputError, as_input_error
from difix3d.fixers.contract import ViewFixer, resident
from difix3d.fixers.identity import IdentityFixer
from difix3d.fixers.opening import open_fixer
from difix3d.loop.branch import begun, forked
from difix3d.loop.progressive import ProgressiveTrainer
from difix3d.loop.schedule import rounds
from difix3d.loop.target_config import FileTargets
from difix3d.loop.targets import target_poses
from difix3d.report.curves import Curves
from difix3d.report.film import write_film
from difix3d.report.page import RunFacts, write_report
from difix3d.report.pictures import write_comparison, write_novel_views
from difix3d.report.results import VariantResult, evaluate_variant, final_fix_changes_nothing, rgb_renderer
from difix3d.report.what_helped import FROM_POINTS, TAUGHT, WITH_STEREO
from difix3d.run.fixing_time import TIME_FILE, FixingTime, TimedFixer
from difix3d.run.image_memory import check_image_memory, fitting_views, picture_bytes
from difix3d.run.run_folder import RunFolder
from difix3d.run.scene import load_scene
from difix3d.run.settings import (
    RunSettings,
    distillation_config,
    fixer_config,
    for_photos,
    progressive_config,
    resolved,
    start_config,
)
from difix3d.run.start import start_background, start_gaussians
from difix3d.run.stereo_start import keep_stereo, kept_stereo, stereo_matching
from difix_model.references.poses import pose_distances
from output_files import check_inputs_kept
from splat_recon.errors import DivergedError
from splat_recon.evaluate import evaluate
from splat_recon.few_photos import photo_background
from splat_recon.metrics import make_lpips
from splat_recon.trained import export_ply
from splat_recon.trainer import SplatTrainer
from splat_recon.views.view_set import ViewSet
from splat_render.device import chosen_device

if TYPE_CHECKING:
    from splat_recon.stereo.start import StereoStart
    from splat_render.gaussians import Gaussians

PIECE = 10
"""Steps between two reports of progress."""

MEASUREMENTS = 12
"""How many points the curves of the report have."""

SAME_POSE = 0.01
"""Distance of poses, in extents and radians, up to which a target is that of a held-out photo."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a phase of the run has come."""

    phase: str
    """What is being done, in words."""

    done: int
    """Pieces of the phase that are done."""

    total: int
    """Pieces of the phase in all."""

    note: str = ""
    """What is worth knowing at this moment, in a few words."""


class Experiment:
    """A run and its folder.

    Args:
        settings: What to do.
        folder: Where to put it; a new folder, or for `resume` that of an earlier run.
        resume: Go on from the folder's newest checkpoint.
        fixer: What fixes, any callable of the contract (`fixers.contract`); None opens what the settings name.
    """

    def __init__(
        self, settings: RunSettings, folder: RunFolder, *, resume: bool = False, fixer: ViewFixer | None = None
    ) -> None:
        self._given_fixer = fixer
        self.folder = folder
        self.asked = settings
        self.settings = settings
        self.resume = resume
        self.finished = False
        self.verdict = ""
        self.time = FixingTime()
        self._curves = Curves()
        self._plain: SplatTrainer | None = None
        self._loop: ProgressiveTrainer | Distillation | None = None
        self.stereo: StereoStart | None = None
        self._last_measured = -1

    def run(self, *, stop_at: int | None = None) -> Iterator[Progress]:
        """Do the run, a piece per iteration; it may be abandoned, after `save` for a later resume, at any of them.

        Args:
            stop_at: Stop both trainings after this step, save, and compare nothing.

        Raises:
            InputError: Scene, split, fixer or folder are not usable; before any heavy work.
        """
        if self.resume:
            self.folder.check_links()
        else:
            self.folder.create()
        with self.folder.logging_to_file():
            try:
                with as_input_error():
                    yield from self._prepare()
                with self.time.phase("training"):
                    yield from self._train(stop_at)
            except DivergedError as error:
                raise InputError(f"training diverged: {error}") from error
            finally:
                if not self.prepared and not self.resume:
                    self.folder.discard()
            if self.step < self.max_steps:
                return
            with self.time.phase("comparison"):
                yield from self._compare()
            self.folder.remove_states()
            self.finished = True

    @property
    def prepared(self) -> bool:
        """Whether there is anything to save."""
        return self._plain is not None

    @property
    def step(self) -> int:
        """Steps that both trainings have done; with distillation those of all its trainings."""
        if self._plain is None:
            return 0
        if isinstance(self._loop, Distillation):
            return self._plain.step + self._loop.step
        return self._plain.step if self._loop is None else min(self._plain.step, self._loop.step)

    @property
    def max_steps(self) -> int:
        """Steps of each training; with distillation those of plain training and of all its own together."""
        return self.config.train.max_steps + (sum(self.distillation.num_steps) if self._distills else 0)

    @property
    def _distills(self) -> bool:
        return self.settings.loop == "distillation"

    def _prepare(self) -> Iterator[Progress]:
        phase = "prepare"
        self.folder.remove_states()
        yield Progress(phase=phase, done=0, total=3, note="scene")
        device = chosen_device(self.settings.device)
        self.settings = resolved(self.settings, device)
        loaded = load_scene(self.settings)
        self.scene, self.split, self.points = loaded.scene, loaded.split, loaded.points
        check_inputs_kept([self.folder.path / "config.json"], self.scene.sources)
        self.settings = for_photos(
            self.settings,
            len(self.split.train),
            background=photo_background(self.scene.select(self.split.train)),
            start_background=start_background(start_config(self.settings)),
        )
        self.config = progressive_config(self.settings)
        yield Progress(phase=phase, done=1, total=3, note="fixer")
        self.device = device
        fixer = self._given_fixer or open_fixer(fixer_config(self.settings), device=device)
        self.fixer = TimedFixer(fixer, self.time)
        self.captured = self.scene.select(self.split.train)
        self.held_out = self.scene.select(self.split.test)
        self._fit_novel_views()
        self.T_world_target = target_poses(
            self.config.targets,
            np.stack([view.camera.T_world_cam for view in self.captured]),
            np.stack([view.camera.T_world_cam for view in self.held_out]),
            extent=self.scene.extent or 1.0,
            generator=np.random.default_rng(self.config.seed),
            scene=self.scene,
        )
        num_targets = len(self.T_world_target)
        needed = picture_bytes(self.config, self.captured, num_targets=num_targets, num_held_out=len(self.held_out))
        check_image_memory(needed, self.settings.image_memory)
        yield Progress(phase=phase, done=2, total=3, note="splat")
        yield from self._match_stereo()
        self.distillation = distillation_config(self.settings, self.config)
        if not self.resume:
            config = {"config": asdict(self.config)}
            if self._distills:
                config["distillation"] = asdict(self.distillation)
            self.folder.write_config(self.asked.to_dict(), self.settings.to_dict() | config)
        if self.stereo is not None and not self.folder.stereo.is_file():
            keep_stereo(self.folder, self.stereo)
        if not (self.resume and self._load()):
            self._plain = begun(
                self.scene, self.captured, self.config.train, device=device, gaussians=self._start_gaussians()
            )
        if self._loop is None and self._watched:
            self._loop = self._new_loop()
        yield Progress(phase=phase, done=3, total=3)

    def _fit_novel_views(self) -> None:
        """Distill from fewer novel views where the default number does not fit into the memory for images."""
        if not self._distills or self.asked.num_novel is not None or self.settings.num_novel is None:
            return
        number = fitting_views(
            self.config,
            self.captured,
            num_held_out=len(self.held_out),
            image_memory=self.settings.image_memory,
            most=self.settings.num_novel,
        )
        if number < self.settings.num_novel:
            logger.warning("%d novel views instead of %d fit into --image-memory", number, self.settings.num_novel)
            self.settings = replace(self.settings, num_novel=number)
            self.config = progressive_config(self.settings)

    def _match_stereo(self) -> Iterator[Progress]:
        """Depths of the photos, or what an earlier part of the run kept of them.

        Plain training and rounds start from them; distillation has splats with and without.
        """
        matching = stereo_matching(self.settings, self.scene, self.captured)
        if matching is None:
            return
        self.stereo = kept_stereo(self.folder) if self.resume else None
        if self.stereo is None:
            while not matching.done:
                matching.advance()
                yield Progress(phase="stereo", done=matching.num_rounds_done, total=matching.num_rounds)
            self.stereo = matching.start()
        if not self._distills:
            self.scene = self.stereo.scene(self.scene)
            self.config = replace(self.config, train=self.stereo.train_config(self.config.train))

    def _start_gaussians(self) -> Gaussians | None:
        config = start_config(self.settings)
        return None if config is None else start_gaussians(config, self.scene)

    @property
    def _watched(self) -> bool:
        """Whether views are held back, so that the loop begins with the run and not at its first round."""
        return self.config.hold_back.num_views(len(self.captured)) > 0

    def _load(self) -> bool:
        problems = []
        for checkpoint in self.folder.checkpoint_folders():
            try:
                self._plain = SplatTrainer.load(
                    checkpoint / "plain", self.scene, ViewSet.from_views(self.captured), device=self.device
                )
                if (checkpoint / "loop").is_dir():
                    self._loop = self._new_loop(self._plain if self._distills else None)
                    self._loop.load(checkpoint / "loop", device=self.device)
            except ValueError as error:
                logger.warning("checkpoint %s is skipped: %s", checkpoint, error)
                problems.append(str(error))
                self._plain = self._loop = None
                continue
            self.time.load(checkpoint)
            break
        if problems and self._plain is None:
            # Starting over would cut the measurements, and new checkpoints would give way to the old ones.
            raise InputError(f"no checkpoint of {self.folder.path} can be used: {problems[0]}")
        for values in self.folder.read_measurements(until_step=self.step):
            self._curves.add(values)
            self._last_measured = max(self._last_measured, values["step"])
        return self._plain is not None

    def _new_loop(self, trainer: SplatTrainer | None = None) -> ProgressiveTrainer | Distillation:
        if self._distills and trainer is not None:
            fixer = self.fixer if self._has_fixer else None
            return Distillation(
                self.scene,
                self.captured,
                self.T_world_target,
                trainer,
                self.distillation,
                stereo=self.stereo,
                fixer=fixer,
                device=self.device,
            )
        return ProgressiveTrainer(
            self.scene,
            self.captured,
            self.T_world_target,
            self.fixer,
            self.config,
            device=self.device,
            trainer=trainer,
            follows=self._plain if self._watched else None,
            states=self.folder.states,
            gaussians=self._start_gaussians() if trainer is None else None,
        )

    def _train(self, stop_at: int | None) -> Iterator[Progress]:
        stop = self.max_steps if stop_at is None else min(stop_at, self.max_steps)
        plan = rounds(self.config.rounds, max_steps=self.max_steps, min_remaining=self.config.min_remaining)
        fork = plan[0].start_step if plan else self.config.train.max_steps
        marked = [mark.step for mark in self._loop.marks] if isinstance(self._loop, ProgressiveTrainer) else [fork]
        measure_every = max(1, self.max_steps // MEASUREMENTS)
        save_every = self.settings.checkpoint_every or self.max_steps
        while self.step < stop:
            ahead = [mark for mark in marked if mark > self.step]
            step = min(stop, *ahead[:1], *(self.step - self.step % n + n for n in (PIECE, measure_every, save_every)))
            self._advance(step, fork)
            if step % measure_every == 0 or step == self.max_steps:
                self._measure()
            yield Progress(
                phase="train", done=self._work(self.step, fork), total=self._work(stop, fork), note=self._note()
            )
            if step % save_every == 0 or step == stop or self._round_at(step):
                self.save()

    def _round_at(self, step: int) -> bool:
        """Whether the loop made a round after this step: what it took is not to be lost."""
        return self._loop is not None and self._loop.novel is not None and self._loop.newest_round_step == step

    def _work(self, step: int, fork: int) -> int:
        """Steps of all trainings together; what the loop has in common with plain training is done once."""
        return step + (0 if self._distills else max(0, step - fork)) + (step if self._watched else 0)

    def _advance(self, step: int, fork: int) -> None:
        plain = self._plain_trainer()
        plain.train_until(min(step, self.config.train.max_steps))
        if self._loop is None and self._distills and step > fork:
            self._loop = self._new_loop(plain)
        elif self._loop is None and not self._distills and step == fork and not self._watched:
            self._loop = self._new_loop(forked(plain, self.captured, device=self.device))
        if self._loop is not None:
            rounds_before = self._loop.num_rounds_done
            self._loop.train_until(step - fork if self._distills else step)
            if self._loop.num_rounds_done > rounds_before and self._loop.novel is not None:
                logger.info("step %d: round %d of novel views", step, self._loop.num_rounds_done)
                write_novel_views(self.folder.images, self._loop.novel, self.captured)

    def _plain_trainer(self) -> SplatTrainer:
        if self._plain is None:
            raise RuntimeError("the run has not been prepared")
        return self._plain

    def _note(self) -> str:
        latest = self._curves.latest("loop") or self._curves.latest("plain")
        measured = f", {latest['psnr']:.1f} dB" if latest else ""
        if isinstance(self._loop, Distillation):
            return f"{self._loop.stage}{measured}"
        rounds_done = self._loop.num_rounds_done if self._loop else 0
        return f"step {self.step}, round {rounds_done}{measured}"

    def _measure(self) -> None:
        if self.step <= self._last_measured:
            return
        self._last_measured = self.step
        trainers = {"plain": self._plain_trainer()}
        if isinstance(self._loop, Distillation):
            trainers = {}
        if self._loop is not None and not self._loop.same_as_plain:
            trainers["loop"] = self._loop.trainer
        for name, trainer in trainers.items():
            scores = evaluate(rgb_renderer(trainer), self.held_out)
            values: dict[str, Any] = {
                "step": self.step,
                "variant": name,
                "psnr": scores.psnr,
                "ssim": scores.ssim,
                "num_gaussians": len(trainer.gaussians),
                "loss": trainer.history[-1].loss if trainer.history else None,
            }
            self._curves.add(values)
            self.folder.append_measurement(values)

    def save(self) -> Path:
        """Write a checkpoint of both trainings; a resumed run goes on from it bit for bit.

        Raises:
            InputError: The folder cannot be written.
        """

        def write(part: Path) -> None:
            self._plain_trainer().save(part / "plain")
            self.time.save(part)
            if self._loop is not None:
                self._loop.save(part / "loop")

        return self.folder.write_checkpoint(self.step, write)

    def _compare(self) -> Iterator[Progress]:
        plain = self._plain_trainer()
        loop = self._loop.trainer if self._loop is not None else plain
        yield Progress(phase="compare", done=0, total=4)
        lpips = make_lpips(device=self.device)
        results: list[VariantResult] = []
        for name, trainer in (("plain", plain), ("plain_fixed", plain), ("loop", loop), ("loop_fixed", loop)):
            fixes = name.endswith("_fixed")
            render = self._enhanced(trainer) if fixes else rgb_renderer(trainer)
            with resident(self.fixer) if fixes else nullcontext():
                results.append(
                    evaluate_variant(name, render, self.held_out, num_gaussians=len(trainer.gaussians), lpips=lpips)
                )
            yield Progress(phase="compare", done=len(results), total=4)
        with as_input_error():
            for name, trainer in (("plain", plain), ("loop", loop)):
                export_ply(
                    self.folder.path / f"{name}.ply",
                    trainer.gaussians,
                    self.scene.T_scene_colmap,
                    background=trainer.config.background,
                )
            write_comparison(self.folder.images, self.held_out, results, self.scene.names)
            fixes_film = self._has_fixer and not final_fix_changes_nothing(results)
            shown = write_film(
                self.folder.path / "path.mp4",
                plain.render,
                loop.render,
                fixer=self.fixer if fixes_film else None,
                captured=self.captured,
                extent=self.scene.extent or 1.0,
                batch_size=self.config.fix_batch_size,
            )
            for done, total in shown:
                yield Progress(phase="film", done=done, total=total)
            facts = self._facts(results)
            metrics = facts.metrics(results)
            self.verdict = metrics["verdict"]
            self.folder.write_json("metrics.json", metrics)
            # Beside it and not in it: metrics are the same bit for bit after any stop, times are not.
            self.folder.write_json(TIME_FILE, self.time.to_dict())
            write_report(
                self.folder.path,
                facts,
                results,
                self._curves,
                self.held_out,
                self.captured,
            )
        yield Progress(phase="report", done=1, total=1)

    def _enhanced(self, trainer: SplatTrainer) -> EnhancedRenderer:
        return EnhancedRenderer(trainer.render, self.fixer, self.captured, extent=self.scene.extent or 1.0)

    @property
    def _has_fixer(self) -> bool:
        return not isinstance(self.fixer.fixer, IdentityFixer)

    def _parts(self, results: Sequence[VariantResult]) -> dict[str, float]:
        """PSNR on held-out photos of what distillation is made of, in its order; empty without it."""
        loop = self._loop
        if not isinstance(loop, Distillation):
            return {}
        by_name = {result.name: result.evaluation.psnr for result in results}
        parts = {FROM_POINTS: by_name["plain"]}
        stereo = [member for index, member in enumerate(loop.members) if self.distillation.starts_with_stereo(index)]
        if stereo and self.stereo is not None and self.stereo.helps:
            parts[WITH_STEREO] = evaluate(rgb_renderer(stereo[0]), self.held_out).psnr
        together = evaluate(lambda camera: loop.together(camera).rgb, self.held_out).psnr
        return parts | {
            f"{len(loop.members)} splats together": together,
            TAUGHT: by_name["loop"],
        }

    def _transparency(self) -> float:
        """Fraction of the light in the loop's held-out views that comes from the background."""
        trainer = self._loop.trainer if self._loop is not None else self._plain_trainer()
        return float(np.mean([float(1 - trainer.render(view.camera).alpha.mean()) for view in self.held_out]))

    def _facts(self, results: Sequence[VariantResult]) -> RunFacts:
        loop = self._loop
        return RunFacts(
            scene_name=self.scene.name,
            generated=self.settings.scene is None,
            settings=self.settings,
            config=self.config,
            split=self.split,
            points=self.points if start_config(self.settings) is None else None,
            num_rounds=loop.num_rounds_done if loop else 0,
            watch=loop.watch if loop else None,
            held_back=tuple(view.name for view in loop.held_back) if loop else (),
            file_has_test_poses=isinstance(self.config.targets, FileTargets) and self._targets_are_test_poses(),
            progress=loop.progress if loop else 0.0,
            kept_step=self.step if self._distills or not loop else loop.trainer.step,
            novel=loop.novel if loop else None,
            fixed=self._has_fixer,
            stereo=None if self.stereo is None else self.stereo.summary(),
            parts=self._parts(results),
            transparency=self._transparency(),
            step=self.step,
        )

    def _targets_are_test_poses(self) -> bool:
        T_world_held_out = np.stack([view.camera.T_world_cam for view in self.held_out])
        distances = pose_distances(self.T_world_target, T_world_held_out, extent=self.scene.extent or 1.0)
        return bool((distances < SAME_POSE).any())
