"""Real spherical harmonics of degree 0 to 3 as numba kernels, one Gaussian at a time.

Sign and order are those of 3D Gaussian Splatting's PLY files (and of gsplat); `gaussians.spherical_harmonics` is the
same in PyTorch.
"""

import numpy as np
from numba import njit

F = np.float32

C0 = F(0.28209479177387814)
C1 = F(0.4886025119029199)
C2_XY = F(1.0925484305920792)
C2_ZZ = F(0.31539156525252005)
C2_XX = F(0.5462742152960396)
C3_XXX = F(0.5900435899266435)
C3_XYZ = F(2.890611442640554)
C3_XZZ = F(0.4570457994644658)
C3_ZZZ = F(0.3731763325901154)
C3_ZXX = F(1.445305721320277)

ONE = F(1)
TWO = F(2)
THREE = F(3)
FOUR = F(4)
FIVE = F(5)
SIX = F(6)
EIGHT = F(8)

FLAGS = {"contract", "nsz"}


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def fill_bases(degree, x, y, z, bases):
    """Write the basis values of degrees 1 to `degree` at the unit direction (x, y, z)."""
    if degree < 1:
        return
    bases[0] = -C1 * y
    bases[1] = C1 * z
    bases[2] = -C1 * x
    if degree < 2:
        return
    xx, yy, zz = x * x, y * y, z * z
    bases[3] = C2_XY * x * y
    bases[4] = -C2_XY * y * z
    bases[5] = C2_ZZ * (TWO * zz - xx - yy)
    bases[6] = -C2_XY * x * z
    bases[7] = C2_XX * (xx - yy)
    if degree < 3:
        return
    bases[8] = -C3_XXX * y * (THREE * xx - yy)
    bases[9] = C3_XYZ * x * y * z
    bases[10] = -C3_XZZ * y * (FOUR * zz - xx - yy)
    bases[11] = C3_ZZZ * z * (TWO * zz - THREE * xx - THREE * yy)
    bases[12] = -C3_XZZ * x * (FOUR * zz - xx - yy)
    bases[13] = C3_ZXX * z * (xx - yy)
    bases[14] = -C3_XXX * x * (xx - THREE * yy)


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy", fastmath=FLAGS)
def direction_gradient(x, y, z, weights):
    """Gradient of sum_k weights[k] * basis_k by (x, y, z), degrees 1 to 3; weights above a degree are 0."""
    gx = -C1 * weights[2]
    gy = -C1 * weights[0]
    gz = C1 * weights[1]
    gx += C2_XY * (y * weights[3] - z * weights[6]) - TWO * C2_ZZ * x * weights[5] + TWO * C2_XX * x * weights[7]
    gy += C2_XY * (x * weights[3] - z * weights[4]) - TWO * C2_ZZ * y * weights[5] - TWO * C2_XX * y * weights[7]
    gz += -C2_XY * (y * weights[4] + x * weights[6]) + FOUR * C2_ZZ * z * weights[5]
    xx, yy, zz = x * x, y * y, z * z
    xy, xz, yz = x * y, x * z, y * z
    gx += (
        -SIX * C3_XXX * xy * weights[8]
        + C3_XYZ * yz * weights[9]
        + TWO * C3_XZZ * xy * weights[10]
        - SIX * C3_ZZZ * xz * weights[11]
        - C3_XZZ * (FOUR * zz - THREE * xx - yy) * weights[12]
        + TWO * C3_ZXX * xz * weights[13]
        - THREE * C3_XXX * (xx - yy) * weights[14]
    )
    gy += (
        -THREE * C3_XXX * (xx - yy) * weights[8]
        + C3_XYZ * xz * weights[9]
        - C3_XZZ * (FOUR * zz - xx - THREE * yy) * weights[10]
        - SIX * C3_ZZZ * yz * weights[11]
        + TWO * C3_XZZ * xy * weights[12]
        - TWO * C3_ZXX * yz * weights[13]
        + SIX * C3_XXX * xy * weights[14]
    )
    gz += (
        C3_XYZ * xy * weights[9]
        - EIGHT * C3_XZZ * yz * weights[10]
        + C3_ZZZ * (SIX * zz - THREE * xx - THREE * yy) * weights[11]
        - EIGHT * C3_XZZ * xz * weights[12]
        + C3_ZXX * (xx - yy) * weights[13]
    )
    return gx, gy, gz
