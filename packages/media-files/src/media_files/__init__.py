"""Photos and videos as people have them: any kind of pixels in, RGB out, and back into files.

Names resolve when they are first used; videos need the extra `video` (PyAV), HEIC photos the extra `heic`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
