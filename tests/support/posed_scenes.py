"""Small scenes with exact cameras, made in memory."""

import numpy as np

from splat_recon import Points, Scene, View
from splat_recon.geometry.trajectories import looking_along
from splat_render import Camera


def smooth_rgb(x, y):
    """A smooth colored pattern over the plane z = 1 in front of a camera, as bytes."""
    waves = [np.sin(5 * x + 2 * y), np.cos(4 * y - x), np.sin(3 * x - 5 * y + 1)]
    return np.clip(np.round(127.5 + 110 * np.stack(waves, axis=-1)), 0, 255).astype(np.uint8)


def orbit_camera(index, count, *, width=32, height=24, radius=3.0):
    """One of `count` cameras on an arc around the origin, fx != fy, principal point off the center."""
    angle = 0.3 + 1.5 * index / max(count, 1)
    center = radius * np.array([np.cos(angle), np.sin(angle), 0.25 + 0.1 * np.sin(3 * angle)])
    T_world_cam = looking_along(-center, np.array([0.0, 0.0, -1.0]), center)
    K = np.array([[1.1 * width, 0, 0.52 * width], [0, 1.2 * width, 0.47 * height], [0, 0, 1]])
    return Camera(T_world_cam=T_world_cam, K=K, width=width, height=height)


def orbit_scene(count=5, *, seed=0, num_points=40, width=32, height=24, suffix=".png", masks=False):
    """A scene whose photos are smooth patterns."""
    rng = np.random.default_rng(seed)
    views = []
    for index in range(count):
        camera = orbit_camera(index, count, width=width, height=height)
        u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        x, y = (u - camera.K[0, 2]) / camera.K[0, 0], (v - camera.K[1, 2]) / camera.K[1, 1]
        mask = (u < 0.75 * width) if masks else None
        views.append(View(name=f"photo_{index:03d}{suffix}", camera=camera, rgb_u8=smooth_rgb(x, y), mask=mask))
    points = Points(
        p_world=(rng.normal(size=(num_points, 3)) * [0.9, 0.6, 0.3]).astype(np.float32),
        rgb_u8=rng.integers(0, 256, size=(num_points, 3), dtype=np.uint8),
    )
    return Scene(views=tuple(views), points=points, name="orbit")


def assert_same_scenes(a, b, atol, *, K_atol):
    """Names, cameras, photos, masks and points are the same."""
    assert a.names == b.names
    for view_a, view_b in zip(a.views, b.views, strict=True):
        np.testing.assert_allclose(view_a.camera.T_world_cam, view_b.camera.T_world_cam, atol=atol)
        np.testing.assert_allclose(view_a.camera.K, view_b.camera.K, atol=K_atol)
        np.testing.assert_array_equal(view_a.rgb_u8, view_b.rgb_u8)
        assert (view_a.mask is None) == (view_b.mask is None)
        if view_a.mask is not None:
            np.testing.assert_array_equal(view_a.mask, view_b.mask)
    np.testing.assert_allclose(a.points.p_world, b.points.p_world, atol=max(atol, 1e-5))
    np.testing.assert_array_equal(a.points.rgb_u8, b.points.rgb_u8)
