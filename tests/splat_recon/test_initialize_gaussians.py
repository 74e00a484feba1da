import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from splat_recon import AdcConfig, Points, TrainConfig, from_points, read_scene
from splat_recon.gaussians.initialize import NUM_RANDOM, at_random
from splat_recon.gaussians.nearest_neighbors import neighbor_distances

REFERENCE_NAMES = {
    "means": "means",
    "log_scales": "scales",
    "quats_wxyz": "quats",
    "logit_opacities": "opacities",
    "sh0": "sh0",
    "sh_rest": "shN",
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(count, seed=0):
    rng = np.random.default_rng(seed)
    return Points(
        p_world=rng.normal(size=(count, 3)).astype(np.float32),
        rgb_u8=rng.integers(0, 256, size=(count, 3), dtype=np.uint8),
    )


@pytest.mark.parametrize("count", [4, 17, 33, 1062])
@pytest.mark.parametrize("kind", ["normal", "grid", "line", "outlier"])
def test_neighbors_are_those_of_trying_all(count, kind):
    rng = np.random.default_rng(count)
    points = rng.normal(size=(count, 3))
    if kind == "grid":
        points = np.round(points * 2)
    if kind == "line":
        points[:, 1:] = 0
    if kind == "outlier":
        points[0] = 1e6
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(neighbor_distances(points, 3), np.sort(distances, axis=1)[:, :3], rtol=1e-12)


def test_as_many_neighbors_as_points_are_refused():
    with pytest.raises(ValueError, match="num_neighbors"):
        neighbor_distances(np.zeros((3, 3)), 3)


def test_gaussians_have_the_points_places_colors_and_spacing():
    points = cloud(50)
    config = TrainConfig(init_opacity=0.25, init_scale=0.5, sh_degree=2)
    gaussians = from_points(points, 1.0, config, generator())
    np.testing.assert_array_equal(gaussians.means.numpy(), points.p_world)
    rgb = 0.5 + 0.28209479177387814 * gaussians.sh0[:, 0]
    np.testing.assert_allclose(rgb.numpy() * 255, points.rgb_u8, atol=1e-3)
    assert torch.allclose(gaussians.opacities, torch.tensor(0.25))
    spacing = np.sqrt((neighbor_distances(points.p_world, 3) ** 2).mean(axis=1))
    np.testing.assert_allclose(gaussians.scales.numpy(), np.repeat(0.5 * spacing[:, None], 3, axis=1), rtol=1e-5)
    assert gaussians.sh_degree_max == 2
    assert not gaussians.sh_rest.any()


def test_points_that_coincide_get_a_finite_size():
    points = Points(p_world=np.zeros((9, 3), np.float32), rgb_u8=np.zeros((9, 3), np.uint8))
    gaussians = from_points(points, 2.0, TrainConfig(), generator())
    assert torch.isfinite(gaussians.log_scales).all()
    assert (gaussians.scales <= 2e-5).all()


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_points_give_random_gaussians_and_a_warning(count, caplog):
    gaussians = from_points(cloud(count), 1.0, TrainConfig(), generator())
    assert len(gaussians) == NUM_RANDOM
    assert f"{count} points" in caplog.text


def test_random_gaussians_depend_on_the_generator_alone():
    a, b, c = (at_random(20, 2.0, TrainConfig(), generator(seed)) for seed in (1, 1, 2))
    for name, tensor in a.parameters().items():
        assert torch.equal(tensor, b.parameters()[name])
    assert not torch.equal(a.means, c.means)
    assert (a.means.abs() <= 6.0).all()
    assert a.means.abs().max() > 3.0
    with pytest.raises(ValueError, match="at least 4"):
        at_random(3, 1.0, TrainConfig(), generator())


@pytest.mark.reference
def test_initial_gaussians_agree_with_the_reference_data(reference_data):
    expected = load_file(reference_data / "gsplat" / "splat_init.safetensors")
    info = json.loads((reference_data / "gsplat" / "splat_init.json").read_text())
    points = read_scene(reference_data / info["scene"].split()[0]).points
    num_compared = 0
    for case, case_info in info["cases"].items():
        kwargs = case_info["kwargs"]
        if "world_size" in kwargs or "feature_dim" in kwargs:
            # Several processes, and colors from a network, are not ours.
            continue
        config = TrainConfig(
            init_opacity=kwargs.get("init_opacity", 0.1), init_scale=kwargs.get("init_scale", 1.0), sh_degree=3
        )
        extent, seeded = kwargs["scene_scale"], generator(case_info["seed"])
        if kwargs["init_type"] == "random":
            half_size = kwargs["init_extent"]
            gaussians = at_random(kwargs["init_num_pts"], extent, config, seeded, half_size=half_size)
        else:
            gaussians = from_points(points, extent, config, seeded)
        for name, tensor in gaussians.parameters().items():
            recorded = expected[f"{case}.{REFERENCE_NAMES[name]}"]
            np.testing.assert_allclose(tensor, recorded, atol=1e-5, err_msg=f"{case} {name}")
        num_compared += 1
    assert num_compared


@pytest.mark.parametrize("count", [2, 50])
def test_there_are_never_more_gaussians_than_the_cap(count, caplog):
    config = TrainConfig(strategy=AdcConfig(cap_max=20))
    gaussians = from_points(cloud(count), 1.0, config, generator())
    assert len(gaussians) == 20
    assert "20" in caplog.text
    if count == 50:
        rows = {tuple(row) for row in cloud(count).p_world.tolist()}
        assert {tuple(row) for row in gaussians.means.tolist()} <= rows
