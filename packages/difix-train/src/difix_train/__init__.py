"""Training of Difix networks from pairs of degraded and clean images.

Public names are loaded on first use, so that importing a configuration does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
