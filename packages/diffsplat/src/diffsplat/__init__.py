"""Text or one image to a 3D Gaussian splat.

Start with `pipeline`, which puts the networks together, and `denoiser` and `gsvae`, the two that a splat needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
