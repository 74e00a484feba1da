"""Names of the columns in the packed arrays that the CPU kernels hand to one another.

One row of `splats` describes one projected Gaussian, float32; one row of `moments` holds what one tile adds to the
gradient of one projected Gaussian. Plain integers, so that numba freezes them into the kernels: its
cache looks only at a kernel's own file, so after a change here delete the `__pycache__` beside it.
"""

TILE = 16
"""Side of a tile in pixels; gsplat's."""

X = 0
"""Projected center, pixels from the left edge of the image."""
Y = 1
"""Projected center, pixels from the top edge of the image."""
CONIC_XX = 2
"""Inverse of the blurred 2D covariance, 1/px^2."""
CONIC_XY = 3
"""Off-diagonal element of the same."""
CONIC_YY = 4
"""Lower right element of the same."""
OPACITY = 5
"""Opacity at the center, after the compensation for blur if there is one."""
RED = 6
"""Color towards this camera, at least 0."""
GREEN = 7
"""Second channel of the same."""
BLUE = 8
"""Third channel of the same."""
DEPTH = 9
"""z-depth of the center, scene units."""
LIMIT = 10
"""Pixels at which the exponent is larger than this see less than 1/255 of the Gaussian."""
COMPENSATION = 11
"""Factor in (0, 1] that makes up for the blur; 1 unless antialiased."""
NUM_SPLAT_COLUMNS = 12

M_00 = 0
"""Sum over pixels of the gradient with respect to the exponent, d = center - pixel: moments of order dx^i dy^j."""
M_10 = 1
M_01 = 2
M_20 = 3
M_11 = 4
M_02 = 5
M_RED = 6
"""Gradient with respect to the color; green and blue follow."""
M_GREEN = 7
M_BLUE = 8
M_DEPTH = 9
"""Gradient with respect to the z-depth that is blended."""
M_ABS_X = 10
"""Sum over pixels of the absolute gradient with respect to the center; y follows. Only where absgrad is asked for."""
M_ABS_Y = 11
NUM_MOMENTS = 12
MOMENT_STRIDE = 16
"""Floats from one row of moments to the next: a line of the cache."""

CAMERA_FX = 12
"""The camera array holds R_cam_world row by row (0-8), t_cam_world (9-11), then the intrinsics in pixels."""
CAMERA_FY = 13
CAMERA_CX = 14
CAMERA_CY = 15
CAMERA_WIDTH = 16
CAMERA_HEIGHT = 17
CAMERA_CENTER = 18
"""First of the three world coordinates of the camera's center."""
CAMERA_NEAR = 21
CAMERA_FAR = 22
CAMERA_EPS2D = 23
NUM_CAMERA_VALUES = 24
