"""Difix3D: Gaussian splats that improve with the views that a fixer returns.

Start with `loop.progressive`, the method on one page.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
