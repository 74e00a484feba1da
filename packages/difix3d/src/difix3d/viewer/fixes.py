"""Fixes of what pages see that stand still, made one after the other while everything else goes on.

A page wants at most one fix at a time, that of its newest picture. What becomes outdated before its turn is never
fixed; what becomes outdated while it is being fixed is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8

from splat_render.cameras import Camera

logger = logging.getLogger(__name__)


@runtime_checkable
class PictureFixer(Protocol):
    """What fixes a picture."""

    def __call__(
        self, rgb_u8: UInt8[np.ndarray, "h w 3"], T_world_cam: Float64[np.ndarray, "4 4"]
    ) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[str, ...]]:
        """The fixed picture, and the names of the photos that were its references."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedFrame:
    """A picture as it was rendered."""

    camera: Camera
    """That it was rendered with."""

    rgb_u8: UInt8[np.ndarray, "h w 3"]
    """The render."""

    render_ms: float
    """Milliseconds that it took."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedFrame:
    """A picture and its fix."""

    rendered: RenderedFrame
    """What was fixed."""

    rgb_u8: UInt8[np.ndarray, "h w 3"] | None
    """The fix; None if it failed."""

    fix_ms: float
    """Milliseconds that it took."""

    change: float = 0.0
    """Mean difference of the two, in [0, 255]; 0 where the gate believes nothing of the fix."""

    references: tuple[str, ...] = ()
    """Names of the photos that it was fixed with."""

    failure: str = ""
    """Why there is no fix."""


class LiveFixes:
    """What pages want to see fixed, and what has been; thread-safe.

    Args:
        fixer: What fixes, on the thread that calls `fix_one`.
        ready: Told the page whose fix is there.
    """

    def __init__(
        self,
        fixer: PictureFixer,
        *,
        ready: Callable[[int], None] = lambda client_id: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._fixer = fixer
        self.ready = ready
        self._clock = clock
        self._lock = threading.Condition()
        self._pending: dict[int, RenderedFrame] = {}
        self._fixed: dict[int, FixedFrame] = {}
        self._closed = False
        self._thread: threading.Thread | None = None
        self.num_dropped = 0
        """Fixes that were outdated when they were done."""

    def submit(self, client_id: int, rendered: RenderedFrame) -> None:
        """A page shows this now and wants to see it fixed, and nothing else any more."""
        with self._lock:
            self._fixed.pop(client_id, None)
            # A page that asks again stands at the end of the line.
            self._pending.pop(client_id, None)
            self._pending[client_id] = rendered
            self._lock.notify()

    def cancel(self, client_id: int | None = None) -> None:
        """This page, or every page, wants nothing fixed any more."""
        with self._lock:
            for kept in (self._pending, self._fixed):
                if client_id is None:
                    kept.clear()
                else:
                    kept.pop(client_id, None)

    def pending(self, client_id: int, camera: Camera) -> RenderedFrame | None:
        """What a page waits for, if it is seen with this camera."""
        with self._lock:
            rendered = self._pending.get(client_id)
        return rendered if rendered is not None and same_camera(rendered.camera, camera) else None

    def result(self, client_id: int, camera: Camera) -> FixedFrame | None:
        """A page's fix, if it is what this camera sees."""
        with self._lock:
            fixed = self._fixed.get(client_id)
        return fixed if fixed is not None and same_camera(fixed.rendered.camera, camera) else None

    def fix_one(self) -> bool:
        """Fix what has waited longest; false where nobody waits."""
        with self._lock:
            if not self._pending:
                return False
            client_id, rendered = next(iter(self._pending.items()))
        fixed = self._fix(rendered)
        with self._lock:
            if self._pending.get(client_id) is not rendered:
                self.num_dropped += 1
                return True
            del self._pending[client_id]
            self._fixed[client_id] = fixed
        self.ready(client_id)
        return True

    def _fix(self, rendered: RenderedFrame) -> FixedFrame:
        start = self._clock()
        try:
            rgb_u8, references = self._fixer(rendered.rgb_u8, rendered.camera.T_world_cam)
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            # The page goes on without: a photo may be damaged, or the memory too small for this size.
            logger.warning("a picture could not be fixed: %s", error)
            return FixedFrame(
                rendered=rendered, rgb_u8=None, fix_ms=0.0, failure=(str(error) or type(error).__name__).split("\n")[0]
            )
        took = self._clock() - start
        change = float(np.abs(rgb_u8.astype(np.int16) - rendered.rgb_u8).mean())
        return FixedFrame(rendered=rendered, rgb_u8=rgb_u8, fix_ms=1000 * took, change=change, references=references)

    def start(self) -> None:
        """Fix on a thread of its own from now on."""
        self._thread = threading.Thread(target=self._run, name="fixes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; a fix that is being made is waited for."""
        with self._lock:
            self._closed = True
            self._pending.clear()
            self._lock.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._closed or bool(self._pending))
                if self._closed:
                    return
            self.fix_one()


def same_camera(a: Camera, b: Camera) -> bool:
    """Whether two cameras take the same picture."""
    return (
        (a.width, a.height) == (b.width, b.height)
        and np.array_equal(a.T_world_cam, b.T_world_cam)
        and np.array_equal(a.K, b.K)
    )
