"""What fixing costs beside its time: where the network waits, how many renders it is asked about, images in memory."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difix3d import (
    DifixFixer,
    Experiment,
    FixRequest,
    FixResult,
    IdentityFixer,
    InputError,
    MixtureConfig,
    ProgressiveConfig,
    ProgressiveTrainer,
    RoundsConfig,
    RunFolder,
    RunSettings,
    ValidationConfig,
    ViewFixerConfig,
    open_fixer,
)
from difix3d.fixers.contract import FixedView, resident
from difix3d.fixers.difix import OffloadedFixer
from difix3d.loop.fixing import fix_round
from difix3d.loop.target_config import HeldOutTargets
from difix3d.report.film import VIDEO_SIZE, write_film
from difix3d.report.results import VariantResult, final_fix_changes_nothing
from difix3d.run.configs import progressive_config
from difix3d.run.defaults import resolved
from difix3d.run.fixing_time import FixingTime, TimedFixer
from difix3d.run.image_memory import check_image_memory, photo_bytes, picture_bytes
from difix3d.run.scene import load_scene
from difix_model import DifixPipeline, FixVerdict
from difix_model.gate.apply import Gated
from splat_recon import (
    AdcConfig,
    Evaluation,
    Scene,
    SyntheticConfig,
    TrainConfig,
    generate_scene,
    normalized,
    write_scene,
)
from splat_recon.scene.photo_store import StoredView
from support.fix_requests import flat_render, rendered_views, request
from support.tiny_fixer import write_tiny_fixer

WIDTH, HEIGHT = 53, 41
"""A size that no other tensor has."""


class FakePipeline(DifixPipeline):
    """Notes where it is moved to, and where it is when it works."""

    def __init__(self) -> None:
        self.uses_reference = True
        self.moves: list[str] = []
        self.worked_on: list[str] = []

    def to(self, *targets: Any) -> FakePipeline:
        self.moves += map(str, targets)
        return self

    def fix_with_verdicts(self, rendered: torch.Tensor, references: Any = None, **options: Any) -> Gated:
        self.worked_on.append(self.moves[-1])
        verdict = FixVerdict(proposed_change=0.1, applied_change=0.1)
        return Gated(rgb=rendered * 0.5, verdicts=(verdict,) * len(rendered))


class Asked:
    """Leaves renders as they are, or only those that are brighter than a threshold; remembers what it was asked."""

    def __init__(self, above: float | None = None) -> None:
        self.above = above
        self.levels: list[float] = []

    def __call__(self, asked: FixRequest) -> FixResult:
        self.levels += [round(float(one.mean()), 3) for one in asked.rgb]
        if self.above is None:
            return FixResult.of(asked, asked.rgb)
        bright = asked.rgb.mean(dim=(1, 2, 3), keepdim=True) > self.above
        return FixResult.of(asked, torch.where(bright, asked.rgb * 0.5, asked.rgb))


def round_config(batch_size: int, num_probe_views: int, min_alpha: float = 0.0) -> ProgressiveConfig:
    mixture = MixtureConfig(alpha_threshold=min_alpha)
    return ProgressiveConfig(
        fix_batch_size=batch_size, rounds=RoundsConfig(num_probe_views=num_probe_views), mixture=mixture
    )


@pytest.fixture(scope="module")
def scene() -> Scene:
    config = SyntheticConfig(
        layout="table", num_views=8, width=WIDTH, height=HEIGHT, num_points=100, samples_per_axis=1
    )
    return normalized(generate_scene(3, config))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_fixer(tmp_path_factory.mktemp("weights"), uses_reference=True)


def test_the_network_is_on_its_device_for_a_round_only() -> None:
    pipeline = FakePipeline()
    fixer = OffloadedFixer(DifixFixer(pipeline), "cuda:1")
    assert pipeline.moves == ["cpu"]
    picture = torch.rand(1, 4, 4, 3)
    with resident(fixer):
        for _ in range(3):
            assert torch.equal(fixer(request(picture)).rgb, picture * 0.5)
    assert pipeline.moves == ["cpu", "cuda:1", "cpu"]
    assert pipeline.worked_on == ["cuda:1"] * 3
    fixer(request(picture))
    assert pipeline.moves == ["cpu", "cuda:1", "cpu", "cuda:1", "cpu"]


def test_a_round_moves_it_there_and_back_once_even_if_it_fails(scene: Scene) -> None:
    pipeline = FakePipeline()
    spent = FixingTime()
    fixer = TimedFixer(OffloadedFixer(DifixFixer(pipeline), "cuda"), spent)
    views = scene.views[:6]
    rendered = [torch.rand(HEIGHT, WIDTH, 3) for _ in views]
    asked = rendered_views(rendered, [[view] for view in views])
    fix_round(fixer, asked, list(range(6)), round_config(2, 2))
    assert pipeline.moves == ["cpu", "cuda", "cpu"]
    assert len(pipeline.worked_on) == 3
    with pytest.raises(RuntimeError, match="no luck"), resident(fixer):
        raise RuntimeError("no luck")
    assert pipeline.moves[-1] == "cpu"


def test_parameters_of_a_real_network_come_back(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine the device is the CPU as well: the type of the parameters stands for the place."""
    moved = DifixPipeline.to

    def to(self: Any, device: Any) -> Any:
        return moved(self, torch.float64 if str(device) == "cuda:0" else torch.float32)

    picture = torch.rand(1, 32, 40, 3)
    reference = torch.rand(1, 32, 40, 3)
    asked = request(picture, reference)
    expected = open_fixer(ViewFixerConfig(model=str(weights), gate="off"), device="cpu")(asked).rgb
    monkeypatch.setattr(DifixPipeline, "to", to)
    config = ViewFixerConfig(model=str(weights), gate="off", precision="float32", offload=True)
    fixer = open_fixer(config, device="cuda:0")
    assert isinstance(fixer, OffloadedFixer)

    def places() -> set[torch.dtype]:
        return {parameter.dtype for parameter in fixer.fixer.pipeline.network.parameters()}

    assert places() == {torch.float32}
    with resident(fixer):
        assert places() == {torch.float64}
        torch.testing.assert_close(fixer(asked).rgb, expected, atol=1e-4, rtol=0)
        assert places() == {torch.float64}
    assert places() == {torch.float32}


def test_offloading_means_nothing_on_a_cpu_and_precision_is_passed_on(weights: Path) -> None:
    config = ViewFixerConfig(model=str(weights), offload=True, precision="bfloat16")
    fixer = open_fixer(config, device="cpu")
    assert isinstance(fixer, DifixFixer)
    assert fixer.pipeline.dtype == torch.bfloat16
    assert isinstance(open_fixer(replace(config, model="none"), device="cpu"), IdentityFixer)


def _round(scene: Scene, fixer: Any, num_probe_views: int, references: int = 1) -> list[FixedView]:
    """Eight renders, each of another brightness; the brighter, the farther from a photo."""
    rendered = [torch.full((HEIGHT, WIDTH, 3), index / 10) for index in range(8)]
    views = [[scene.views[(index + k) % 8] for k in range(references)] for index in range(8)]
    asked = rendered_views(rendered, views)
    return fix_round(fixer, asked, list(range(8)), round_config(3, num_probe_views))


def test_where_the_fixer_leaves_the_worst_renders_it_is_asked_no_more(scene: Scene) -> None:
    fixer = Asked()
    fixed = _round(scene, fixer, 3)
    assert fixer.levels == [0.5, 0.6, 0.7]
    for index, one in enumerate(fixed):
        assert torch.equal(one.rgb, torch.full((HEIGHT, WIDTH, 3), index / 10))
        assert one.verdict.reason == ("not_asked" if index < 5 else "no_change")
    everything = Asked()
    _round(scene, everything, 0)
    assert len(everything.levels) == 8


def test_holes_that_are_filled_do_not_count_as_changes(scene: Scene) -> None:
    """The gate lets them be filled, and nothing is learned from them."""
    images = [torch.full((HEIGHT, WIDTH, 3), index / 10) for index in range(8)]
    asked: list[int] = []

    def filling(request: FixRequest) -> FixResult:
        asked.append(len(request))
        assert request.alpha is not None
        return FixResult.of(request, torch.where(request.alpha[..., None] < 0.5, 1.0, request.rgb))

    alpha = torch.ones(HEIGHT, WIDTH)
    alpha[:, :7] = 0.2
    views = [replace(view, alpha=alpha) for view in rendered_views(images, [[scene.views[0]]] * 8)]
    for min_alpha, expected in ((0.5, [2]), (0.1, [2, 6])):
        asked.clear()
        fix_round(filling, views, list(range(8)), round_config(8, 2, min_alpha))
        assert asked == expected


@pytest.mark.parametrize("references", [1, 2])
def test_one_change_among_the_first_has_all_fixed_as_without_asking(scene: Scene, references: int) -> None:
    first, everything = Asked(above=0.65), Asked(above=0.65)
    ours, theirs = _round(scene, first, 3, references), _round(scene, everything, 0, references)
    assert sorted(first.levels) == sorted(everything.levels)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.rgb, other.rgb)
        assert one.verdict == other.verdict
    assert not torch.equal(ours[7].rgb, torch.full((HEIGHT, WIDTH, 3), 0.7))


def test_the_film_is_fixed_in_batches_or_not_at_all(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difix3d.report.film.VIDEO_FRAMES", 6)
    sizes: list[int] = []

    def fixer(asked: FixRequest) -> FixResult:
        sizes.append(len(asked))
        return FixResult.of(asked, asked.rgb)

    def render(camera: Any) -> Any:
        assert max(camera.width, camera.height) <= VIDEO_SIZE
        return flat_render(0.3)(camera)

    for used, expected in ((fixer, [4, 2]), (None, [])):
        sizes.clear()
        path = tmp_path / "film.mp4"
        film = write_film(path, render, render, fixer=used, captured=scene.views, extent=scene.extent, batch_size=4)
        assert list(film) == [(index, 6) for index in range(1, 7)]
        assert path.stat().st_size > 0
        assert sizes == expected


def test_whether_the_final_fix_changes_anything_is_told_by_all_splats() -> None:
    def result(name: str, level: int) -> VariantResult:
        picture = np.full((4, 5, 3), level, dtype=np.uint8)
        scores = Evaluation(psnr=1.0, ssim=1.0, lpips=None, per_view={})
        return VariantResult(name=name, evaluation=scores, num_gaussians=1, renders_u8={"a": picture})

    same = [result("plain", 1), result("plain_fixed", 1), result("loop", 2), result("loop_fixed", 2)]
    assert final_fix_changes_nothing(same)
    assert not final_fix_changes_nothing([*same[:3], result("loop_fixed", 3)])
    assert not final_fix_changes_nothing([same[0], result("plain_fixed", 2), *same[2:]])


def _image_bytes() -> int:
    """Bytes of all tensors in this process that are images of the scene's size."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and {HEIGHT, WIDTH} <= set(thing.shape):
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


def test_a_run_holds_no_more_of_novel_views_than_was_said(scene: Scene) -> None:
    captured, targets = scene.views[::2], scene.views[1::2]
    train = TrainConfig(max_steps=30, strategy=AdcConfig(reset_every=0))
    config = ProgressiveConfig(
        train=train,
        rounds=RoundsConfig(num_rounds=3, first_round=0.3, last_round=0.7),
        targets=HeldOutTargets(),
        validation=ValidationConfig(fraction=0),
    )
    held = []

    def fixer(asked: FixRequest) -> FixResult:
        held.append(_image_bytes() - before)
        return FixResult.of(asked, asked.rgb * 0.9)

    T_world_target = np.stack([view.camera.T_world_cam for view in targets])
    loop = ProgressiveTrainer(scene, captured, T_world_target, fixer, config)
    before = _image_bytes()
    loop.train_until(30)
    assert loop.num_rounds_done == 3
    said = picture_bytes(config, captured, num_targets=len(targets), num_held_out=0)
    kept = 28 * len(targets) * WIDTH * HEIGHT
    assert kept <= _image_bytes() - before <= said
    assert kept < max(held) <= said
    twice = replace(config, validation=ValidationConfig(fraction=0.3, min_views=2))
    assert picture_bytes(twice, captured, num_targets=4, num_held_out=0) > said


def test_what_does_not_fit_is_refused_before_the_run(scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    write_scene(folder, scene)
    settings = RunSettings(
        scene=str(folder),
        fixer=ViewFixerConfig(model="none"),
        split="every:3",
        max_steps=4,
        num_novel=2,
        image_memory=1e-5,
    )
    with pytest.raises(InputError, match="raise image_memory to"):
        list(Experiment(settings, RunFolder(tmp_path / "run")).run())
    assert not (tmp_path / "run").exists()
    check_image_memory(photo_bytes(2.0), 2.0)
    with pytest.raises(ValueError, match="image_memory must be positive"):
        RunSettings(image_memory=0)


def test_decoded_photos_keep_to_their_half(scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    write_scene(folder, scene)
    two_photos = 2.5 * WIDTH * HEIGHT * 3 / 2**30
    settings = resolved(RunSettings(scene=str(folder), split="every:3", image_memory=2 * two_photos), "cpu")
    loaded = load_scene(settings).scene
    for _ in range(2):
        for view in loaded.views:
            assert view.rgb_u8.shape == (HEIGHT, WIDTH, 3)
    stores = {id(view.photo.store): view.photo.store for view in loaded.views if isinstance(view, StoredView)}
    assert stores
    for store in stores.values():
        assert store.peak_bytes_held <= photo_bytes(settings.image_memory)
    assert sum(store.bytes_held for store in stores.values()) >= WIDTH * HEIGHT * 3


def test_presets_of_others_fix_everything() -> None:
    asked = resolved(RunSettings(preset="released", max_steps=600), "cpu")
    assert progressive_config(asked).rounds.num_probe_views == 0
    assert (
        progressive_config(resolved(RunSettings(rounds=RoundsConfig(num_probe_views=2)), "cpu")).rounds.num_probe_views
        == 2
    )
    with pytest.raises(ValueError, match="num_probe_views must be at least 0"):
        RunSettings(rounds=RoundsConfig(num_probe_views=-1))
