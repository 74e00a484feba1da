"""The ray-caster: a compiled loop over pixels, solids and one shadow ray. No Gaussians anywhere."""

from __future__ import annotations

from math import atan2, cos, pi, sin, sqrt
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit

from splat_recon.scene.synthetic.world import CONE, CUBE, CYLINDER, GROUND, ROOM, SPHERE, TORUS, TORUS_TUBE, World
from splat_render.cameras import Camera

MISS = 1e30
"""Distance of a ray that meets nothing."""


def cast_image(world: World, camera: Camera, samples_per_axis: int) -> Float32[np.ndarray, "h w 3"]:
    """Photograph the world: sRGB in [0, 1], before exposure and noise."""
    K = np.asarray(camera.K, np.float64)
    view = (camera.T_world_cam, K, camera.width, camera.height, samples_per_axis)
    arguments: list[Any] = [*_arrays(world), *view]
    linear = _cast_image(*arguments)
    return np.clip(linear, 0, 1).astype(np.float32) ** np.float32(1 / 2.2)


def cast_distances(
    world: World, origins_world: Float64[np.ndarray, "n 3"], dirs_world: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, " n"]:
    """Distance along each unit direction to the first surface; MISS where there is none."""
    return _cast_distances(world.kinds, world.T_solid_world, world.bounds, origins_world, dirs_world)


def _arrays(world: World) -> tuple:
    return (
        world.kinds, world.T_solid_world, world.half_sizes, world.bounds, world.texture_idx, world.texture_sizes,
        world.gloss, world.textures, world.dir_sun, world.light, world.light_rgb, world.sky_rgb,
        world.surroundings,
    )  # fmt: skip


@njit(cache=True, fastmath=True)
def _meet_cube(o, d, inside):
    low, high, axis_low, axis_high = -MISS, MISS, 0, 0
    for axis in range(3):
        inverse = 1.0 / (d[axis] if abs(d[axis]) > 1e-12 else 1e-12)
        near, far = (-1.0 - o[axis]) * inverse, (1.0 - o[axis]) * inverse
        if near > far:
            near, far = far, near
        if near > low:
            low, axis_low = near, axis
        if far < high:
            high, axis_high = far, axis
    if low > high:
        return MISS, 0
    if inside:
        return high, axis_high
    return low, axis_low


@njit(cache=True, fastmath=True)
def _meet_sphere(o, d):
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1.0
    root = b * b - a * c
    if root < 0:
        return MISS
    return (-b - sqrt(root)) / a


@njit(cache=True, fastmath=True)
def _meet_round(o, d, is_cone):
    """A cylinder of radius 1, or a cone whose radius shrinks to 0 at z = 1; both closed at the ends."""
    best = MISS
    slope, r0 = (-0.5, 0.5) if is_cone else (0.0, 1.0)
    ro, rd = r0 + slope * o[2], slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - rd * rd
    b = o[0] * d[0] + o[1] * d[1] - ro * rd
    c = o[0] * o[0] + o[1] * o[1] - ro * ro
    root = b * b - a * c
    if root >= 0 and abs(a) > 1e-12:
        for sign in (-1.0, 1.0):
            t = (-b + sign * sqrt(root)) / a
            z = o[2] + t * d[2]
            if 1e-6 < t < best and -1.0 <= z <= 1.0:
                best = t
    for z_end in (-1.0, 1.0):
        if is_cone and z_end > 0:
            continue
        if abs(d[2]) > 1e-12:
            t = (z_end - o[2]) / d[2]
            x, y = o[0] + t * d[0], o[1] + t * d[1]
            if 1e-6 < t < best and x * x + y * y <= 1.0:
                best = t
    return best


@njit(cache=True, fastmath=True)
def _torus_distance(x, y, z):
    ring = sqrt(x * x + y * y) - (1.0 - TORUS_TUBE)
    return sqrt(ring * ring + z * z) - TORUS_TUBE


@njit(cache=True, fastmath=True)
def _meet_torus(o, d):
    length = sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    t = max(0.0, _meet_sphere(o, d))
    if t >= MISS:
        return MISS
    for _ in range(48):
        x, y, z = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
        if x * x + y * y + z * z > 1.3 and x * d[0] + y * d[1] + z * d[2] > 0:
            return MISS
        distance = _torus_distance(x, y, z)
        if distance < 1e-3:
            return t
        t += distance / length
    return MISS


@njit(cache=True, fastmath=True)
def _meet(kind, o, d):
    """Distance to a solid in units of `d`, and for boxes the axis of the face."""
    if kind == CUBE:
        return _meet_cube(o, d, False)
    if kind == ROOM:
        return _meet_cube(o, d, True)
    if kind == SPHERE:
        return _meet_sphere(o, d), 0
    if kind == CYLINDER:
        return _meet_round(o, d, False), 0
    if kind == CONE:
        return _meet_round(o, d, True), 0
    if kind == TORUS:
        return _meet_torus(o, d), 0
    if abs(d[2]) < 1e-9:
        return MISS, 2
    return -o[2] / d[2], 2


@njit(cache=True, fastmath=True)
def _first_hit(kinds, T_solid_world, bounds, origin, direction, o, d, limit, any_hit):
    best, best_idx, best_axis = limit, -1, 0
    for i in range(len(kinds)):
        cx, cy, cz = bounds[i, 0] - origin[0], bounds[i, 1] - origin[1], bounds[i, 2] - origin[2]
        along = cx * direction[0] + cy * direction[1] + cz * direction[2]
        gap = cx * cx + cy * cy + cz * cz - along * along
        radius = bounds[i, 3]
        if gap > radius * radius or along < -radius or along - radius > best:
            continue
        T = T_solid_world[i]
        for row in range(3):
            o[row] = T[row, 0] * origin[0] + T[row, 1] * origin[1] + T[row, 2] * origin[2] + T[row, 3]
            d[row] = T[row, 0] * direction[0] + T[row, 1] * direction[1] + T[row, 2] * direction[2]
        t, axis = _meet(kinds[i], o, d)
        if 1e-4 < t < best:
            best, best_idx, best_axis = t, i, axis
            if any_hit:
                return best, best_idx, best_axis
    return best, best_idx, best_axis


@njit(cache=True, fastmath=True)
def _look_up(texture, u, v, rgb):
    """Bilinear look-up with mirrored repetition, so that no seam is sharper than the texture."""
    size = texture.shape[0]
    u = abs(u % 2.0 - 1.0) * (size - 1.001)
    v = abs(v % 2.0 - 1.0) * (size - 1.001)
    x, y = int(u), int(v)
    fx, fy = u - x, v - y
    for c in range(3):
        top = texture[y, x, c] * (1 - fx) + texture[y, x + 1, c] * fx
        bottom = texture[y + 1, x, c] * (1 - fx) + texture[y + 1, x + 1, c] * fx
        rgb[c] = top * (1 - fy) + bottom * fy


@njit(cache=True, fastmath=True)
def _look_around(panorama, x, y, z, rgb):
    """Bilinear look-up of a direction in a panorama."""
    rows, columns = panorama.shape[0], panorama.shape[1]
    u = (1.5 + atan2(y, x) / (2 * pi)) * columns - 0.5
    v = (0.5 - atan2(z, sqrt(x * x + y * y)) / pi) * rows - 0.5
    v = min(max(v, 0.0), rows - 1.001)
    left, top = int(u), int(v)
    fx, fy = u - left, v - top
    left = left % columns
    right = (left + 1) % columns
    for c in range(3):
        above = panorama[top, left, c] * (1 - fx) + panorama[top, right, c] * fx
        below = panorama[top + 1, left, c] * (1 - fx) + panorama[top + 1, right, c] * fx
        rgb[c] = above * (1 - fy) + below * fy


@njit(cache=True, fastmath=True)
def _surface(kind, axis, p, half, normal):
    """Write the outward normal in the solid's frame; return texture coordinates in world units."""
    if kind in (CUBE, ROOM):
        normal[0] = normal[1] = normal[2] = 0.0
        normal[axis] = 1.0 if p[axis] > 0 else -1.0
        if kind == ROOM:
            normal[axis] = -normal[axis]
        first, second = (1, 2) if axis == 0 else ((0, 2) if axis == 1 else (0, 1))
        return p[first] * half[first] + axis, p[second] * half[second]
    if kind == SPHERE:
        normal[0], normal[1], normal[2] = p[0], p[1], p[2]
        return atan2(p[1], p[0]) * half[0], p[2] * half[2] * 1.4
    if kind == GROUND:
        normal[0], normal[1], normal[2] = 0.0, 0.0, 1.0
        return p[0] * half[0], p[1] * half[1]
    if kind == TORUS:
        ring = max(1e-9, sqrt(p[0] * p[0] + p[1] * p[1]))
        side = ring - (1.0 - TORUS_TUBE)
        normal[0], normal[1], normal[2] = p[0] / ring * side, p[1] / ring * side, p[2]
        return atan2(p[1], p[0]) * half[0], atan2(p[2], side) * half[0] * TORUS_TUBE
    if p[2] < -0.9999 or (kind == CYLINDER and p[2] > 0.9999):
        normal[0], normal[1], normal[2] = 0.0, 0.0, (1.0 if p[2] > 0 else -1.0)
        return p[0] * half[0], p[1] * half[1]
    radius = max(1e-9, sqrt(p[0] * p[0] + p[1] * p[1]))
    normal[0], normal[1], normal[2] = p[0] / radius, p[1] / radius, (0.5 if kind == CONE else 0.0)
    return atan2(p[1], p[0]) * half[0], p[2] * half[2]


@njit(cache=True, fastmath=True)
def _sky(direction, dir_sun, sky_rgb, strength, rgb):
    height = max(0.0, direction[2]) ** 0.6
    toward = max(0.0, direction[0] * dir_sun[0] + direction[1] * dir_sun[1] + direction[2] * dir_sun[2])
    ripple = (
        0.04 * sin(7.0 * direction[0] + 3.0 * sin(5.0 * direction[1])) * sin(9.0 * direction[2] + 4.0 * direction[1])
    )
    for c in range(3):
        rgb[c] = sky_rgb[0, c] * (1 - height) + sky_rgb[1, c] * height + 0.25 * strength * toward**24 + ripple


@njit(cache=True, fastmath=True)
def _cast_distances(kinds, T_solid_world, bounds, origins, directions):
    distances = np.empty(len(origins))
    o, d = np.empty(3), np.empty(3)
    for i in range(len(origins)):
        distances[i] = _first_hit(kinds, T_solid_world, bounds, origins[i], directions[i], o, d, MISS, False)[0]
    return distances


@njit(cache=True, fastmath=True)
def _cast_image(
    kinds, T_solid_world, half_sizes, bounds, texture_idx, texture_sizes, gloss, textures, dir_sun, light, light_rgb,
    sky_rgb, surroundings, T_world_cam, K, width, height, samples_per_axis,
):  # fmt: skip
    image = np.zeros((height, width, 3))
    o, d, p = np.empty(3), np.empty(3), np.empty(3)
    origin, direction, normal_solid, normal = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    hit, to_light, rgb = np.empty(3), np.empty(3), np.empty(3)
    num_samples = samples_per_axis * samples_per_axis
    for axis in range(3):
        origin[axis] = T_world_cam[axis, 3]
    for y in range(height):
        for x in range(width):
            for sample in range(num_samples):
                sx = (sample % samples_per_axis + 0.5) / samples_per_axis
                sy = (sample // samples_per_axis + 0.5) / samples_per_axis
                cx, cy = (x + sx - K[0, 2]) / K[0, 0], (y + sy - K[1, 2]) / K[1, 1]
                scale = 1.0 / sqrt(cx * cx + cy * cy + 1.0)
                for axis in range(3):
                    direction[axis] = scale * (
                        T_world_cam[axis, 0] * cx + T_world_cam[axis, 1] * cy + T_world_cam[axis, 2]
                    )
                t, i, face = _first_hit(kinds, T_solid_world, bounds, origin, direction, o, d, MISS, False)
                if i < 0 or t > 400.0:
                    if len(surroundings) > 0:
                        _look_around(surroundings, direction[0], direction[1], direction[2], rgb)
                    else:
                        _sky(direction, dir_sun, sky_rgb, light[0], rgb)
                else:
                    T = T_solid_world[i]
                    for axis in range(3):
                        hit[axis] = origin[axis] + t * direction[axis]
                    for axis in range(3):
                        p[axis] = T[axis, 0] * hit[0] + T[axis, 1] * hit[1] + T[axis, 2] * hit[2] + T[axis, 3]
                    u, v = _surface(kinds[i], face, p, half_sizes[i], normal_solid)
                    norm = 0.0
                    for axis in range(3):
                        normal[axis] = (
                            T[0, axis] * normal_solid[0] + T[1, axis] * normal_solid[1] + T[2, axis] * normal_solid[2]
                        )
                        norm += normal[axis] * normal[axis]
                    for axis in range(3):
                        normal[axis] /= sqrt(norm)
                    if kinds[i] == ROOM and len(surroundings) > 0:
                        half = half_sizes[i]
                        _look_around(surroundings, p[0] * half[0], p[1] * half[1], p[2] * half[2], rgb)
                    else:
                        _look_up(textures[texture_idx[i]], u / texture_sizes[i], v / texture_sizes[i], rgb)
                    # A light of some size: each sample of a pixel looks at another point of it.
                    angle = 2.0 * pi * ((sample + 0.61803 * (x * 7 + y * 13)) % 1.0 + sample / num_samples)
                    jitter = light[2] * sqrt((x * 0.754877 + y * 0.56984 + sample * 0.38) % 1.0)
                    reach = light[1] if light[1] > 0 else 1e4
                    length = 0.0
                    for axis in range(3):
                        swing = cos(angle) if axis == 0 else (sin(angle) if axis == 1 else 0.0)
                        to_light[axis] = (dir_sun[axis] + jitter * swing) * reach - (hit[axis] if light[1] > 0 else 0.0)
                        length += to_light[axis] * to_light[axis]
                    length = sqrt(length)
                    facing, mirror = 0.0, 0.0
                    for axis in range(3):
                        to_light[axis] /= length
                        facing += normal[axis] * to_light[axis]
                    direct = 0.0
                    if facing > 0:
                        for axis in range(3):
                            hit[axis] += 1e-3 * normal[axis]
                        blocked = _first_hit(kinds, T_solid_world, bounds, hit, to_light, o, d, length, True)[1]
                        if blocked < 0 or kinds[blocked] == ROOM:
                            direct = facing * light[0]
                            for axis in range(3):
                                mirror += (2 * facing * normal[axis] - to_light[axis]) * -direction[axis]
                            mirror = gloss[i] * max(0.0, mirror) ** 20
                    ambient = light[4] + (light[3] - light[4]) * (0.5 + 0.5 * normal[2])
                    for c in range(3):
                        rgb[c] = rgb[c] * (ambient + direct * light_rgb[c]) + mirror * light[0] * light_rgb[c]
                for c in range(3):
                    image[y, x, c] += min(1.0, max(0.0, rgb[c])) / num_samples
    return image
