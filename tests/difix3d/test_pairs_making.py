"""Pairs of generated scenes: files, split, references, resuming, and determinism."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difix3d import InputError, PairsConfig, generated_sources, open_pairs_folder
from difix3d.pairs.config import FilterConfig
from difix3d.pairs.corrupted import corrupt, corrupted_pairs
from difix3d.pairs.filters import psnr_u8
from difix3d.pairs.generated import GeneratedPair, ranked_references
from difix3d.pairs.make import MAKERS, make_scene_pairs, read_scene_facts
from difix3d.pairs.sources import colmap_sources
from difix_model import PairRecord, read_pairs, write_pairs
from splat_recon import write_scene

CONFIG = PairsConfig(
    strategies=("sparse", "underfit", "corrupted"),
    max_size=48,
    num_views=8,
    max_steps=12,
    sparse_at=(1.0,),
    underfit_at=(0.5, 1.0),
    targets_per_render=2,
    corruptions_per_view=1,
    max_sparse_views=4,
    filters=FilterConfig(same_image_psnr=90),
)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    out = tmp_path_factory.mktemp("pairs")
    open_pairs_folder(out, CONFIG)
    records = [
        record for source in generated_sources(1, 40, CONFIG) for record in make_scene_pairs(source, out, CONFIG)
    ]
    write_pairs(out / "pairs.json", records)
    return out, out / "pairs.json"


def test_every_strategy_gives_its_pairs(made: tuple[Path, Path]) -> None:
    records = read_pairs(made[1])
    kinds = [record.id.split("/")[1].split("_")[0] for record in records]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"sparse": 2, "underfit": 4, "corrupted": 8}
    for record in records:
        assert pixels(record.image).shape == pixels(record.target_image).shape == (36, 48, 3)
        assert record.ref_image is not None
        assert record.ref_image != record.target_image
    assert any(not np.array_equal(pixels(record.image), pixels(record.target_image)) for record in records)


def test_a_finished_scene_is_read_and_the_same_seed_makes_the_same(made: tuple[Path, Path], tmp_path: Path) -> None:
    out, path = made
    source = generated_sources(1, 40, CONFIG)[0]
    stamp = read_pairs(path)[0].image.stat().st_mtime_ns
    kept = make_scene_pairs(source, out, CONFIG)
    assert kept[0].image.stat().st_mtime_ns == stamp
    again = make_scene_pairs(source, tmp_path, CONFIG)
    assert [record.id for record in again] == [record.id for record in kept]
    for first, second in zip(kept, again, strict=True):
        np.testing.assert_array_equal(pixels(first.image), pixels(second.image))


def test_other_settings_do_not_mix_with_a_folder(made: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"other settings \(corruptions_per_view, filters, max_size"):
        open_pairs_folder(made[0], PairsConfig())


def test_references_are_the_nearest_photos_that_the_splat_has_seen(made: tuple[Path, Path]) -> None:
    facts = read_scene_facts(made[0], "generated_00040")
    scene = generated_sources(1, 40, CONFIG)[0].load()
    splats = [pair for pair in facts["pairs"].values() if pair["strategy"] != "corrupted"]
    assert splats
    for pair in splats:
        seen = facts["trained_on"][pair["training"]]
        assert pair["target"] not in seen
        assert pair["reference"] in seen
        target = scene.view(pair["target"]).camera
        distances = {
            name: np.linalg.norm(camera.center_world - target.center_world) / scene.extent
            + np.arccos(np.clip((np.trace(camera.T_world_cam[:3, :3].T @ target.T_world_cam[:3, :3]) - 1) / 2, -1, 1))
            for name, camera in ((name, scene.view(name).camera) for name in seen)
        }
        assert min(distances, key=distances.__getitem__) == pair["reference"]


def test_a_scene_is_there_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PairsConfig(strategies=("corrupted",), max_size=48, num_views=4)
    (source,) = generated_sources(1, 40, config)

    def interrupted(*arguments: object) -> Iterator[GeneratedPair]:
        yield from itertools.islice(corrupted_pairs(*arguments), 3)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    open_pairs_folder(tmp_path, config)
    with monkeypatch.context() as patch:
        patch.setitem(MAKERS, "corrupted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_scene_pairs(source, tmp_path, config)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    # A killed process cannot tidy up: that is done when the folder is opened again.
    (tmp_path / ".generated_00040.partial-here-1" / "photos").mkdir(parents=True)
    open_pairs_folder(tmp_path, config)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert len(make_scene_pairs(source, tmp_path, config)) == 8


TRAINED = PairsConfig().strategies
TRAINED_CONFIG = PairsConfig(
    max_size=48,
    num_views=8,
    max_steps=12,
    sparse_at=(1.0,),
    cycle_at=(1.0,),
    cross_at=(1.0,),
    underfit_at=(0.5, 1.0),
    targets_per_render=2,
    max_sparse_views=4,
    cross_max_distance=10,
    filters=FilterConfig(min_coverage=0, min_psnr=0, same_image_psnr=90),
)
"""The strategies that a user gets without asking for any, each with a few steps; nearly nothing is filtered."""


def assert_all_strategies_are_there(out: Path, name: str, records: list[PairRecord]) -> None:
    """Every default strategy has given its pairs, and what the facts say of each agrees with the files."""
    facts = read_scene_facts(out, name)
    assert facts["num_made"] == {"sparse": 2, "cycle": 2, "cross": 2, "underfit": 4}
    assert tuple(facts["num_made"]) == TRAINED
    assert {record.id.split("/")[1] for record in records} == set(facts["pairs"])
    assert {pair["strategy"] for pair in facts["pairs"].values()} == set(TRAINED)
    assert facts["left_out"] == {}
    for record in records:
        pair = facts["pairs"][record.id.split("/")[1]]
        degraded, photo = pixels(record.image), pixels(record.target_image)
        assert degraded.shape == photo.shape == (36, 48, 3)
        assert psnr_u8(degraded, photo) == pytest.approx(pair["psnr"], abs=1e-3)
        assert pair["psnr"] < 40
        assert record.target_image == out / name / "photos" / f"{pair['target'].rsplit('.', 1)[0]}.png"
        assert record.ref_image == out / name / "photos" / f"{pair['reference'].rsplit('.', 1)[0]}.png"
        seen = facts["trained_on"][pair["training"]]
        assert pair["reference"] in seen
        # A cycle's splats have seen renders at other places; all others must not have seen the target.
        assert (pair["target"] in seen) == (pair["strategy"] == "cycle")


def test_the_default_strategies_make_pairs_of_a_generated_scene(tmp_path: Path) -> None:
    (source,) = generated_sources(1, 40, TRAINED_CONFIG)
    records = make_scene_pairs(source, tmp_path, TRAINED_CONFIG)
    assert_all_strategies_are_there(tmp_path, source.name, records)


def test_the_default_strategies_make_pairs_of_a_captured_scene(tmp_path: Path) -> None:
    scene = generated_sources(1, 41, TRAINED_CONFIG)[0].load()
    write_scene(tmp_path / "yard", scene)
    (source,) = colmap_sources([tmp_path / "yard"], TRAINED_CONFIG)
    records = make_scene_pairs(source, tmp_path / "out", TRAINED_CONFIG)
    assert_all_strategies_are_there(tmp_path / "out", "yard", records)
    photos = tmp_path / "out" / "yard" / "photos"
    for view in scene.views:
        np.testing.assert_array_equal(pixels(photos / f"{view.name.rsplit('.', 1)[0]}.png"), view.rgb_u8)


def test_photos_without_a_pose_are_counted(tmp_path: Path) -> None:
    config = PairsConfig(strategies=("corrupted",), max_size=48, num_views=4, corruptions_per_view=1)
    write_scene(tmp_path / "yard", generated_sources(1, 40, config)[0].load())
    Image.new("RGB", (48, 36)).save(tmp_path / "yard" / "images" / "lost.png")
    (source,) = colmap_sources([tmp_path / "yard"], config)
    assert len(make_scene_pairs(source, tmp_path / "out", config)) == 4
    assert read_scene_facts(tmp_path / "out", "yard")["num_unregistered"] == 1


def test_references_come_nearest_first_without_the_target() -> None:
    scene = generated_sources(1, 40, CONFIG)[0].load()
    names = list(scene.names)
    ranked = ranked_references(scene, names[0], names)
    assert sorted(ranked) == names[1:]
    centers = {view.name: view.camera.center_world for view in scene.views}
    assert np.linalg.norm(centers[ranked[0]] - centers[names[0]]) < np.linalg.norm(
        centers[ranked[-1]] - centers[names[0]]
    )


def test_corruptions_stay_in_range_and_depends_on_the_generator_only() -> None:
    photo = np.random.default_rng(0).random((36, 48, 3)).astype(np.float32)
    for seed in range(20):
        first, second = (corrupt(photo.copy(), np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.shape == photo.shape
        assert first.min() >= 0
        assert first.max() <= 1


def test_a_missing_scene_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        colmap_sources([tmp_path / "nowhere"], CONFIG)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strategies", ()),
        ("strategies", ("sparse", "sparse")),
        ("max_size", 8),
        ("sparse_at", (0.0,)),
        ("sparse_every", 1),
        ("cycle_at", ()),
        ("cycle_shift", (0.4, 0.1)),
        ("cross_max_distance", 0.0),
        ("test_fraction", 2),
        ("min_sparse_views", 1),
    ],
)
def test_config_names_what_is_wrong(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        PairsConfig(**{field: value})  # type: ignore[arg-type]
