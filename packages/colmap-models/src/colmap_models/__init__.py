"""COLMAP's models, binary and text: read leniently, nothing of them lost without a word, and no pycolmap needed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
