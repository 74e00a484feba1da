"""Photos that are decoded when they are looked at, within a budget of memory."""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, UInt8

from splat_recon.scene.scene import View

DEFAULT_PHOTO_BYTES = 4 * 2**30
"""Decoded photos that a store keeps at once, in bytes, unless told otherwise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixels:
    """A decoded photo. Its arrays are shared by everyone who looks at it and are not to be written to."""

    rgb_u8: UInt8[np.ndarray, "h w 3"]
    """The photo, sRGB bytes."""

    mask: Bool[np.ndarray, "h w"] | None = None
    """True where the photo is valid; None where all of it is."""

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        return self.rgb_u8.nbytes + (0 if self.mask is None else self.mask.nbytes)


class PhotoStore:
    """Decoded photos, the most recently used ones, never more than a number of bytes of them together.

    A photo that is not held is decoded again: decoding gives the same bytes each time, so the budget changes how fast
    things are and nothing else. Several threads may use a store at once. A photo larger than the whole budget is
    handed out and not kept.

    Args:
        max_bytes: The budget, at least 0.
    """

    def __init__(self, max_bytes: int = DEFAULT_PHOTO_BYTES) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be at least 0, got {max_bytes}")
        self.max_bytes = max_bytes
        self.bytes_held = 0
        self.peak_bytes_held = 0
        self.num_decoded = 0
        self._held: OrderedDict[int, Pixels] = OrderedDict()
        self._coming: dict[int, Future[Pixels]] = {}
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._ahead: ThreadPoolExecutor | None = None

    def photo(self, decode: Callable[[], Pixels]) -> "StoredPhoto":
        """A photo of this store.

        Args:
            decode: Makes its pixels, the same ones each time; may be called from any thread.
        """
        return StoredPhoto(self, next(self._keys), decode)

    def pixels(self, photo: "StoredPhoto") -> Pixels:
        """The pixels of a photo, decoded if they are not held."""
        with self._lock:
            held = self._held.get(photo.key)
            if held is not None:
                self._held.move_to_end(photo.key)
                return held
            coming = self._coming.get(photo.key)
        if coming is not None:
            return coming.result()
        # Decoded outside the lock, so that threads decode side by side.
        return self._decoded(photo)

    def _decoded(self, photo: "StoredPhoto") -> Pixels:
        pixels = photo.decode()
        with self._lock:
            self.num_decoded += 1
            self._keep(photo.key, pixels)
        return pixels

    def _keep(self, key: int, pixels: Pixels) -> None:
        if key in self._held or pixels.num_bytes > self.max_bytes:
            return
        while self._held and self.bytes_held + pixels.num_bytes > self.max_bytes:
            _, oldest = self._held.popitem(last=False)
            self.bytes_held -= oldest.num_bytes
        self._held[key] = pixels
        self.bytes_held += pixels.num_bytes
        self.peak_bytes_held = max(self.peak_bytes_held, self.bytes_held)

    def prefetch(self, photo: "StoredPhoto") -> None:
        """Start decoding a photo that is about to be wanted, in a thread of its own; does nothing where it is held."""
        with self._lock:
            if photo.key in self._held or photo.key in self._coming or self.max_bytes == 0:
                return
            if self._ahead is None:
                self._ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="photos")
            # An error of the decoding reaches whoever asks for the photo while it is coming; later ones decode again.
            future = self._coming[photo.key] = self._ahead.submit(self._decoded, photo)
        future.add_done_callback(lambda _: self._arrived(photo.key))

    def _arrived(self, key: int) -> None:
        with self._lock:
            self._coming.pop(key, None)


@dataclass(frozen=True, eq=False)
class StoredPhoto:
    """A photo of a store, whether it is held at the moment or not; made by `PhotoStore.photo`."""

    store: PhotoStore
    """Where it is kept while there is room."""

    key: int
    """Its number in the store."""

    decode: Callable[[], Pixels]
    """Makes its pixels."""

    @property
    def pixels(self) -> Pixels:
        """The decoded photo."""
        return self.store.pixels(self)

    def prefetch(self) -> None:
        """Decode it in the background."""
        self.store.prefetch(self)

    def changed(self, change: Callable[[Pixels], Pixels]) -> "StoredPhoto":
        """The photo with something done to its pixels each time it is decoded."""
        decode = self.decode
        return self.store.photo(lambda: change(decode()))


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredView(View):
    """A view whose photo and mask are decoded when they are looked at: a `View` to all who use one."""

    rgb_u8: UInt8[np.ndarray, "h w 3"] = field(init=False, repr=False)
    """The photo, sRGB bytes, without distortion; decoded at each look if the store has no room for it."""

    mask: Bool[np.ndarray, "h w"] | None = field(init=False, repr=False)
    """True where the photo is valid; None where all of it is."""

    photo: StoredPhoto
    """Makes the pixels, of the camera's size."""

    def __post_init__(self) -> None:
        """Nothing: pixels are checked when they are decoded for the first time."""

    def prefetch(self) -> None:
        """Start to decode the photo in the background, if it is not held."""
        self.photo.prefetch()


# A dataclass takes a property in its body for a default value; set afterwards, the fields above become properties.
StoredView.rgb_u8 = property(lambda view: view.photo.pixels.rgb_u8)  # pyright: ignore[reportAttributeAccessIssue]
StoredView.mask = property(lambda view: view.photo.pixels.mask)  # pyright: ignore[reportAttributeAccessIssue]
