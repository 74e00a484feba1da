"""The one place that imports pycolmap.

pycolmap 4.1 to 4.2 corrupts the heap when it is the first to load zlib: the next PNG that is saved aborts the process
or hangs it. Python's own zlib module loads the system's library, so it has to come first.
"""

import zlib  # noqa: F401, I001  This import must stand before pycolmap's.
import pycolmap

# COLMAP tells standard error about every image it touches; what went wrong is enough.
pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value

__all__ = ["pycolmap"]
