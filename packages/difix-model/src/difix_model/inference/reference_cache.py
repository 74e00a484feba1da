"""References as the network needs them, and their latents kept from call to call."""

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Hashable
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from difix_model.images import colors, on_device, resized

DEFAULT_CACHE_BYTES = 256 * 2**20
"""Room for latents: about 1700 references of 1024x576 in float32 with the released architecture."""


_NUMBERS = WeakTensorKeyDictionary()
_NEXT_NUMBER = itertools.count()


def _number(tensor: Tensor) -> int:
    """A number of its own for each tensor, for as long as it lives."""
    if tensor not in _NUMBERS:
        _NUMBERS[tensor] = next(_NEXT_NUMBER)
    return _NUMBERS[tensor]


class ReferenceImage:
    """A reference in the size of the image that it helps to fix.

    A reference of another size is resized to exactly the image's size, as in the released code: one of another shape
    is thus stretched, and the whole of it is seen.

    Args:
        pixels: uint8, uint16 or float in [0, 1]; gray, RGB, with alpha or without. On any device.
    """

    def __init__(self, pixels: Shaped[Tensor, "h w c"], height: int, width: int) -> None:
        self.pixels = pixels
        self.height = height
        self.width = width
        self._resized: Tensor | None = None

    @cached_property
    def key(self) -> Hashable:
        """What identifies the content, its type and shape, and the wanted size.

        On the CPU a hash of the pixels. On a GPU the tensor itself, as long as nobody writes to it: to read it back and
        to hash it would take longer than to encode it again.
        """
        pixels = self.pixels
        form = (pixels.dtype, tuple(pixels.shape), self.height, self.width)
        if pixels.device.type != "cpu" and not pixels.is_inference():
            whole = pixels if pixels._base is None else pixels._base
            return (_number(whole), whole._version, pixels.storage_offset(), pixels.stride(), *form)
        content = hashlib.blake2b(digest_size=16)
        content.update(pixels.contiguous().view(torch.uint8).cpu().numpy().data)
        return (content.digest(), *form)

    def region(self, rows: slice, columns: slice, device: torch.device | None = None) -> Float[Tensor, "h2 w2 c=3"]:
        """Return a part of the resized reference as RGB in [0, 1], on a device; None leaves it where it is."""
        place = self.pixels.device if device is None else device
        if self.pixels.shape[:2] == (self.height, self.width):
            return colors(on_device(self.pixels[rows, columns], place))
        if self._resized is None or self._resized.device != place:
            # Bytes travel faster than floats, and a GPU resizes faster.
            self._resized = resized(colors(on_device(self.pixels, place))[None], self.height, self.width)[0]
        return self._resized[rows, columns]


class ReferenceCache:
    """Latents by key, in bounded memory: what was not used for longest goes first.

    Args:
        max_bytes: Room for latents; 0 keeps none.
    """

    def __init__(self, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be at least 0, got {max_bytes}")
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._latents: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __len__(self) -> int:
        """Return how many latents are kept."""
        return len(self._latents)

    def get(self, key: Hashable) -> Tensor | None:
        """Return what was put under this key, if it is still there."""
        found = self._latents.get(key)
        if found is not None:
            self._latents.move_to_end(key)
        return found

    def put(self, key: Hashable, z: Float[Tensor, "c h w"]) -> None:
        """Keep a latent; it is copied, so that it holds no larger tensor in memory."""
        size = z.numel() * z.element_size()
        if size > self.max_bytes:
            return
        self._drop(key)
        while self.num_bytes + size > self.max_bytes:
            self._drop(next(iter(self._latents)))
        self._latents[key] = z.clone()
        self.num_bytes += size

    def clear(self) -> None:
        """Forget everything."""
        self._latents.clear()
        self.num_bytes = 0

    def _drop(self, key: Hashable) -> None:
        dropped = self._latents.pop(key, None)
        if dropped is not None:
            self.num_bytes -= dropped.numel() * dropped.element_size()
