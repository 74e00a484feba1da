"""What the pages of the reports share: one style, pictures inside the page, parts in the place of comments."""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from splat_recon.config_values import flattened

MAX_PICTURE_PX = 640
"""Longer side of a picture in a page."""

JPEG_QUALITY = 92
"""Of the pictures in a page."""

_STYLE = Path(__file__).with_name("page_style.css")


def filled(template: Path, parts: Mapping[str, str]) -> str:
    """A page: the template with the shared style, and each part in the place of its comment ``<!--name-->``."""
    page = template.read_text(encoding="utf-8")
    for name, part in {"style": _STYLE.read_text(encoding="utf-8"), **parts}.items():
        page = page.replace(f"<!--{name}-->", part)
    return page


def embedded_image(rgb_u8: UInt8[np.ndarray, "h w 3"], alt: str, max_px: int = MAX_PICTURE_PX) -> str:
    """An image element that holds its picture, scaled down to at most `max_px` on its longer side."""
    picture = Image.fromarray(rgb_u8)
    picture.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{data}">'


def settings_table(settings: Mapping[str, object]) -> str:
    """Names and values as a table, those of nested configs with the outer name before theirs."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in flattened(settings).items()
    )
    return f'<table class="settings">{rows}</table>'


def spread(count: int, most: int) -> list[int]:
    """At most so many indices of `count` things, evenly spread from the first to the last."""
    return sorted({round(float(index)) for index in np.linspace(0, count - 1, min(count, most))})
