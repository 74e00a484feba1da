"""What to do when memory runs out: fewer images at a time, then tiles, then smaller tiles; each step said and kept."""

import gc
import logging
from dataclasses import dataclass

import torch

from difix_model.errors import InputError
from difix_model.inference.tiling import MIN_TILE_SIZE

logger = logging.getLogger(__name__)

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "failed to allocate")
"""What RuntimeErrors say, in lower case, that mean the same as OutOfMemoryError: from the CPU, cuDNN, cuBLAS, MPS."""


class NotEnoughMemoryError(InputError):
    """Even the smallest tile does not fit into memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What is sent through the network at once."""

    batch: int
    """Images or tiles."""

    height: int
    """Rows of each."""

    width: int
    """Columns of each."""

    views: int
    """The render and its references."""

    @property
    def pixels(self) -> int:
        """Pixels of all views of all images or tiles."""
        return self.batch * self.pixels_of_one

    @property
    def pixels_of_one(self) -> int:
        """Pixels of all views of one image or tile."""
        return self.height * self.width * self.views


class MemoryBudget:
    """How many pixels fit through the network at once, as learned from running out of memory."""

    def __init__(self) -> None:
        self.max_pixels: int | None = None

    def batch_size(self, wanted: int, load: Load) -> int:
        """Return how many images or tiles like the one of `load` to run at a time."""
        return wanted if self.max_pixels is None else max(1, min(wanted, self.max_pixels // load.pixels_of_one))

    def fits(self, load: Load) -> bool:
        """Tell whether one image or tile like that of `load` may be tried, after all that is known."""
        return self.max_pixels is None or load.pixels_of_one <= self.max_pixels

    def lower(self, failed: Load) -> None:
        """Take in that memory ran out, say what follows, and free what can be freed.

        Raises:
            NotEnoughMemoryError: If a single tile of the smallest size failed.
        """
        views = "" if failed.views == 1 else f" with {_counted(failed.views - 1, 'reference')}"
        size = f"{failed.width}x{failed.height}{views}"
        if failed.batch > 1:
            fewer = failed.batch // 2
            self.max_pixels = fewer * failed.pixels_of_one
            logger.warning("out of memory with %d times %s at a time: going on with %d", failed.batch, size, fewer)
        elif max(failed.height, failed.width) > MIN_TILE_SIZE:
            self.max_pixels = failed.pixels_of_one // 2
            logger.warning("out of memory with %s: going on in tiles of at most half as many pixels", size)
        else:
            raise NotEnoughMemoryError(
                f"there is not enough memory even for {size} at a time: close other programs, use fewer references, "
                "half precision (bfloat16), or a device with more memory"
            )
        release_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def release_memory() -> None:
    """Give back what nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
