"""PNG files with 16 bits per channel, which pillow reads with 8 only."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numba import njit

from diffsplat.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NUM_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Channels by PNG's color type; palettes have 8 bits at most."""


def is_png(path: Path) -> bool:
    """Whether a file holds a PNG image, whatever its name says."""
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


@njit(cache=True)
def _unfiltered(rows: np.ndarray, step: int) -> np.ndarray:
    """Undo PNG's prediction of bytes; `rows` begin with the filter's number, `step` is the bytes of a pixel."""
    height, width = rows.shape[0], rows.shape[1] - 1
    out = np.zeros((height, width), np.uint8)
    for row in range(height):
        kind = rows[row, 0]
        for column in range(width):
            left = int(out[row, column - step]) if column >= step else 0
            above = int(out[row - 1, column]) if row > 0 else 0
            corner = int(out[row - 1, column - step]) if row > 0 and column >= step else 0
            guess = 0
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = above
            elif kind == 3:
                guess = (left + above) // 2
            elif kind == 4:
                to_left, to_above = abs(above - corner), abs(left - corner)
                to_corner = abs(left + above - 2 * corner)
                if to_left <= to_above and to_left <= to_corner:
                    guess = left
                elif to_above <= to_corner:
                    guess = above
                else:
                    guess = corner
            out[row, column] = (int(rows[row, column + 1]) + guess) & 255
    return out


def read_deep_png(path: Path) -> np.ndarray:
    """A PNG of 16 bits per channel as [height width channels] uint16.

    Raises:
        InputError: It is missing, damaged, or of another kind.
    """
    try:
        content = path.read_bytes()
        if content[:8] != SIGNATURE:
            raise InputError(f"{path} is no PNG file")
        position, packed, header = 8, b"", b""
        while position < len(content):
            (length,) = struct.unpack(">I", content[position : position + 4])
            kind, body = content[position + 4 : position + 8], content[position + 8 : position + 8 + length]
            position += 12 + length
            header = body if kind == b"IHDR" else header
            packed += body if kind == b"IDAT" else b""
        width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
        if depth != 16 or color not in NUM_CHANNELS or interlaced:
            raise InputError(f"{path} has {depth} bits per channel or is interlaced: plain 16-bit PNG is needed")
        channels = NUM_CHANNELS[color]
        rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + 2 * width * channels)
    except (OSError, struct.error, zlib.error) as error:
        raise InputError(f"{path} cannot be read as PNG: {error}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is truncated") from error
    values = _unfiltered(rows, 2 * channels).reshape(height, width, channels, 2)
    return (values[..., 0].astype(np.uint16) << 8) | values[..., 1]
