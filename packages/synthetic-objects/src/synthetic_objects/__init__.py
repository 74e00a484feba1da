"""Objects made of simple solids, with captions, and the pictures that any camera takes of them.

Start with `objects.sample_object`, which makes one from a seed, and `raycast.ray_cast`, which looks at it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
