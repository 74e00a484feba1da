"""What command lines share, so that an app is its flags and ten lines. No torch; rich is imported on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
