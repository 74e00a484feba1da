"""Gaussian splats: what they are, how a camera sees them, and the files that hold them; on a CPU or on CUDA.

Start with `gaussians`, the record of raw parameters, and `rasterizer`, the contract that both backends fulfil.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
