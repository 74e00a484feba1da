"""What `difix3d-enhance` understands."""

from commands import Groups

DISTRIBUTION = "difix3d-enhance-app"

VIEW = "view"
"""The word after which the flags are those of the live page."""

ENHANCE = """Fix what a splat shows along a path, a folder of renders, or a video, with captured photos as references.

Frames are rendered, fixed and written one after the other. To look at a splat live in the browser, with the fix off,
on, or side by side: `difix3d-enhance view --help`."""

ENHANCE_GROUPS: Groups = {
    "what matters": ("splat", "input", "scene", "out", "model", "gate", "side_by_side", "max_size", "resume"),
    "where the film of a splat goes": ("which", "cameras", "path", "frames", "fps"),
    "references": ("references", "num_references"),
    "fixing and hardware": ("base", "strength", "steady", "batch_size", "device"),
}

LOOK = """Look at a splat in the browser, as rendered and fixed (extra viewer); Ctrl-C ends it.

Renders follow the mouse; where the camera rests, the picture is fixed with the photo from nearest by."""
