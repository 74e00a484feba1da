"""The color behind a splat, kept with its file.

No splat format has a field for it, and viewers show black or what their user chose. A splat that was trained before
another color looks wrong then wherever it is not opaque. So a PLY file says it in a line of its header, and the formats
without words have a JSON file beside them. For viewers that read neither, `splat_render.shell` puts it into the splat.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from splat_render.errors import InputError

Background = tuple[float, float, float]
"""sRGB in [0, 1]."""

BLACK: Background = (0.0, 0.0, 0.0)
"""What a file stands before that says nothing."""

COMMENT = "BackgroundColor:"
"""Beginning of the line in the header of a PLY file; three numbers in [0, 1] follow."""

SIDECAR_ENDING = ".background.json"
"""What is added to a file's name for the JSON beside it."""

SIDECAR_KEY = "background_color"
"""Its entry."""


def background_comments(background: Background | None) -> list[str]:
    """The lines of a PLY header: none for black, which is what readers take anyway."""
    return [] if background in (None, BLACK) else [" ".join([COMMENT, *(f"{value:.6g}" for value in background or ())])]


def background_in(comments: Sequence[str], path: Path) -> Background | None:
    """The color that the lines of a PLY header name; None without one."""
    for line in comments:
        if line.strip().startswith(COMMENT):
            return _checked(line.strip().removeprefix(COMMENT).split(), path)
    return None


def write_background_sidecar(path: Path, background: Background | None) -> None:
    """Write the JSON file beside a splat file; for black, remove what an earlier splat of that name left."""
    beside = path.with_name(path.name + SIDECAR_ENDING)
    try:
        if background not in (None, BLACK):
            beside.write_text(json.dumps({SIDECAR_KEY: list(background or ())}) + "\n", encoding="utf-8")
        elif beside.is_file() and SIDECAR_KEY in beside.read_text(encoding="utf-8", errors="replace"):
            beside.unlink()
    except OSError as error:
        raise InputError(f"cannot write {beside}: {error.strerror or error}") from None


def read_background_sidecar(path: Path) -> Background | None:
    """The color that the JSON file beside a splat file names; None without such a file."""
    beside = path.with_name(path.name + SIDECAR_ENDING)
    if not beside.is_file():
        return None
    try:
        values = json.loads(beside.read_text(encoding="utf-8"))[SIDECAR_KEY]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f'{beside} does not hold "{SIDECAR_KEY}" ({error!r}): repair or remove it') from None
    return _checked(values, beside)


def _checked(values: object, path: Path) -> Background:
    try:
        red, green, blue = (float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        red = green = blue = -1.0
    if not all(0 <= value <= 1 for value in (red, green, blue)):
        raise InputError(f"{path}: its background {values} is not three numbers in [0, 1]: repair or remove it")
    return red, green, blue
