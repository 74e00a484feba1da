"""Which picture a page gets: the render at once, the fix when it is ready."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from difix3d.viewer.config import MODES, FixMode
from difix3d.viewer.fixes import FixedFrame, LiveFixes, RenderedFrame
from difix3d.viewer.pictures import bar_height, half_camera, side_by_side
from splat_recon.pages.view_requests import SHOWN, Render, RenderRequest, rendered_picture
from splat_render.cameras import Camera


class FixComposer:
    """Shows renders while a page moves, and their fixes where it rests."""

    def __init__(
        self,
        fixes: LiveFixes,
        *,
        mode: FixMode = "side-by-side",
        set_status: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._fixes = fixes
        self._mode = mode
        self.set_status = set_status
        self._clock = clock

    @property
    def mode(self) -> str:
        """One of `MODES`."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        self._mode = mode
        self._fixes.cancel()

    def cancel(self, client_id: int) -> None:
        """A page was closed."""
        self._fixes.cancel(client_id)

    def compose(self, request: RenderRequest, render: Render) -> UInt8[np.ndarray, "h w 3"]:
        """The picture that a page gets now; one that stands still is handed on to be fixed."""
        mode = self._mode
        if request.shown != SHOWN[0] or mode == "off":
            self._fixes.cancel(request.client_id)
            rendered = self._rendered(request.camera, render, request.shown)
            self.set_status(f"{_size(rendered)}; render {rendered.render_ms:.0f} ms")
            return rendered.rgb_u8
        halves = mode == "side-by-side"
        camera = half_camera(request.camera) if halves else request.camera
        fixed = self._fixes.result(request.client_id, camera)
        rendered = self._fixes.pending(request.client_id, camera) if fixed is None else fixed.rendered
        if rendered is None:
            rendered = self._rendered(camera, render, request.shown)
            if request.is_full:
                self._fixes.submit(request.client_id, rendered)
            else:
                self._fixes.cancel(request.client_id)
        self.set_status(_line(rendered, fixed, is_full=request.is_full))
        right = rendered.rgb_u8 if fixed is None or fixed.rgb_u8 is None else fixed.rgb_u8
        if not halves:
            return right
        labels = (f"as rendered, {rendered.render_ms:.0f} ms", _state(fixed, is_full=request.is_full))
        return side_by_side(rendered.rgb_u8, right, labels, bar_height(request.camera.height))

    def _rendered(self, camera: Camera, render: Render, shown: str) -> RenderedFrame:
        start = self._clock()
        # Taking the picture off the device waits until it is rendered.
        rgb_u8 = rendered_picture(render(camera), shown)
        return RenderedFrame(camera=camera, rgb_u8=rgb_u8, render_ms=1000 * (self._clock() - start))


def _state(fixed: FixedFrame | None, *, is_full: bool) -> str:
    if fixed is None:
        return "fixing: still as rendered" if is_full else "moving: as rendered"
    if fixed.rgb_u8 is None:
        return "no fix: as rendered"
    return f"fixed, {fixed.fix_ms:.0f} ms{'' if fixed.change else ': nothing changed'}"


def _size(rendered: RenderedFrame) -> str:
    return f"{rendered.camera.width} x {rendered.camera.height} pixels"


def _line(rendered: RenderedFrame, fixed: FixedFrame | None, *, is_full: bool) -> str:
    """About a picture, in Markdown."""
    begun = f"{_size(rendered)}; render {rendered.render_ms:.0f} ms"
    if fixed is None:
        return f"{begun}; {'fixing ...' if is_full else 'moving'}"
    if fixed.rgb_u8 is None:
        return f"{begun}; **no fix**: {fixed.failure}"
    references = f"reference {', '.join(fixed.references)}" if fixed.references else "no reference"
    return f"{begun}; **fix {fixed.fix_ms:.0f} ms**; {references}; mean change {fixed.change:.2f} of 255"
