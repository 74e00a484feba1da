"""Generated objects: the same by seed, inside their ball, seen right by any camera, named by their captions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic_objects import (
    COLORS,
    MATERIALS,
    SHAPES,
    GeneratedObject,
    InputError,
    ObjectConfig,
    Part,
    caption_of,
    intrinsics,
    orbit_pose,
    orbit_rig,
    parse_caption,
    ray_cast,
    sample_object,
)

SIZE = 48


def seen(generated, elevation=20.0, azimuth=0.0, size=SIZE, **more):
    return ray_cast(generated, orbit_pose(elevation, azimuth), intrinsics(size), size, size, **more)


def single(shape="ball", color="red", **more) -> GeneratedObject:
    return GeneratedObject(parts=(Part(shape=shape, color=color, **more),))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_objects_fill_their_ball_and_a_seed_gives_one_object(seed):
    generated = sample_object(seed)
    assert generated == sample_object(seed)
    assert generated.radius == pytest.approx(0.45)
    names, relation = parse_caption(generated.caption)
    assert names == tuple((part.material, part.color, part.shape) for part in generated.parts)
    assert relation == generated.relation


def test_seeds_differ_and_every_word_occurs():
    drawn = [sample_object(seed) for seed in range(300)]
    parts = [part for generated in drawn for part in generated.parts]
    assert {part.shape for part in parts} == set(SHAPES)
    assert {part.color for part in parts} == set(COLORS)
    assert {part.material for part in parts} == set(MATERIALS)
    assert {generated.relation for generated in drawn} == {None, "on", "next to"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("azimuth", [0.0, 130.0])
def test_maps_agree_with_each_other(shape, azimuth):
    part = Part(shape=shape, color="green", half_extents=(0.3, 0.15 if shape == "ring" else 0.35, 0.3), yaw=0.4)
    generated = GeneratedObject(parts=(part,))
    pose, K = orbit_pose(25.0, azimuth), intrinsics(SIZE)
    maps = ray_cast(generated, pose, K, SIZE, SIZE, samples=1)
    hit = maps.mask > 0
    assert 0.05 < hit.mean() < 0.8
    # The depth unprojected is the coordinate map.
    rows, columns = np.nonzero(hit)
    depth = maps.depth[hit]
    in_camera = np.stack(
        [(columns + 0.5 - K[0, 2]) / K[0, 0] * depth, (rows + 0.5 - K[1, 2]) / K[1, 1] * depth, depth], axis=1
    )
    np.testing.assert_allclose(in_camera @ pose[:3, :3].T + pose[:3, 3], maps.points[hit], atol=2e-4)
    # Normals are of unit length and face the camera.
    np.testing.assert_allclose(np.linalg.norm(maps.normal[hit], axis=1), 1, atol=1e-5)
    toward = pose[:3, 3] - maps.points[hit]
    # A ray that grazes an edge may take the side behind it.
    assert (np.einsum("nc,nc->n", maps.normal[hit], toward) > -0.05).mean() > 0.99
    assert np.linalg.norm(maps.points[hit], axis=1).max() < part.reach + 1e-3
    # Off the object there is white, and nothing else.
    assert (maps.rgb[~hit] == 1).all()
    assert (maps.part[hit] == 0).all()
    assert (maps.part[~hit] == -1).all()


def test_a_ball_is_where_geometry_says():
    radius, distance = 0.4, 1.4
    maps = ray_cast(single(half_extents=(radius,) * 3), orbit_pose(0, 0), intrinsics(65), 65, 65, samples=1)
    assert maps.depth[32, 32] == pytest.approx(distance - radius, abs=2e-4)
    np.testing.assert_allclose(maps.normal[32, 32], [0, 0, 1], atol=1e-3)
    seen_radius = np.tan(np.arcsin(radius / distance)) * intrinsics(65)[0, 0]
    assert np.sqrt(maps.mask.sum() / np.pi) == pytest.approx(seen_radius, rel=0.02)


def test_a_box_has_flat_sides_in_the_worlds_axes():
    maps = seen(single("box", half_extents=(0.3, 0.3, 0.3)), elevation=30, samples=1)
    found = {tuple(np.round(normal, 2) + 0.0) for normal in maps.normal[maps.mask > 0]}
    assert found == {(0.0, 1.0, 0.0), (0.0, 0.0, 1.0)}


def test_azimuth_turns_and_elevation_lifts_the_camera():
    rig = orbit_rig(20)
    np.testing.assert_allclose(np.linalg.norm(rig[:, :3, 3], axis=1), 1.4)
    np.testing.assert_allclose(rig[:, 1, 3], 1.4 * np.sin(np.radians(20)))
    np.testing.assert_allclose(
        rig[1, :3, 3], [1.4 * np.cos(np.radians(20)), 1.4 * np.sin(np.radians(20)), 0], atol=1e-12
    )
    for pose in rig:
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        assert pose[1, 1] < 0  # The image's y axis points down.


def test_what_is_on_top_is_above_and_what_is_nearer_hides():
    objects = [sample_object(seed, ObjectConfig(two_parts_prob=1)) for seed in range(12)]
    on = next(generated for generated in objects if generated.relation == "on")
    maps = seen(on, elevation=5)
    rows = [np.nonzero(maps.part == index)[0].mean() for index in (0, 1)]
    assert rows[0] < rows[1]
    front = Part(shape="ball", color="red", center=(0.0, 0.0, 0.25), half_extents=(0.15, 0.15, 0.15))
    back = Part(shape="box", color="blue", center=(0.0, 0.0, -0.2), half_extents=(0.2, 0.2, 0.1))
    both = GeneratedObject(parts=(front, back), relation="next to")
    assert seen(both, 0, 0).part[SIZE // 2, SIZE // 2] == 0
    assert seen(both, 0, 180).part[SIZE // 2, SIZE // 2] == 1


@pytest.mark.parametrize("color", COLORS)
def test_renders_show_the_named_color(color):
    maps = seen(single(color=color))
    shown = maps.rgb[maps.mask == 1].mean(axis=0)
    distances = {name: np.abs(shown / max(shown.max(), 0.3) - np.array(value) / max(max(value), 0.3)).sum()
                 for name, value in COLORS.items()}  # fmt: skip
    darkness = {name: abs(max(value) - shown.max()) for name, value in COLORS.items()}
    assert min(COLORS, key=lambda name: distances[name] + 0.3 * darkness[name]) == color


@pytest.mark.parametrize("material", [name for name in MATERIALS if name != "matte"])
def test_materials_change_the_picture_and_not_the_shape(material):
    plain, other = seen(single("cylinder")), seen(single("cylinder", material=material))
    assert np.abs(plain.rgb - other.rgb).max() > 0.1
    np.testing.assert_array_equal(plain.depth, other.depth)


def test_color_maps_are_over_white():
    maps = seen(single())
    for colors in (maps.normal_rgb, maps.coord_rgb):
        assert colors.dtype == np.float32
        assert (colors[maps.mask == 0] == 1).all()
        assert colors.min() >= 0
        assert colors.max() <= 1
    inside = maps.mask == 1
    np.testing.assert_allclose(maps.coord_rgb[inside] * 2 - 1, maps.points[inside], atol=1e-6)


def test_captions_say_matte_by_saying_nothing():
    assert caption_of(single("ring", "orange")) == "an orange ring"
    assert caption_of(single("box", "blue", material="shiny")) == "a shiny blue box"
    assert parse_caption("A red ball  next to an orange cone.") == (
        (("matte", "red", "ball"), ("matte", "orange", "cone")),
        "next to",
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: sample_object(-1), "seed"),
        (lambda: parse_caption("a friendly dog"), "friendly dog"),
        (lambda: Part(shape="sphere", color="red"), "no shape"),
        (lambda: Part(shape="ball", color="mauve"), "no color"),
        (lambda: Part(shape="ball", color="red", material="wood"), "no material"),
        (lambda: Part(shape="ball", color="red", half_extents=(0.0, 1.0, 1.0)), "above 0"),
        (lambda: GeneratedObject(parts=()), "one part"),
        (lambda: ObjectConfig(two_parts_prob=2), "two_parts_prob"),
        (lambda: ObjectConfig(shapes=()), "shapes"),
        (lambda: ray_cast(single(), np.eye(4), np.eye(3), 0, 4), "height"),
        (lambda: ray_cast(single(), np.eye(3), np.eye(3), 4, 4), "4 x 4"),
    ],
)
def test_bad_input_is_named(call, said):
    with pytest.raises(InputError, match=said):
        call()
