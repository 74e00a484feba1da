"""What the people at a viewer's page want to see, drawn in turn and within a fraction of the time.

Nothing here knows the server: a client is anything with a camera and a place for a picture, so that tests can be one.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from splat_recon.io.images import to_u8
from splat_recon.pages.pictures import depth_colors
from splat_render.cameras import Camera
from splat_render.output import RenderOutput
from splat_render.poses import matrix_from_quat_wxyz, rigid

Render = Callable[[Camera], RenderOutput]

SHOWN = ("colors", "depth", "opacity")
"""What a page can show."""

MOVING_PX = 320
"""Longer side of a picture while its camera moves, at most."""

SETTLED_SECONDS = 0.25
"""Time without a movement after which a picture is drawn in full."""


@runtime_checkable
class Client(Protocol):
    """A page: viser's `ClientHandle`, as far as it is used here."""

    @property
    def camera(self) -> Any:
        """With `wxyz`, `position`, `fov` (vertical, in radians), `image_width` and `image_height`."""
        ...

    @property
    def scene(self) -> Any:
        """With `set_background_image`."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderRequest:
    """A picture that a page is to get."""

    client_id: int
    """Of the page."""

    camera: Camera
    """With the sides of the page, at most as large as a picture may be."""

    shown: str
    """One of `SHOWN`."""

    is_full: bool
    """Whether the page stands still, and this is what it will show until it moves."""


@runtime_checkable
class Composer(Protocol):
    """Makes the pictures, on the thread that draws."""

    def compose(self, request: RenderRequest, render: Render) -> UInt8[np.ndarray, "h w 3"]:
        """The picture; it is stretched over the page, and should have the camera's sides."""
        ...

    def cancel(self, client_id: int) -> None:
        """A page was closed."""
        ...


class PlainComposer:
    """Shows the renders as they are."""

    def compose(self, request: RenderRequest, render: Render) -> UInt8[np.ndarray, "h w 3"]:
        """Render."""
        return rendered_picture(render(request.camera), request.shown)

    def cancel(self, client_id: int) -> None:
        """Nothing was kept."""


@dataclass
class _Request:
    client: Client
    moved_at: float
    is_full: bool = False
    is_due: bool = True


class ViewRequests:
    """The pictures that are due, thread-safe: pages ask from the server's threads, one thread draws.

    Args:
        max_px: Longer side of a picture, at most.
        time_fraction: Part of the time that drawing may take, in (0, 1].
        composer: What makes the pictures; None shows the renders as they are.
        jpeg_quality: Of the pictures of pages that stand still, in percent.
    """

    def __init__(
        self,
        *,
        max_px: int = 1024,
        time_fraction: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        composer: Composer | None = None,
        jpeg_quality: int = 85,
    ) -> None:
        self._clock = clock
        self._composer = PlainComposer() if composer is None else composer
        self._jpeg_quality = jpeg_quality
        self.max_px = max_px
        self.shown = SHOWN[0]
        self._time_fraction = time_fraction
        self._requests: dict[int, _Request] = {}
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.asked = threading.Event()

    def ask(self, client_id: int, client: Client) -> None:
        """A page's camera has moved, or the page is new."""
        with self._lock:
            self._requests[client_id] = _Request(client=client, moved_at=self._clock())
        self.asked.set()

    def ask_again(self, client_id: int | None = None) -> None:
        """Everything looks different now: all pages, or this one if it is still there, want another picture."""
        with self._lock:
            for number, request in self._requests.items():
                if client_id in (None, number):
                    request.is_full, request.is_due = False, True
        self.asked.set()

    def cancel(self, client_id: int) -> None:
        """A page was closed."""
        with self._lock:
            self._requests.pop(client_id, None)
        self._composer.cancel(client_id)

    @property
    def num_clients(self) -> int:
        """Pages that are open."""
        return len(self._requests)

    def draw_one(self, render: Render) -> bool:
        """Draw the picture that has waited longest, if one is due and the fraction of the time allows it.

        Returns:
            Whether one was drawn.
        """
        start = self._clock()
        if start < self._free_at:
            return False
        client_id, request, full = self._next(start)
        if request is None:
            return False
        camera = camera_of(request.client.camera, self.max_px if full else min(self.max_px, MOVING_PX))
        if camera is not None:
            asked = RenderRequest(client_id=client_id, camera=camera, shown=self.shown, is_full=full)
            request.client.scene.set_background_image(
                self._composer.compose(asked, render), format="jpeg", jpeg_quality=self._jpeg_quality if full else 60
            )
        took = self._clock() - start
        # A fraction of a quarter means three times as long a pause as the drawing took.
        self._free_at = self._clock() + took * (1 / self._time_fraction - 1)
        return True

    def _next(self, now: float) -> tuple[int, _Request | None, bool]:
        with self._lock:
            waiting = [entry for entry in self._requests.items() if entry[1].is_due]
            if waiting:
                client_id, request = min(waiting, key=lambda entry: entry[1].moved_at)
                request.is_due = False
                # A page that stands still gets its picture in full at once.
                request.is_full = now - request.moved_at > SETTLED_SECONDS
                return client_id, request, request.is_full
            for client_id, request in self._requests.items():
                if not request.is_full and now - request.moved_at > SETTLED_SECONDS:
                    request.is_full = True
                    return client_id, request, True
            self.asked.clear()
            return -1, None, False

    @property
    def is_settled(self) -> bool:
        """Whether every page has its picture in full."""
        with self._lock:
            return all(request.is_full and not request.is_due for request in self._requests.values())


def camera_of(camera: Any, max_px: int) -> Camera | None:
    """The pinhole camera of a page, at most `max_px` on its longer side; None before the page has told its size."""
    width, height, fov = int(camera.image_width), int(camera.image_height), float(camera.fov)
    wxyz, position = np.array(camera.wxyz, dtype=np.float64), np.array(camera.position, dtype=np.float64)
    usable = width > 0 and height > 0 and 0 < fov < math.pi and np.isfinite(position).all()
    if not usable or not np.isfinite(wxyz).all() or np.linalg.norm(wxyz) < 1e-9:
        return None
    scale = min(1.0, max_px / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    focal = 0.5 * height / math.tan(0.5 * fov)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    rotation = matrix_from_quat_wxyz(wxyz / np.linalg.norm(wxyz))
    return Camera(T_world_cam=rigid(rotation, position), K=K, width=width, height=height)


def rendered_picture(out: RenderOutput, shown: str = SHOWN[0]) -> UInt8[np.ndarray, "h w 3"]:
    """A render's colors, depth or opacity, as a picture."""
    if shown == "opacity":
        return to_u8(out.alpha.expand(-1, -1, 3))
    if shown == "depth":
        depth, alpha = (values[..., 0].detach().cpu().numpy() for values in (out.depth, out.alpha))
        solid = depth[(alpha > 0.5) & (depth > 0)]
        near, far = np.percentile(solid, [2, 98]) if solid.size else (1.0, 2.0)
        return depth_colors(depth, alpha, float(near), max(float(far), float(near) * 1.01))
    return to_u8(out.rgb)
