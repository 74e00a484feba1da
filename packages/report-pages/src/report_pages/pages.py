"""Pages from Jinja2 templates, with one style, and pictures inside the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from report_pages.pictures import shrunk

MAX_PICTURE_PX = 640
"""Longer side of a picture in a page."""

JPEG_QUALITY = 92
"""Of the pictures in a page."""

_TEMPLATES = Path(__file__).with_name("templates")


def filled(template: Path, **values: Any) -> str:
    """A page.

    Args:
        template: A Jinja2 template; it may extend `page.html` and import `tables.html`, which are this package's.
        values: What it shows. Text is escaped, `markupsafe.Markup` is not.

    Raises:
        jinja2.TemplateError: The template is wrong, or names a value that is not given.
    """
    loader = FileSystemLoader([template.parent, _TEMPLATES])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)


def embedded_image(rgb_u8: UInt8[np.ndarray, "h w 3"], alt: str, max_px: int = MAX_PICTURE_PX) -> Markup:
    """An image element that holds its picture, scaled down to at most `max_px` on its longer side."""
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(shrunk(rgb_u8, max_px))
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img alt="{}" src="data:image/jpeg;base64,{}">').format(alt, data)
