"""Posed images in, 3D Gaussian splats and renders out, on CUDA or a CPU.

Start with `trainer`, the engine, and `scene.scene`, what it works on.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
