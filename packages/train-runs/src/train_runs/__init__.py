"""Training runs that can be killed anywhere: a folder, checkpoints, and the loop, for any task. Imports no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
