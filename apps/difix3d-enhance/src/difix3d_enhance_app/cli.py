"""What `difix3d-enhance` understands."""

from dataclasses import dataclass

import tyro

from difix3d.enhance.config import EnhanceConfig
from difix3d.viewer.config import LiveConfig

VIEW = "view"
"""The word after which the flags are those of the live page."""


@dataclass(frozen=True, kw_only=True)
class EnhanceCommand:
    """Fix what a splat shows along a path, a folder of renders, or a video, with the captured photos as references.

    Frames are rendered, fixed and written one after the other. The last line is the path of what was written.

    To look at a splat live in the browser, with the fix off, on, or side by side: `difix3d-enhance view --help`.
    """

    config: tyro.conf.OmitArgPrefixes[EnhanceConfig]


@dataclass(frozen=True, kw_only=True)
class ViewCommand:
    """Look at a splat in the browser, as rendered and fixed (extra viewer); Ctrl-C ends it.

    Renders follow the mouse; where the camera rests, the picture is fixed with the photo from nearest by.
    """

    config: tyro.conf.OmitArgPrefixes[LiveConfig]
