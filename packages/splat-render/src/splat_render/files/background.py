"""The color behind a splat, kept with its file.

No splat format has a field for it, and viewers show black or what their user chose. A splat that was trained before
another color looks wrong then wherever it is not opaque. So a PLY file says it in a line of its header, and the formats
without words have a JSON file beside them. For viewers that read neither, `splat_render.shell` puts it into the splat.
"""

from splat_render.files.three_numbers import ThreeNumbers

Background = tuple[float, float, float]
"""sRGB in [0, 1]."""

BLACK: Background = (0.0, 0.0, 0.0)
"""What a file stands before that says nothing."""

BACKGROUND = ThreeNumbers(
    name="background",
    wanted="three numbers in [0, 1]",
    comment="BackgroundColor:",
    ending=".background.json",
    key="background_color",
    usual=BLACK,
    fits=lambda value: 0 <= value <= 1,
    shown=lambda value: f"{value:.6g}",
)
"""How a splat file says it."""
