"""Photos in memory: never more of them than the budget, and always the same ones."""

import gc
import threading
import tracemalloc

import numpy as np
import pytest
import torch

from splat_recon import (
    InputError,
    Scene,
    SplatTrainer,
    TrainConfig,
    ViewSet,
    downscaled,
    normalized,
    read_scene,
    write_scene,
)
from splat_recon.scene.photo_store import PhotoStore, Pixels, StoredView
from support.posed_scenes import orbit_scene

WIDTH, HEIGHT = 200, 150
PHOTO_BYTES = WIDTH * HEIGHT * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "orbit"
    write_scene(folder, orbit_scene(24, width=WIDTH, height=HEIGHT))
    return folder


def store_of(scene: Scene) -> PhotoStore:
    stores = {id(view.photo.store): view.photo.store for view in scene.views if isinstance(view, StoredView)}
    (store,) = stores.values()
    return store


def pixels(value: int, num_bytes: int = 300) -> Pixels:
    return Pixels(rgb_u8=np.full((1, num_bytes // 3, 3), value, np.uint8))


def test_the_least_recently_used_photos_make_room():
    store, made = PhotoStore(1000), []

    def photo(value):
        return store.photo(lambda: (made.append(value), pixels(value))[1])

    a, b, c, d = (photo(value) for value in range(4))
    for one in (a, b, c, a, d, a, c, b):
        assert one.pixels.rgb_u8[0, 0, 0] == [a, b, c, d].index(one)
    assert made == [0, 1, 2, 3, 1]
    assert store.bytes_held == 900
    assert store.peak_bytes_held <= 1000
    assert photo(7).changed(lambda given: pixels(int(given.rgb_u8[0, 0, 0]) + 1)).pixels.rgb_u8.max() == 8


def test_a_photo_larger_than_the_budget_is_handed_out_and_not_kept():
    store = PhotoStore(299)
    photo = store.photo(lambda: pixels(5))
    assert photo.pixels.rgb_u8.max() == photo.pixels.rgb_u8.max() == 5
    assert store.bytes_held == 0
    assert store.num_decoded == 2
    with pytest.raises(ValueError, match="max_bytes"):
        PhotoStore(-1)


def test_a_photo_that_is_being_fetched_is_waited_for_and_decoded_once():
    store, begun, go_on = PhotoStore(10_000), threading.Event(), threading.Event()

    def decode():
        begun.set()
        assert go_on.wait(10)
        return pixels(3)

    photo = store.photo(decode)
    photo.prefetch()
    photo.prefetch()
    assert begun.wait(10)
    threading.Timer(0.05, go_on.set).start()
    assert photo.pixels.rgb_u8.max() == 3
    assert store.num_decoded == 1


def test_an_error_of_fetching_ahead_reaches_whoever_looks():
    def decode():
        raise InputError("photo a.png is missing")

    photo = PhotoStore().photo(decode)
    photo.prefetch()
    for _ in range(2):
        with pytest.raises(InputError, match=r"a\.png is missing"):
            _ = photo.pixels


@pytest.mark.parametrize("num_held", [0, 1, 5, 24])
def test_the_budget_holds_and_changes_no_photo(folder, num_held):
    expected = orbit_scene(24, width=WIDTH, height=HEIGHT)
    scene = read_scene(folder, photo_bytes=num_held * PHOTO_BYTES)
    store = store_of(scene)
    assert store.num_decoded == 24
    for _ in range(2):
        for view, view_expected in zip(scene.views, expected.views, strict=True):
            np.testing.assert_array_equal(view.rgb_u8, view_expected.rgb_u8)
            assert view.mask is None
    assert store.peak_bytes_held == num_held * PHOTO_BYTES
    assert store.num_decoded >= 24 + (0 if num_held == 24 else 2 * (24 - num_held))
    if num_held == 24:
        assert store.num_decoded == 24


def test_what_is_made_of_a_scene_stays_lazy(folder):
    scene = downscaled(normalized(read_scene(folder, photo_bytes=2 * PHOTO_BYTES)), 50)
    eager = downscaled(normalized(orbit_scene(24, width=WIDTH, height=HEIGHT)), 50)
    assert all(isinstance(view, StoredView) for view in scene.views)
    for view, view_eager in zip(scene.views, eager.views, strict=True):
        np.testing.assert_array_equal(view.rgb_u8, view_eager.rgb_u8)
        np.testing.assert_allclose(view.camera.K, view_eager.camera.K)
    assert store_of(scene).peak_bytes_held <= 2 * PHOTO_BYTES


def test_memory_really_stays_below_the_budget(folder):
    def peak(photo_bytes: int) -> int:
        gc.collect()
        tracemalloc.start()
        views = ViewSet.from_views(read_scene(folder, photo_bytes=photo_bytes).views)
        generator = torch.Generator().manual_seed(0)
        for _ in range(48):
            assert views.sample(generator).rgb.shape == (HEIGHT, WIDTH, 3)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # What is being decoded while the budget is full comes on top: four photos at once, each a few times over.
    small, whole = peak(3 * PHOTO_BYTES), peak(24 * PHOTO_BYTES)
    assert whole > 24 * PHOTO_BYTES
    assert small < (3 + 12) * PHOTO_BYTES
    assert whole - small > 12 * PHOTO_BYTES


def test_training_is_bitwise_the_same_within_a_small_budget(folder):
    config = TrainConfig().scaled_to(40)

    def trained(photo_bytes):
        scene = normalized(read_scene(folder, max_size=48, photo_bytes=photo_bytes))
        trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), config)
        trainer.train_until(40)
        return trainer.gaussians.parameters(), store_of(scene)

    (expected, whole), (few, small) = trained(2**30), trained(2 * 48 * 36 * 3)
    assert whole.num_decoded == 24
    assert small.num_decoded > 48
    assert small.peak_bytes_held <= 2 * 48 * 36 * 3
    for name, parameter in expected.items():
        assert torch.equal(parameter, few[name]), name


def test_training_views_hold_no_pixels_and_take_weights_in_place_of_the_mask(folder):
    from dataclasses import replace

    scene = read_scene(folder, photo_bytes=0)
    (view,) = ViewSet.from_views(scene.views[:1]).views
    assert not any(isinstance(value, torch.Tensor | np.ndarray) for value in vars(view).values())
    expected = torch.tensor(scene.views[0].rgb_u8, dtype=torch.float32) / 255.0
    assert torch.equal(view.rgb, expected)
    assert torch.equal(view.rgb_on("cpu"), expected)
    weights = torch.full((HEIGHT, WIDTH), 0.5)
    weighted = replace(view, pixel_weight=weights, weight=2.0)
    assert weighted.pixel_weight is not None
    assert torch.equal(weighted.pixel_weight, weights)
    assert weighted.weight == 2.0
    assert view.pixel_weight is None
    with pytest.raises(ValueError, match="pixel weights"):
        replace(view, pixel_weight=weights[:5])
    with pytest.raises(ValueError, match="weight"):
        replace(view, weight=-1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bytes_become_the_same_floats_on_cuda():
    (view,) = ViewSet.from_views(orbit_scene(1).views).views
    assert torch.equal(view.rgb_on("cuda").cpu(), view.rgb)
