"""The rows of the few-photo tables: what is trained on a scene's few photos, and how it scores on its held-out ones.

Used by `loop_ablation.py`. The rows of one scene and seed share what they can: the splats that teach are trained once.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from difix3d import Distillation, FixRequest, FixResult, ViewFixer
    from difix3d.loop.target_config import SpreadTargets
    from splat_recon import Scene, SplatTrainer, StereoStart, TrainConfig, View
    from splat_render import Camera

RESULTS = (
    "gsplat",
    "plain",
    "plain, twice",
    "plain, five times",
    "background",
    "stereo",
    "together",
    "unfixed",
    "loop",
    "loop from points",
    "photos",
)
"""gsplat's settings; plain training from the points that two of the photos see, before black; the same for twice and
five times as many steps, the latter about what the loop's whole run costs; before the photos' mean color and with a
near plane, as are all that follow; with stereo points; the median of the splats that teach; a student of one stereo
splat; the loop; the loop whose student starts from the points and learns twice as long; and such a student of real
photos that the others are not shown, the ceiling."""

PLAIN = {"plain": 1, "plain, twice": 2, "plain, five times": 5}
"""The rows of plain training, and how many times as many steps they have."""

FIXERS = ("true photos alone", "true photo", "half resolution", "noise", "tint in a third")
"""For generated scenes: a student of the true photos at the novel views, the ceiling; then fixers on top of the loop's
splats that are made of the true photo, from perfect to bad."""

GENERATED = "generated-"
"""Names of generated scenes are this and their seed."""

FROM_POINTS: dict[str, Any] = {"student_start": "points", "student_length": 2.0}
"""Settings of a student that copies no splat."""

TEACHING: dict[str, dict[str, dict[str, Any]]] = {
    "6 novel views": {"targets": {"num_views": 6}},
    "16 novel views": {"targets": {"num_views": 16}},
    "half the reach": {"targets": {"shift": 0.0625, "turn_degrees": 2.0}},
    "twice the reach": {"targets": {"shift": 0.25, "turn_degrees": 8.0}},
    "probability 0.3": {"mixture": {"novel_prob": 0.3}},
    "probability 0.8": {"mixture": {"novel_prob": 0.8}},
    "half the weight": {"mixture": {"novel_weight": 0.5}},
    "twice the weight": {"mixture": {"novel_weight": 2.0}},
    "mean": {"loop": {"combine": "mean"}},
    "loop from points": {"loop": FROM_POINTS},
}
"""How the loop teaches, each choice changed: what differs from `SpreadTargets`, `MixtureConfig` and
`DistillationConfig`."""

TINTS = ((0.15, 0.0, -0.1), (-0.1, 0.05, 0.15), (0.1, 0.1, -0.05))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewPhotos:
    """A scene, its photos, and its stereo start."""

    name: str
    scene: Scene
    captured: Sequence[View]
    test: Sequence[View]
    others: Sequence[View]
    """Photos that are neither trained on nor held out."""

    stereo: StereoStart
    stereo_seconds: float
    """Processor seconds."""

    seed: int | None
    """Of a generated scene."""

    size: int

    @classmethod
    def of(cls, scenes: Path | None, name: str, sparse: int, size: int) -> FewPhotos:
        """Read or generate a scene."""
        from splat_recon import StereoMatching, generate_scene, make_split, normalized, read_scene, with_training_points

        if name.startswith(GENERATED):
            seed, folder, policy = int(name.removeprefix(GENERATED)), None, "every:3"
            scene = normalized(generate_scene(seed, generated_config(size)))
            large = normalized(generate_scene(seed, generated_config(max(size, 240))))
        else:
            if scenes is None:
                raise SystemExit("captured scenes need --scenes")
            seed, folder, policy = None, scenes / name, "auto"
            scene = normalized(read_scene(folder, max_size=size))
            large = normalized(read_scene(folder, max_size=max(size, 240)))
        few = make_split(scene.names, policy, sparse=sparse, scene_folder=folder)
        every = make_split(scene.names, policy, scene_folder=folder)
        scene, _ = with_training_points(scene, few.train)
        begun = time.process_time()
        matching = StereoMatching(scene, large.select(few.train))
        while not matching.done:
            matching.advance()
        return cls(
            name=name,
            scene=scene,
            captured=scene.select(few.train),
            test=scene.select(few.test),
            others=scene.select(each for each in every.train if each not in few.train),
            stereo=matching.start(),
            stereo_seconds=time.process_time() - begun,
            seed=seed,
            size=size,
        )


def generated_config(size: int) -> Any:
    """Of the generated scenes."""
    from splat_recon import SyntheticConfig

    return SyntheticConfig(width=size, height=size * 3 // 4)


class TruePhotos:
    """A fixer that knows the truth, from perfect to bad.

    Args:
        case: A generated scene.
        kind: One of `FIXERS` but the first.
    """

    def __init__(self, case: FewPhotos, kind: str) -> None:
        self.case = case
        self.kind = kind
        self._generator = torch.Generator().manual_seed(0)
        self._count = 0

    def __call__(self, request: FixRequest) -> FixResult:
        """The true photos at the cameras, changed as the kind says."""
        from difix3d import FixResult

        return FixResult.of(request, torch.stack([self._changed(self.photo(camera)) for camera in request.cameras]))

    def photo(self, camera: Camera) -> torch.Tensor:
        """What is there."""
        from splat_recon.scene.synthetic import true_photo
        from splat_render.poses import transform_camera

        T_world_scene = np.linalg.inv(self.case.scene.T_scene_colmap)
        seed = 0 if self.case.seed is None else self.case.seed
        return torch.from_numpy(
            true_photo(seed, generated_config(self.case.size), transform_camera(T_world_scene, camera))
        )

    def _changed(self, photo: torch.Tensor) -> torch.Tensor:
        self._count += 1
        if self.kind == "half resolution":
            image = photo.permute(2, 0, 1)[None]
            half = torch.nn.functional.interpolate(image, scale_factor=0.5, mode="area")
            size = photo.shape[:2]
            return torch.nn.functional.interpolate(half, size=size, mode="bilinear")[0].permute(1, 2, 0).contiguous()
        if self.kind == "noise":
            return (photo + 0.1 * torch.randn(photo.shape, generator=self._generator)).clamp(0, 1)
        if self.kind == "tint in a third" and self._count % 3 == 0:
            return (photo + torch.tensor(TINTS[self._count // 3 % len(TINTS)])).clamp(0, 1)
        return photo


def train_rows(
    case: FewPhotos, seed: int, wanted: Sequence[str], *, max_steps: int, max_gaussians: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Train what the wanted rows need, and give each row's scores as soon as there are any."""
    rows = _Rows(case, plain_training(case, seed, max_steps=max_steps, max_gaussians=max_gaussians))
    for row in wanted:
        if (row == "photos" and not case.others) or (row in FIXERS and case.seed is None):
            continue
        yield row, rows.run(row)


def plain_training(case: FewPhotos, seed: int, *, max_steps: int, max_gaussians: int) -> TrainConfig:
    """The training of the plain splat, after which the others go."""
    from splat_recon import AdcConfig, TrainConfig
    from splat_recon.few_photos import config_for_photos

    strategy = AdcConfig(cap_max=max_gaussians, reset_every=0)
    train = TrainConfig(strategy=strategy, seed=seed)
    return config_for_photos(case.captured, train, points=case.scene.points).scaled_to(max_steps)


class _Rows:
    """Trains each row, and what rows have in common once."""

    def __init__(self, case: FewPhotos, train: TrainConfig) -> None:
        from difix3d import DistillationConfig

        self.case = case
        self.train = train
        self.config = DistillationConfig()
        self._first: SplatTrainer | None = None
        self._stereo: SplatTrainer | None = None
        self._teachers: Distillation | None = None
        self._teacher_seconds = self._stereo_seconds = 0.0

    def run(self, row: str) -> dict[str, Any]:
        """Scores, and processor seconds of the row with all that it needs."""
        from difix3d.loop.target_config import SpreadTargets
        from splat_recon import AdcConfig, TrainConfig

        begun, shared = time.process_time(), 0.0
        train = self.train
        if row == "gsplat":
            strategy = AdcConfig(cap_max=train.strategy.cap_max, reset_every=0)
            trainer = self._trained(TrainConfig(strategy=strategy, seed=train.seed).scaled_to(train.max_steps))
        elif row in PLAIN:
            black = dataclasses.replace(train, background=(0.0, 0.0, 0.0), render_near=None)
            trainer = self._trained(black.scaled_to(PLAIN[row] * train.max_steps))
        elif row == "background":
            trainer = self.first()
        elif row == "stereo":
            trainer = self.stereo()
        elif row == "photos":
            trainer = self._student_of([(view.camera, _photo(view)) for view in self.case.others])
        elif row == "unfixed":
            splat = self.stereo()
            begun, shared = time.process_time(), self._stereo_seconds
            cameras = self._distillation(splat).novel_cameras()
            pictures = [(camera, splat.render(camera).rgb.clamp(0, 1)) for camera, _ in cameras]
            trainer = self._student_of(pictures, splat)
        elif row == "true photos alone":
            truth = TruePhotos(self.case, row)
            cameras = self._distillation(self.first()).novel_cameras()
            trainer = self._student_of([(camera, truth.photo(camera)) for camera, _ in cameras])
        else:
            teachers = self.teachers()
            shared = self._teacher_seconds
            if row == "together":
                return self._scores(lambda camera: teachers.together(camera).rgb) | {"seconds": round(shared, 1)}
            begun = time.process_time()
            changes = TEACHING.get(row, {})
            mixture = dataclasses.replace(self.config.mixture, **changes.get("mixture", {}))
            run = self._distillation(
                self.first(),
                TruePhotos(self.case, row) if row in FIXERS else None,
                targets=SpreadTargets(**changes.get("targets", {})),
                mixture=mixture,
                **changes.get("loop", {}),
            )
            run.trained = teachers.trained
            run.train_until(run.max_steps)
            trainer = run.trainer
        seconds = time.process_time() - begun + shared
        scores = self._scores(lambda camera: trainer.render(camera).rgb)
        return scores | {"seconds": round(seconds, 1), "num_gaussians": len(trainer.gaussians)}

    def first(self) -> SplatTrainer:
        """The plain splat, before the photos' mean color."""
        if self._first is None:
            self._first = self._trained(self.train)
        return self._first

    def stereo(self) -> SplatTrainer:
        """A training with stereo."""
        if self._stereo is None:
            begun = time.process_time()
            self._stereo = self._trained(self.case.stereo.train_config(self.train), dense=True)
            self._stereo_seconds = time.process_time() - begun + self.case.stereo_seconds
        return self._stereo

    def teachers(self) -> Distillation:
        """The loop up to where its student would begin."""
        if self._teachers is None:
            first = self.first()
            begun = time.process_time()
            run = self._distillation(first)
            run.train_until(sum(run.num_steps[:-1]))
            self._teachers = run
            self._teacher_seconds = time.process_time() - begun + self.case.stereo_seconds
        return self._teachers

    def _distillation(
        self,
        first: SplatTrainer,
        fixer: ViewFixer | None = None,
        *,
        targets: SpreadTargets | None = None,
        **changes: Any,
    ) -> Distillation:
        from difix3d import Distillation, target_poses
        from difix3d.loop.target_config import SpreadTargets

        poses = np.stack([view.camera.T_world_cam for view in self.case.captured])
        extent = self.case.scene.extent or 1.0
        generator = np.random.default_rng(self.train.seed)
        novel = target_poses(targets or SpreadTargets(), poses, poses[:0], extent=extent, generator=generator)
        case, config = self.case, dataclasses.replace(self.config, **changes)
        return Distillation(case.scene, case.captured, novel, first, config, stereo=case.stereo, fixer=fixer)

    def _trained(self, config: TrainConfig, *, dense: bool = False) -> SplatTrainer:
        from splat_recon import SplatTrainer, ViewSet

        scene = self.case.stereo.scene(self.case.scene) if dense else self.case.scene
        trainer = SplatTrainer(scene, ViewSet.from_views(self.case.captured), config)
        trainer.train_until(config.max_steps)
        return trainer

    def _student_of(
        self, pictures: Sequence[tuple[Camera, torch.Tensor]], teacher: SplatTrainer | None = None
    ) -> SplatTrainer:
        from splat_recon import SplatTrainer, TrainingView, ViewSet

        views = ViewSet([TrainingView(camera=camera, rgb=rgb) for camera, rgb in pictures])
        mixed = ViewSet.from_views(self.case.captured).mixed_with(views, self.config.mixture.novel_prob)
        loop = self.config if teacher else dataclasses.replace(self.config, **FROM_POINTS)
        config = self.case.stereo.train_config(loop.student_config(self.train, loop.num_members))
        copied = teacher.gaussians.clone() if teacher else None
        trainer = SplatTrainer(self.case.stereo.scene(self.case.scene), mixed, config, gaussians=copied)
        trainer.train_until(config.max_steps)
        return trainer

    def _scores(self, render: Callable[[Camera], torch.Tensor]) -> dict[str, Any]:
        from splat_recon.evaluate import evaluate

        scores = evaluate(render, self.case.test)
        return {"psnr": round(scores.psnr, 4), "ssim": round(scores.ssim, 5)}


def _photo(view: View) -> torch.Tensor:
    return torch.tensor(view.rgb_u8).float() / 255
