"""Ray casting: any camera's maps of an object, by marching along rays through each part's distance bound.

Balls, rings and capsules have exact distances. The others are convex, and the largest of the signed distances to their
planes (or of a cone's slope) is a lower bound of the distance: a step of that length never enters the solid.
"""

import numpy as np
from numba import njit

from synthetic_objects.errors import InputError
from synthetic_objects.maps import ObjectMaps
from synthetic_objects.objects import GeneratedObject, Part
from synthetic_objects.vocabulary import COLORS, MATERIALS, SHAPES

BALL, BOX, CYLINDER, CONE, RING, PYRAMID, CAPSULE = range(len(SHAPES))
MATTE, SHINY, METAL, STRIPED, CHECKERED = range(len(MATERIALS))

# Columns of the kernel's table of parts.
SHAPE, CENTER, EXTENTS, COS_YAW, SIN_YAW, COLOR, MATERIAL, REACH, NUM_COLUMNS = 0, 1, 4, 7, 8, 9, 12, 13, 14

MAX_STEPS = 96
CLOSE = 2e-5
"""A ray that comes this close to a surface has hit it."""

LIGHT = np.array([0.40, 0.75, 0.53])
LIGHT = LIGHT / np.linalg.norm(LIGHT)
AMBIENT = 0.45
PATTERN_PERIOD = 0.16


@njit(cache=True, fastmath=True)
def _distance(row, x, y, z):
    """A lower bound of the distance to a part's surface, in its own axes."""
    shape = int(row[SHAPE])
    a, b, c = row[EXTENTS], row[EXTENTS + 1], row[EXTENTS + 2]
    if shape == BALL:
        return np.sqrt(x * x + y * y + z * z) - a
    if shape == BOX:
        return max(abs(x) - a, abs(y) - b, abs(z) - c)
    if shape == PYRAMID:
        # Four slopes from the base's edges at y = -b to the tip at y = b.
        over = (b - y) / (2 * b)
        along_x = (abs(x) - a * over) / np.sqrt(1 + (a / (2 * b)) ** 2)
        along_z = (abs(z) - c * over) / np.sqrt(1 + (c / (2 * b)) ** 2)
        return max(along_x, along_z, -b - y)
    rho = np.sqrt(x * x + z * z)
    if shape == CYLINDER:
        return max(rho - a, abs(y) - b)
    if shape == CONE:
        return max((rho - a * (b - y) / (2 * b)) / np.sqrt(1 + (a / (2 * b)) ** 2), -b - y)
    if shape == RING:
        around = rho - (a - b)
        return np.sqrt(around * around + y * y) - b
    beyond = max(abs(y) - max(b - a, 0.0), 0.0)
    return np.sqrt(rho * rho + beyond * beyond) - a


@njit(cache=True, fastmath=True)
def _hit(row, ox, oy, oz, dx, dy, dz):
    """How far along a ray of unit direction a part's surface is, in the part's own axes; negative: never."""
    reach = row[REACH] * 1.001 + 1e-6
    middle = -(ox * dx + oy * dy + oz * dz)
    square = ox * ox + oy * oy + oz * oz - middle * middle
    if square > reach * reach:
        return -1.0
    half = np.sqrt(reach * reach - square)
    along, stop = max(middle - half, 0.0), middle + half
    distance = 1.0
    for _ in range(MAX_STEPS):
        distance = _distance(row, ox + along * dx, oy + along * dy, oz + along * dz)
        if distance < CLOSE:
            return along + distance
        along += distance
        if along > stop:
            return -1.0
    # A ray that creeps along a surface takes it.
    return along if distance < 100 * CLOSE else -1.0


@njit(cache=True, fastmath=True)
def _trace(parts, origin, directions, light, depth, normal, points, rgb, which):
    """Fill the maps of every ray; `which` gets the part's index or -1."""
    step = 1e-5
    for ray in range(directions.shape[0]):
        dx, dy, dz = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        nearest, found = 1e30, -1
        for index in range(parts.shape[0]):
            row = parts[index]
            cos_yaw, sin_yaw = row[COS_YAW], row[SIN_YAW]
            px, py, pz = origin[0] - row[CENTER], origin[1] - row[CENTER + 1], origin[2] - row[CENTER + 2]
            along = _hit(
                row,
                cos_yaw * px - sin_yaw * pz, py, sin_yaw * px + cos_yaw * pz,
                cos_yaw * dx - sin_yaw * dz, dy, sin_yaw * dx + cos_yaw * dz,
            )  # fmt: skip
            if 0 < along < nearest:
                nearest, found = along, index
        which[ray] = found
        if found < 0:
            continue
        row = parts[found]
        cos_yaw, sin_yaw = row[COS_YAW], row[SIN_YAW]
        for axis in range(3):
            points[ray, axis] = origin[axis] + nearest * directions[ray, axis]
        wx = points[ray, 0] - row[CENTER]
        wz = points[ray, 2] - row[CENTER + 2]
        x, y, z = cos_yaw * wx - sin_yaw * wz, points[ray, 1] - row[CENTER + 1], sin_yaw * wx + cos_yaw * wz
        nx = _distance(row, x + step, y, z) - _distance(row, x - step, y, z)
        ny = _distance(row, x, y + step, z) - _distance(row, x, y - step, z)
        nz = _distance(row, x, y, z + step) - _distance(row, x, y, z - step)
        length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-30
        nx, ny, nz = nx / length, ny / length, nz / length
        # Back from the part's axes to the world's.
        normal[ray, 0], normal[ray, 1], normal[ray, 2] = cos_yaw * nx + sin_yaw * nz, ny, cos_yaw * nz - sin_yaw * nx
        facing = normal[ray, 0] * light[0] + normal[ray, 1] * light[1] + normal[ray, 2] * light[2]
        shade = AMBIENT + (1 - AMBIENT) * max(facing, 0.0)
        # The highlight: where the normal lies halfway between the light and the way back along the ray.
        halfway, size = 0.0, 0.0
        for axis in range(3):
            toward = light[axis] - directions[ray, axis]
            halfway += toward * normal[ray, axis]
            size += toward * toward
        mirrored = max(halfway, 0.0) / np.sqrt(size + 1e-30)
        material = int(row[MATERIAL])
        lighter = 0.0
        if material == STRIPED and (y / PATTERN_PERIOD) % 1.0 < 0.5:
            lighter = 0.6
        elif material == CHECKERED:
            turn = np.arctan2(z, x) / np.pi * 4
            if (int(np.floor(turn)) + int(np.floor(2 * y / PATTERN_PERIOD))) % 2 == 0:
                lighter = 0.6
        for channel in range(3):
            color = row[COLOR + channel]
            color += lighter * (1 - color)
            value = color * shade
            if material == SHINY:
                value += 0.8 * mirrored**8
            elif material == METAL:
                value = 0.6 * value + 0.7 * (0.4 + 0.6 * color) * mirrored**4
            rgb[ray, channel] = min(value, 1.0)
        depth[ray] = nearest


def _table(parts: tuple[Part, ...]) -> np.ndarray:
    table = np.zeros((len(parts), NUM_COLUMNS))
    for row, part in zip(table, parts, strict=True):
        row[SHAPE] = SHAPES.index(part.shape)
        row[CENTER : CENTER + 3] = part.center
        row[EXTENTS : EXTENTS + 3] = part.half_extents
        row[COS_YAW], row[SIN_YAW] = np.cos(part.yaw), np.sin(part.yaw)
        row[COLOR : COLOR + 3] = COLORS[part.color]
        row[MATERIAL] = MATERIALS.index(part.material)
        row[REACH] = part.reach
    return table


def ray_cast(
    generated: GeneratedObject,
    T_world_cam: np.ndarray,
    K: np.ndarray,
    height: int,
    width: int,
    *,
    samples: int = 2,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> ObjectMaps:
    """Look at an object.

    Args:
        generated: The object; its world has y up.
        T_world_cam: [4 4] pose of the camera, in OpenCV's axes (x right, y down, z forward); its rotation is one.
        K: [3 3] intrinsics in pixels; pixel centers lie at +0.5.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        samples: Rays per pixel and axis; 1 has hard edges, 2 takes four rays.
        background: sRGB in [0, 1] behind the object.

    Raises:
        InputError: A size or the number of samples is below 1, or a matrix has the wrong shape.
    """
    if height < 1 or width < 1 or samples < 1:
        raise InputError(f"height, width and samples must be at least 1, got {height}, {width} and {samples}")
    pose, camera = np.asarray(T_world_cam, np.float64), np.asarray(K, np.float64)
    if pose.shape != (4, 4) or camera.shape != (3, 3):
        raise InputError(f"a pose is 4 x 4 and intrinsics are 3 x 3, got {pose.shape} and {camera.shape}")
    rows = (np.arange(height * samples) + 0.5) / samples
    columns = (np.arange(width * samples) + 0.5) / samples
    v, u = np.meshgrid((rows - camera[1, 2]) / camera[1, 1], columns, indexing="ij")
    u = (u - camera[0, 2] - camera[0, 1] * v) / camera[0, 0]
    dirs_cam = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm(dirs_cam, axis=1)
    # Not by a product of matrices, whose threads would cost more than they bring.
    dirs_world = np.einsum("nk,ck->nc", dirs_cam / lengths[:, None], pose[:3, :3])

    num = len(dirs_world)
    depth, which = np.zeros(num), np.full(num, -1, np.int64)
    normal, points, rgb = np.zeros((num, 3)), np.zeros((num, 3)), np.zeros((num, 3))
    _trace(
        _table(generated.parts), np.ascontiguousarray(pose[:3, 3]), dirs_world, LIGHT, depth, normal, points, rgb, which
    )
    depth /= lengths

    def pooled(values: np.ndarray) -> np.ndarray:
        """Sums over the rays of every pixel."""
        grid = values.reshape(height * samples, width * samples, -1)
        return sum(grid[i::samples, j::samples] for i in range(samples) for j in range(samples))  # type: ignore[return-value]

    hits = pooled((which >= 0).astype(np.float64))
    mask = hits / samples**2
    per_hit = 1 / np.maximum(hits, 1)
    covered = np.concatenate([pooled((which == index).astype(np.float64)) for index in range(len(generated.parts))], -1)
    normals = pooled(normal)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    colors = pooled(rgb) / samples**2 + (1 - mask) * np.asarray(background, np.float64)
    return ObjectMaps(
        rgb=colors.astype(np.float32),
        mask=mask[..., 0].astype(np.float32),
        depth=(pooled(depth) * per_hit)[..., 0].astype(np.float32),
        normal=normals.astype(np.float32),
        points=(pooled(points) * per_hit).astype(np.float32),
        part=np.where(hits[..., 0] > 0, covered.argmax(axis=-1), -1).astype(np.int8),
    )
