"""What nerfstudio imports when any `ns-*` command starts: the two methods, or None where they cannot be built.

nerfstudio imports every plugin before it does anything else, and does not catch what they raise. So nothing is raised
here: whatever goes wrong is one warning, and all other methods go on working.
"""

import warnings

try:
    from difix3d_nerfstudio.checkpoints import allow_numpy_scalars
    from difix3d_nerfstudio.methods import difix3d, difix3d_splat

    allow_numpy_scalars()
except Exception as error:
    warnings.warn(f"difix3d-nerfstudio cannot be used: {type(error).__name__}: {error}", stacklevel=1)
    difix3d = difix3d_splat = None

__all__ = ["difix3d", "difix3d_splat"]
