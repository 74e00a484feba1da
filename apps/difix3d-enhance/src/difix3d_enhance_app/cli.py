"""What `difix3d-enhance` understands."""

from dataclasses import dataclass

import tyro

from difix3d.enhance_config import EnhanceConfig


@dataclass(frozen=True, kw_only=True)
class EnhanceCommand:
    """Fix what a splat shows along a path, a folder of renders, or a video, with the captured photos as references.

    Frames are rendered, fixed and written one after the other. The last line is the path of what was written.
    """

    config: tyro.conf.OmitArgPrefixes[EnhanceConfig]
