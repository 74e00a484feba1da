"""Gaussians in the world -> splats in the image (EWA), as one fused numba kernel and its backward.

The covariance is never formed in 3D: with P = J R_cam_world (2x3, J the local affine approximation of the
perspective projection) and the Gaussian's axes r_j of length s_j, the 2D covariance is sum_j (s_j P r_j)(s_j P r_j)^T.
The determinant comes out of the cross product of its two rows, so thin Gaussians keep their precision.
"""

import math

import numpy as np
from numba import njit

from splat_render.cpu.harmonics import C0, FLAGS, direction_gradient, fill_bases
from splat_render.cpu.lanes import everywhere, load, store
from splat_render.cpu.layout import (
    CAMERA_CENTER,
    CAMERA_CX,
    CAMERA_CY,
    CAMERA_EPS2D,
    CAMERA_FAR,
    CAMERA_FX,
    CAMERA_FY,
    CAMERA_HEIGHT,
    CAMERA_NEAR,
    CAMERA_WIDTH,
    COMPENSATION,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    DEPTH,
    LIMIT,
    M_00,
    M_01,
    M_02,
    M_10,
    M_11,
    M_20,
    M_ABS_X,
    M_ABS_Y,
    M_DEPTH,
    M_RED,
    MOMENT_STRIDE,
    OPACITY,
    RED,
    X,
    Y,
)

F = np.float32
U = np.uint64

ZERO = F(0)
HALF = F(0.5)
ONE = F(1)
TWO = F(2)
MAX_EXTENT = F(3.33)
"""Largest radius of a Gaussian in standard deviations: beyond it even an opaque one is below 1/255."""
MIN_ALPHA = F(1 / 255)
FRUSTUM_MARGIN = F(0.3)
"""The affine approximation is evaluated at most this share of half the image outside of it."""
MAX_RADIUS = F(1 << 24)
FINITE = F(3e38)
GROUP = 128
"""Gaussians whose moments are added up one right after the other, so that waiting for memory overlaps."""


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def rotation(w, x, y, z):
    """The rotation matrix of a unit quaternion, row by row."""
    return (
        ONE - TWO * (y * y + z * z),
        TWO * (x * y - w * z),
        TWO * (x * z + w * y),
        TWO * (x * y + w * z),
        ONE - TWO * (x * x + z * z),
        TWO * (y * z - w * x),
        TWO * (x * z - w * y),
        TWO * (y * z + w * x),
        ONE - TWO * (x * x + y * y),
    )


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def affine(camera, x, y, z):
    """The Jacobian of the projection at a point in the camera's frame.

    Returns its four non-zero elements (0,0), (0,2), (1,1), (1,2), and whether x and y were held at the margin.
    """
    fx, fy = camera[CAMERA_FX], camera[CAMERA_FY]
    margin_x = FRUSTUM_MARGIN * HALF * camera[CAMERA_WIDTH] / fx
    margin_y = FRUSTUM_MARGIN * HALF * camera[CAMERA_HEIGHT] / fy
    high_x = (camera[CAMERA_WIDTH] - camera[CAMERA_CX]) / fx + margin_x
    high_y = (camera[CAMERA_HEIGHT] - camera[CAMERA_CY]) / fy + margin_y
    low_x = -camera[CAMERA_CX] / fx - margin_x
    low_y = -camera[CAMERA_CY] / fy - margin_y
    inv_z = ONE / z
    slope_x, slope_y = x * inv_z, y * inv_z
    held_x = slope_x < low_x or slope_x > high_x
    held_y = slope_y < low_y or slope_y > high_y
    slope_x = min(max(slope_x, low_x), high_x)
    slope_y = min(max(slope_y, low_y), high_y)
    return fx * inv_z, -fx * slope_x * inv_z, fy * inv_z, -fy * slope_y * inv_z, held_x, held_y


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def image_axes(camera, j00, j02, j11, j12, rot, scale_0, scale_1, scale_2):
    """The Gaussian's three axes in the image: rows (u_0, u_1, u_2) in x and (v_0, v_1, v_2) in y, pixels; then P."""
    p0 = j00 * camera[0] + j02 * camera[6]
    p1 = j00 * camera[1] + j02 * camera[7]
    p2 = j00 * camera[2] + j02 * camera[8]
    q0 = j11 * camera[3] + j12 * camera[6]
    q1 = j11 * camera[4] + j12 * camera[7]
    q2 = j11 * camera[5] + j12 * camera[8]
    u0 = scale_0 * (p0 * rot[0] + p1 * rot[3] + p2 * rot[6])
    u1 = scale_1 * (p0 * rot[1] + p1 * rot[4] + p2 * rot[7])
    u2 = scale_2 * (p0 * rot[2] + p1 * rot[5] + p2 * rot[8])
    v0 = scale_0 * (q0 * rot[0] + q1 * rot[3] + q2 * rot[6])
    v1 = scale_1 * (q0 * rot[1] + q1 * rot[4] + q2 * rot[7])
    v2 = scale_2 * (q0 * rot[2] + q1 * rot[5] + q2 * rot[8])
    return u0, u1, u2, v0, v1, v2, p0, p1, p2, q0, q1, q2


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def project(
    start, stop, means, log_scales, quats, logits, sh0, sh_rest, camera, degree, antialiased, splats, depths, radii
):
    """Project Gaussians `start` to `stop`; `radii` (px, x and y) stay 0 where nothing can be seen.

    Everything that is not finite is culled, as are Gaussians whose opacity is below 1/255.
    """
    bases = np.empty(15, np.float32)
    num_rest = (degree + 1) * (degree + 1) - 1
    eps2d = camera[CAMERA_EPS2D]
    for i in range(start, stop):
        radii[i, 0] = 0
        radii[i, 1] = 0
        splats[i, X] = ZERO
        splats[i, Y] = ZERO
        mx, my, mz = means[i, 0], means[i, 1], means[i, 2]
        z = camera[6] * mx + camera[7] * my + camera[8] * mz + camera[11]
        if not (z >= camera[CAMERA_NEAR] and z <= camera[CAMERA_FAR]):
            continue
        x = camera[0] * mx + camera[1] * my + camera[2] * mz + camera[9]
        y = camera[3] * mx + camera[4] * my + camera[5] * mz + camera[10]
        w_q, x_q, y_q, z_q = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        length = math.sqrt(w_q * w_q + x_q * x_q + y_q * y_q + z_q * z_q)
        if not (length > ZERO and length < FINITE):
            continue
        inv = ONE / length
        rot = rotation(w_q * inv, x_q * inv, y_q * inv, z_q * inv)
        j00, j02, j11, j12, _, _ = affine(camera, x, y, z)
        u0, u1, u2, v0, v1, v2, _, _, _, _, _, _ = image_axes(
            camera, j00, j02, j11, j12, rot,
            math.exp(log_scales[i, 0]), math.exp(log_scales[i, 1]), math.exp(log_scales[i, 2]),
        )  # fmt: skip
        c_xx = u0 * u0 + u1 * u1 + u2 * u2
        c_xy = u0 * v0 + u1 * v1 + u2 * v2
        c_yy = v0 * v0 + v1 * v1 + v2 * v2
        n0, n1, n2 = u1 * v2 - u2 * v1, u2 * v0 - u0 * v2, u0 * v1 - u1 * v0
        det_sharp = n0 * n0 + n1 * n1 + n2 * n2
        det = det_sharp + eps2d * (c_xx + c_yy + eps2d)
        if not (det > ZERO and det < FINITE):
            continue
        c_xx += eps2d
        c_yy += eps2d
        compensation = math.sqrt(det_sharp / det) if antialiased else ONE
        opacity = compensation / (ONE + math.exp(-logits[i]))
        if not (opacity >= MIN_ALPHA):
            continue
        threshold = math.log(opacity / MIN_ALPHA)
        extent = min(MAX_EXTENT, math.sqrt(TWO * threshold))
        radius_x = min(math.ceil(extent * math.sqrt(c_xx)), MAX_RADIUS)
        radius_y = min(math.ceil(extent * math.sqrt(c_yy)), MAX_RADIUS)
        px = camera[CAMERA_FX] * x / z + camera[CAMERA_CX]
        py = camera[CAMERA_FY] * y / z + camera[CAMERA_CY]
        inside_x = px + radius_x > ZERO and px - radius_x < camera[CAMERA_WIDTH]
        inside_y = py + radius_y > ZERO and py - radius_y < camera[CAMERA_HEIGHT]
        if not (inside_x and inside_y):
            continue

        dx, dy, dz = mx - camera[CAMERA_CENTER], my - camera[CAMERA_CENTER + 1], mz - camera[CAMERA_CENTER + 2]
        inv = ONE / math.sqrt(dx * dx + dy * dy + dz * dz)
        fill_bases(degree, dx * inv, dy * inv, dz * inv, bases)
        red, green, blue = C0 * sh0[i, 0, 0] + HALF, C0 * sh0[i, 0, 1] + HALF, C0 * sh0[i, 0, 2] + HALF
        for k in range(num_rest):
            red += bases[k] * sh_rest[i, k, 0]
            green += bases[k] * sh_rest[i, k, 1]
            blue += bases[k] * sh_rest[i, k, 2]
        splats[i, RED] = max(red, ZERO)
        splats[i, RED + 1] = max(green, ZERO)
        splats[i, RED + 2] = max(blue, ZERO)
        if not (abs(red) < FINITE and abs(green) < FINITE and abs(blue) < FINITE):
            continue
        inv = ONE / det
        splats[i, X] = px
        splats[i, Y] = py
        splats[i, CONIC_XX] = c_yy * inv
        splats[i, CONIC_XY] = -c_xy * inv
        splats[i, CONIC_YY] = c_xx * inv
        splats[i, OPACITY] = opacity
        splats[i, DEPTH] = z
        splats[i, LIMIT] = F(1.00001) * threshold + F(0.0001)
        splats[i, COMPENSATION] = compensation
        depths[i] = z
        radii[i, 0] = np.int32(radius_x)
        radii[i, 1] = np.int32(radius_y)


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def harmonics_backward(
    i, degree, means, camera, splats, totals, member, sh_rest, bases, weights, v_means, v_sh0, v_sh_rest
):  # fmt: skip
    """Gradient of one Gaussian's color: into the coefficients, and through the direction into the mean.

    `weights` must be 0 above the degree. No branch skips the rest: numba would count references to its arrays.
    """
    num_rest = (degree + 1) * (degree + 1) - 1
    red = totals[member, M_RED] if splats[i, RED] > ZERO else ZERO
    green = totals[member, M_RED + 1] if splats[i, RED + 1] > ZERO else ZERO
    blue = totals[member, M_RED + 2] if splats[i, RED + 2] > ZERO else ZERO
    v_sh0[i, 0, 0] = C0 * red
    v_sh0[i, 0, 1] = C0 * green
    v_sh0[i, 0, 2] = C0 * blue
    dx = means[i, 0] - camera[CAMERA_CENTER]
    dy = means[i, 1] - camera[CAMERA_CENTER + 1]
    dz = means[i, 2] - camera[CAMERA_CENTER + 2]
    inv = ONE / math.sqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx * inv, dy * inv, dz * inv
    fill_bases(degree, dx, dy, dz, bases)
    for k in range(num_rest):
        v_sh_rest[i, k, 0] = bases[k] * red
        v_sh_rest[i, k, 1] = bases[k] * green
        v_sh_rest[i, k, 2] = bases[k] * blue
        weights[k] = red * sh_rest[i, k, 0] + green * sh_rest[i, k, 1] + blue * sh_rest[i, k, 2]
    gx, gy, gz = direction_gradient(dx, dy, dz, weights)
    along = gx * dx + gy * dy + gz * dz
    v_means[i, 0] += inv * (gx - along * dx)
    v_means[i, 1] += inv * (gy - along * dy)
    v_means[i, 2] += inv * (gz - along * dz)


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def covariance_gradient(splats, i, totals, member, eps2d, antialiased, sigmoid):
    """Gradient with respect to the unblurred 2D covariance (xx, xy counted twice, yy) and to the raw opacity."""
    a, b, c = splats[i, CONIC_XX], splats[i, CONIC_XY], splats[i, CONIC_YY]
    v_a, v_b, v_c = HALF * totals[member, M_20], HALF * totals[member, M_11], HALF * totals[member, M_02]
    # With Q the conic and G its gradient, the gradient of the covariance is -Q G Q.
    qg00, qg01 = a * v_a + b * v_b, a * v_b + b * v_c
    qg10, qg11 = b * v_a + c * v_b, b * v_b + c * v_c
    v_xx = -(qg00 * a + qg01 * b)
    v_xy = -TWO * (qg00 * b + qg01 * c)
    v_yy = -(qg10 * b + qg11 * c)
    v_opacity = -totals[member, M_00] / splats[i, OPACITY]
    compensation = splats[i, COMPENSATION]
    if antialiased:
        half = HALF * v_opacity * sigmoid / (compensation + F(1e-6))
        rest = ONE - compensation * compensation
        det_conic = a * c - b * b
        v_xx += half * (rest * a - eps2d * det_conic)
        v_xy += TWO * half * rest * b
        v_yy += half * (rest * c - eps2d * det_conic)
        v_opacity *= compensation
    return v_xx, v_xy, v_yy, v_opacity


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def geometry_backward(i, camera, means, log_scales, quats, v_xx, v_xy, v_yy, v_px, v_py, v_z, v_means, v_logs, v_quats):
    """Gradient of one Gaussian's image position, 2D covariance and depth: into mean, log scales and quaternion."""
    mx, my, mz = means[i, 0], means[i, 1], means[i, 2]
    x = camera[0] * mx + camera[1] * my + camera[2] * mz + camera[9]
    y = camera[3] * mx + camera[4] * my + camera[5] * mz + camera[10]
    z = camera[6] * mx + camera[7] * my + camera[8] * mz + camera[11]
    inv_length = ONE / math.sqrt(quats[i, 0] ** 2 + quats[i, 1] ** 2 + quats[i, 2] ** 2 + quats[i, 3] ** 2)
    w_q, x_q = quats[i, 0] * inv_length, quats[i, 1] * inv_length
    y_q, z_q = quats[i, 2] * inv_length, quats[i, 3] * inv_length
    rot = rotation(w_q, x_q, y_q, z_q)
    s0, s1, s2 = math.exp(log_scales[i, 0]), math.exp(log_scales[i, 1]), math.exp(log_scales[i, 2])
    j00, j02, j11, j12, held_x, held_y = affine(camera, x, y, z)
    u0, u1, u2, v0, v1, v2, p0, p1, p2, q0, q1, q2 = image_axes(camera, j00, j02, j11, j12, rot, s0, s1, s2)
    gu0, gu1, gu2 = TWO * v_xx * u0 + v_xy * v0, TWO * v_xx * u1 + v_xy * v1, TWO * v_xx * u2 + v_xy * v2
    gv0, gv1, gv2 = TWO * v_yy * v0 + v_xy * u0, TWO * v_yy * v1 + v_xy * u1, TWO * v_yy * v2 + v_xy * u2
    v_logs[i, 0] = gu0 * u0 + gv0 * v0
    v_logs[i, 1] = gu1 * u1 + gv1 * v1
    v_logs[i, 2] = gu2 * u2 + gv2 * v2

    gu0, gu1, gu2, gv0, gv1, gv2 = gu0 * s0, gu1 * s1, gu2 * s2, gv0 * s0, gv1 * s1, gv2 * s2
    r00, r01, r02 = gu0 * p0 + gv0 * q0, gu1 * p0 + gv1 * q0, gu2 * p0 + gv2 * q0
    r10, r11, r12 = gu0 * p1 + gv0 * q1, gu1 * p1 + gv1 * q1, gu2 * p1 + gv2 * q1
    r20, r21, r22 = gu0 * p2 + gv0 * q2, gu1 * p2 + gv1 * q2, gu2 * p2 + gv2 * q2
    g_w = TWO * (x_q * (r21 - r12) + y_q * (r02 - r20) + z_q * (r10 - r01))
    g_x = TWO * (-TWO * x_q * (r11 + r22) + y_q * (r01 + r10) + z_q * (r02 + r20) + w_q * (r21 - r12))
    g_y = TWO * (x_q * (r01 + r10) - TWO * y_q * (r00 + r22) + z_q * (r12 + r21) + w_q * (r02 - r20))
    g_z = TWO * (x_q * (r02 + r20) + y_q * (r12 + r21) - TWO * z_q * (r00 + r11) + w_q * (r10 - r01))
    along = g_w * w_q + g_x * x_q + g_y * y_q + g_z * z_q
    v_quats[i, 0] = (g_w - along * w_q) * inv_length
    v_quats[i, 1] = (g_x - along * x_q) * inv_length
    v_quats[i, 2] = (g_y - along * y_q) * inv_length
    v_quats[i, 3] = (g_z - along * z_q) * inv_length

    gp0 = gu0 * rot[0] + gu1 * rot[1] + gu2 * rot[2]
    gp1 = gu0 * rot[3] + gu1 * rot[4] + gu2 * rot[5]
    gp2 = gu0 * rot[6] + gu1 * rot[7] + gu2 * rot[8]
    gq0 = gv0 * rot[0] + gv1 * rot[1] + gv2 * rot[2]
    gq1 = gv0 * rot[3] + gv1 * rot[4] + gv2 * rot[5]
    gq2 = gv0 * rot[6] + gv1 * rot[7] + gv2 * rot[8]
    v_j00 = camera[0] * gp0 + camera[1] * gp1 + camera[2] * gp2
    v_j02 = camera[6] * gp0 + camera[7] * gp1 + camera[8] * gp2
    v_j11 = camera[3] * gq0 + camera[4] * gq1 + camera[5] * gq2
    v_j12 = camera[6] * gq0 + camera[7] * gq1 + camera[8] * gq2
    inv_z = ONE / z
    fx, fy = camera[CAMERA_FX], camera[CAMERA_FY]
    # Where the slope is held at the margin, J no longer depends on x or y, and only once on 1/z.
    gx, gy = j00 * v_px, j11 * v_py
    gz = v_z - (fx * x * v_px + fy * y * v_py) * inv_z * inv_z - inv_z * (j00 * v_j00 + j11 * v_j11)
    if held_x:
        gz -= j02 * inv_z * v_j02
    else:
        gx -= fx * inv_z * inv_z * v_j02
        gz -= TWO * j02 * inv_z * v_j02
    if held_y:
        gz -= j12 * inv_z * v_j12
    else:
        gy -= fy * inv_z * inv_z * v_j12
        gz -= TWO * j12 * inv_z * v_j12
    v_means[i, 0] += camera[0] * gx + camera[3] * gy + camera[6] * gz
    v_means[i, 1] += camera[1] * gx + camera[4] * gy + camera[7] * gz
    v_means[i, 2] += camera[2] * gx + camera[5] * gy + camera[8] * gz


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def add_up(start, stop, places, place_starts, moments, totals):
    """Sum the moments of each of the Gaussians `start` to `stop`, which lie far apart: a row of `totals` for each.

    They are added tile by tile, so the order of the sum, and with it every bit of the result, is the same for any
    number of threads.
    """
    for i in range(start, stop):
        total = everywhere(ZERO)
        for k in range(place_starts[i], place_starts[i + 1]):
            total = total + load(moments, U(places[k]) * U(MOMENT_STRIDE))
        store(totals, U(i - start) * U(MOMENT_STRIDE), total)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def project_backward(
    start, stop, means, log_scales, quats, logits, sh_rest, camera, degree, antialiased, splats, radii,
    places, place_starts, moments, v_means, v_logs, v_quats, v_logits, v_sh0, v_sh_rest, v_means2d, absgrad,
):  # fmt: skip
    """Add up what the tiles found about Gaussians `start` to `stop` and carry it to the raw parameters.

    The gradient arrays must hold zeros.
    """
    totals = np.empty((GROUP, MOMENT_STRIDE), np.float32)
    bases = np.empty(15, np.float32)
    weights = np.zeros(15, np.float32)
    for i in range(start, stop):
        member = (i - start) % GROUP
        if member == 0:
            add_up(i, min(i + GROUP, stop), places, place_starts, moments, totals)
        if radii[i, 0] <= 0:
            continue
        v_px = splats[i, CONIC_XX] * totals[member, M_10] + splats[i, CONIC_XY] * totals[member, M_01]
        v_py = splats[i, CONIC_XY] * totals[member, M_10] + splats[i, CONIC_YY] * totals[member, M_01]
        v_means2d[i, 0] = v_px
        v_means2d[i, 1] = v_py
        if absgrad is not None:
            absgrad[i, 0] = totals[member, M_ABS_X]
            absgrad[i, 1] = totals[member, M_ABS_Y]
        sigmoid = ONE / (ONE + math.exp(-logits[i]))
        v_xx, v_xy, v_yy, v_opacity = covariance_gradient(
            splats, i, totals, member, camera[CAMERA_EPS2D], antialiased, sigmoid
        )
        v_logits[i] = v_opacity * sigmoid * (ONE - sigmoid)
        harmonics_backward(
            i, degree, means, camera, splats, totals, member, sh_rest, bases, weights, v_means, v_sh0, v_sh_rest
        )
        geometry_backward(
            i,
            camera,
            means,
            log_scales,
            quats,
            v_xx,
            v_xy,
            v_yy,
            v_px,
            v_py,
            totals[member, M_DEPTH],
            v_means,
            v_logs,
            v_quats,
        )
