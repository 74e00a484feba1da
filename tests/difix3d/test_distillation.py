"""Several splats teach one: what they show together, how far it is relied on, and the stages on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from difix3d import (
    Distillation,
    DistillationConfig,
    EnsembleFixer,
    FixRequest,
    FixResult,
    FloaterConfig,
    InputError,
    ViewFixer,
    target_poses,
)
from difix3d.ensemble import confidence_of_fix, ensemble_view
from difix3d.floaters import floaters
from difix3d.loop.target_config import SpreadTargets
from difix3d.loop.targets import neighboring_pairs
from splat_recon import (
    Scene,
    SplatTrainer,
    StereoConfig,
    StereoMatching,
    StereoStart,
    SyntheticConfig,
    TrainConfig,
    ViewSet,
    generate_scene,
    normalized,
)
from splat_render import Camera, RenderOutput, RenderStats

STEPS = 10


class Flat:
    """A splat that shows one gray everywhere."""

    def __init__(self, gray: float, alpha: float = 1.0) -> None:
        self.gray, self.alpha = gray, alpha

    def __call__(self, camera: Camera) -> RenderOutput:
        size = (camera.height, camera.width)
        return RenderOutput(
            rgb=torch.full((*size, 3), self.gray),
            alpha=torch.full((*size, 1), self.alpha),
            depth=torch.ones((*size, 1)),
            stats=RenderStats(means2d=torch.zeros((0, 2)), radii_px=torch.zeros(0), width=size[1], height=size[0]),
        )


@pytest.fixture(scope="module")
def scene() -> Scene:
    config = SyntheticConfig(layout="shelf", num_views=4, width=48, height=36, num_points=60)
    return normalized(generate_scene(12, config))


@pytest.fixture(scope="module")
def stereo(scene: Scene) -> StereoStart:
    config = StereoConfig(sizes=(48,), num_sweeps=(3,), num_geometric_rounds=(1,), num_points=80, min_component=20)
    matching = StereoMatching(scene, scene.views, config)
    while not matching.done:
        matching.advance()
    start = matching.start()
    assert start.helps
    return start


TRAIN = TrainConfig(seed=3).scaled_to(STEPS)
TWO = DistillationConfig(num_members=2, num_members_without_stereo=2)


def poses_of(scene: Scene, number: int = 5) -> np.ndarray:
    poses = np.stack([view.camera.T_world_cam for view in scene.views])
    rng = np.random.default_rng(0)
    return target_poses(SpreadTargets(num_views=number), poses, poses[:0], extent=scene.extent, generator=rng)


def first_member(scene: Scene) -> SplatTrainer:
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), TRAIN)
    trainer.train_until(STEPS)
    return trainer


def distillation(scene: Scene, stereo: StereoStart | None, fixer: ViewFixer | None = None) -> Distillation:
    first = first_member(scene)
    return Distillation(scene, scene.views, poses_of(scene), first, TWO, stereo=stereo, fixer=fixer)


def request_of(scene: Scene) -> FixRequest:
    cameras = tuple(view.camera for view in scene.views[:2])
    return FixRequest(rgb=torch.zeros((2, 36, 48, 3)), alpha=None, cameras=cameras, references=((), ()))


def test_the_median_leaves_out_a_splat_of_fog_and_the_mean_does_not(scene: Scene):
    camera = scene.views[0].camera
    outputs = [Flat(gray)(camera) for gray in (0.2, 0.22, 0.24, 1.0)]
    assert ensemble_view(outputs, "median").rgb[0, 0, 0].item() == pytest.approx(0.23)
    assert ensemble_view(outputs[:3], "median").rgb[0, 0, 0].item() == pytest.approx(0.22)
    assert ensemble_view(outputs, "mean").rgb[0, 0, 0].item() == pytest.approx(0.415)
    with pytest.raises(ValueError, match="at least one"):
        ensemble_view([], "mean")


def test_a_view_becomes_what_the_splats_show_and_all_pixels_count_alike(scene: Scene):
    result = EnsembleFixer([Flat(0.4), Flat(0.6)])(request_of(scene))
    assert torch.allclose(result.rgb, torch.tensor(0.5))
    assert result.confidence is None
    assert result.verdicts[0].applied_change == pytest.approx(0.5)


def test_the_requests_own_renders_may_be_those_of_one_splat_more(scene: Scene):
    request = request_of(scene)
    result = EnsembleFixer([Flat(0.4), Flat(0.6)], with_request=True)(request)
    assert torch.allclose(result.rgb, torch.tensor(0.4))  # The request is black.
    assert torch.equal(EnsembleFixer([], with_request=True)(request).rgb, request.rgb)
    with pytest.raises(ValueError, match="at least one member"):
        EnsembleFixer([])


def test_no_view_is_rendered_twice(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    run = distillation(scene, None)
    run.train_until(2 * STEPS)
    counts = [0] * len(run.members)
    for index, member in enumerate(run.members):
        monkeypatch.setattr(member, "render", _counting(member.render, counts, index))
    run.train_until(2 * STEPS + 1)
    assert counts == [len(run.T_world_novel)] * len(run.members)


def _counting(
    render: Callable[[Camera], RenderOutput], counts: list[int], index: int
) -> Callable[[Camera], RenderOutput]:
    def counted(camera: Camera) -> RenderOutput:
        counts[index] += 1
        return render(camera)

    return counted


def test_another_fixer_gets_what_the_splats_show_together(scene: Scene):
    asked = []

    def brighter(request: FixRequest) -> FixResult:
        asked.append(request)
        return FixResult.of(request, request.rgb + 0.01)

    result = EnsembleFixer([Flat(0.2, 0.5), Flat(0.4, 1.0)], combine="mean", fixer=brighter)(request_of(scene))
    assert asked[0].rgb[0, 0, 0, 0].item() == pytest.approx(0.3)
    assert asked[0].alpha[0, 0, 0].item() == pytest.approx(0.75)
    assert asked[0].cameras == request_of(scene).cameras or len(asked[0].cameras) == 2
    assert result.rgb[0, 0, 0, 0].item() == pytest.approx(0.31)


def test_a_fix_may_decide_between_the_splats_and_counts_less_where_it_contradicts_all():
    combined = torch.full((1, 1, 3), 0.5)

    def relied(change: float, deviation: float) -> float:
        return float(confidence_of_fix(combined, combined + change, torch.full((1, 1), deviation), 0.1))

    assert relied(0.0, 0.0) == 1
    assert relied(0.0, 0.2) == 1
    assert relied(0.25, 0.2) == 1
    assert relied(0.1, 0.0) == pytest.approx(float(np.exp(-1)), rel=1e-4)
    assert relied(0.2, 0.05) > relied(0.2, 0.02)


def test_novel_views_lie_between_and_around_photos_that_look_the_same_way(scene: Scene):
    poses = np.stack([view.camera.T_world_cam for view in scene.views])
    away = poses[:1].copy()
    away[0, :3, :3] = away[0, :3, :3] @ np.diag([-1.0, 1.0, -1.0])
    config = SpreadTargets(num_views=30)
    pairs = neighboring_pairs(np.concatenate([poses, away]), config, extent=scene.extent)
    assert pairs
    assert all(len(poses) not in pair for pair in pairs)
    exact = dataclasses.replace(config, shift=0.0, turn_degrees=0.0)
    rng = np.random.default_rng(1)
    targets = target_poses(exact, poses, poses[:0], extent=scene.extent, generator=rng)
    distances = np.linalg.norm(targets[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1).min(axis=1)
    on_photos = distances < 1e-9
    assert on_photos[::3].all()
    assert not on_photos[1::3].any()
    far = target_poses(config, poses, poses[:0], extent=scene.extent, generator=np.random.default_rng(1))
    moved = np.linalg.norm(far[:, :3, 3] - targets[:, :3, 3], axis=1)
    assert 0.05 * scene.extent < np.median(moved) < 0.5 * scene.extent


def test_stages_follow_each_other_in_as_many_steps_as_they_say(scene: Scene, stereo: StereoStart):
    run = distillation(scene, stereo)
    assert run.num_steps == (10, 10, 10)
    assert run.stage == "splat 2 of 4"
    run.train_until(11)
    assert [member.step for member in run.trained] == [STEPS, 1]
    assert run.step == 11
    assert len({member.config.seed for member in run.members}) == 3
    assert run.members == [*run.trained, run.plain]
    assert len(run.members[0].gaussians) > len(run.plain.gaussians)
    run.train_until(20)
    assert run.student is None
    assert run.stage == "splat 4 of 4"
    run.train_until(100)
    assert run.step == run.max_steps == 30
    assert run.student is not None
    assert run.novel is not None
    assert len(run.novel.views) == 5
    assert run.trainer is run.student


def test_the_student_begins_as_a_copy_of_the_first_that_teaches_or_from_the_points(scene: Scene, stereo: StereoStart):
    run = distillation(scene, stereo)
    run.train_until(20)
    changes = []
    for start in ("teacher", "points"):
        run.config = DistillationConfig(num_members=2, student_start=start, student_length=0.1)
        run.student = None
        run.train_until(21)
        assert run.student is not None
        changes.append((run.student.gaussians.logit_opacities - run.members[0].gaussians.logit_opacities).abs().max())
    assert changes[0] < 0.1 < changes[1], "a step moves a logit by 0.05"


def test_any_number_of_stops_changes_no_bit(scene: Scene, stereo: StereoStart, tmp_path: Path):
    whole = distillation(scene, stereo)
    whole.train_until(whole.max_steps)
    part = distillation(scene, stereo)
    for number, step in enumerate((4, 10, 13, 20, 21, 23)):
        part.train_until(step)
        part.save(tmp_path / str(number))
        part = distillation(scene, stereo)
        part.load(tmp_path / str(number))
        assert part.step == step
    part.train_until(part.max_steps)
    for name, values in whole.trainer.gaussians.parameters().items():
        assert torch.equal(values, part.trainer.gaussians.parameters()[name]), name


def test_a_torn_checkpoint_is_refused(scene: Scene, stereo: StereoStart, tmp_path: Path):
    run = distillation(scene, stereo)
    with pytest.raises(InputError, match="cannot be read"):
        run.load(tmp_path)
    run.train_until(12)
    run.save(tmp_path)
    (tmp_path / "member_1" / "state.json").unlink()
    with pytest.raises(ValueError, match=r"is not a .* checkpoint"):
        distillation(scene, stereo).load(tmp_path)


def test_without_stereo_all_start_from_the_points_and_the_plain_splat_teaches_too(scene: Scene):
    run = distillation(scene, None)
    run.train_until(run.max_steps)
    assert run.members == [run.plain, *run.trained]
    starts = [len(member.gaussians) for member in run.members]
    assert max(starts) < 80


def test_a_fixer_on_top_teaches_the_student(scene: Scene, stereo: StereoStart):
    def dark(request: FixRequest) -> FixResult:
        return FixResult.of(request, torch.zeros_like(request.rgb), torch.ones(request.rgb.shape[:3]))

    run = distillation(scene, stereo, dark)
    run.train_until(21)
    assert run.novel is not None
    assert all(float(view.fixed.max()) == 0 for view in run.novel.views)
    assert all(float(view.confidence.mean()) < 0.5 for view in run.novel.views if view.confidence is not None)


def test_the_plain_splat_must_be_trained(scene: Scene):
    untrained = SplatTrainer(scene, ViewSet.from_views(scene.views), TRAIN)
    with pytest.raises(ValueError, match="train it first"):
        Distillation(scene, scene.views, poses_of(scene), untrained, DistillationConfig()).train_until(1)


@pytest.mark.parametrize(("coverage", "stays"), [(0.15, False), (1.0, True)])
def test_what_hides_only_places_without_photos_is_removed_when_the_student_is_done(
    scene: Scene, coverage: float, stays: bool, tmp_path: Path
):
    run = distillation(scene, None)
    run.config = dataclasses.replace(TWO, floaters=FloaterConfig(coverage=coverage))
    run.train_until(run.max_steps - STEPS + 1)
    assert run.student is not None
    camera = scene.views[0].camera
    behind = torch.from_numpy(camera.center_world - 0.6 * camera.T_world_cam[:3, 2]).float()
    with_floater = run.student.gaussians.clone()
    with_floater.means[0], with_floater.log_scales[0], with_floater.logit_opacities[0] = behind, np.log(0.3), 5.0
    run.student = SplatTrainer(scene, run.student.views, run.student.config, gaussians=with_floater)
    run.train_until(run.max_steps)
    assert (run.num_floaters > 0) != stays
    run.save(tmp_path)
    again = distillation(scene, None)
    again.load(tmp_path)
    assert again.num_floaters == run.num_floaters
    assert bool(((run.student.gaussians.means - behind).norm(dim=-1) < 0.1).any()) == stays
    assert len(with_floater) - len(run.student.gaussians) <= 5


def test_one_photo_teaches_to_the_end(scene: Scene):
    photo = scene.views[:1]
    plain = SplatTrainer(scene, ViewSet.from_views(photo), TRAIN)
    plain.train_until(STEPS)
    run = Distillation(scene, photo, poses_of(scene), plain, dataclasses.replace(TWO, num_members_without_stereo=1))
    run.train_until(run.max_steps)
    assert run.step == run.max_steps


def test_views_from_farther_away_have_the_widest_lens(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    student = first_member(scene)
    asked: list[list[Camera]] = []

    def nothing(cameras: list[Camera]) -> torch.Tensor:
        asked.append(cameras)
        return torch.zeros(len(student.gaussians))

    monkeypatch.setattr(student, "largest_coverage", nothing)
    wide = [view.camera for view in scene.views[1:]]
    tele = dataclasses.replace(scene.views[0].camera, K=wide[0].K * np.array([[3.0], [3.0], [1.0]]))
    floaters(student, [tele, *wide], [], FloaterConfig(), extent=scene.extent)
    far, known = asked
    assert {camera.K[0, 0] for camera in far} == {wide[0].K[0, 0] / 2}
    assert max(camera.K[0, 0] for camera in known) == pytest.approx(tele.K[0, 0] / 2)
