"""Damage to files: bytes, truncation, splices, counts, tokens and lines of texts, and what is inside gzip."""

from __future__ import annotations

import gzip
import re
import struct
import zlib

import numpy as np

WORST = ["NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "-0.0", "9" * 400, "9" * 5000, "4294967296", "1e-320",
         "null", "true", "[]", "{}", '""', "[" * 100_000, '{"a":' * 3000, "\\", "\0", "\u00e9", "\ud800", "x" * 70_000,
         "../../a", "/dev/zero", "nan", "inf", "0x10", "1_000", "\u0661", " ", "\n", "#"]  # fmt: skip
"""What a token of a text is replaced by."""

EXTREMES = [0, 1, -1, 127, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, 2**63 - 1]

TOKEN = re.compile(rb"[-+.\w]+|\S")


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file's content once or a few times."""
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        try:
            return gzip.compress(mutated(gzip.decompress(content), rng), 1, mtime=0)
        except (OSError, EOFError, zlib.error):
            pass
    textual = _is_text(content)
    for _ in range(int(rng.integers(1, 4))):
        kinds = [_bytes, _truncated, _spliced, _counts]
        # Headers of binary files are texts, too.
        kinds += [_token] * (6 if textual else 2) + [_lines] * (2 if textual else 0)
        content = kinds[int(rng.integers(len(kinds)))](content, rng)
    return content


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def _place(length: int, rng: np.random.Generator) -> int:
    """Near the beginning more often than elsewhere."""
    reach = length if rng.random() < 0.5 else min(length, 200)
    return int(rng.integers(0, max(reach, 1)))


def _bytes(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 12))):
        if data:
            data[_place(len(data), rng)] = int(rng.integers(0, 256))
    return bytes(data)


def _truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(0, len(content) + 1))]


def _spliced(content: bytes, rng: np.random.Generator) -> bytes:
    place, length = _place(len(content), rng), int(rng.integers(1, 40))
    match int(rng.integers(3)):
        case 0:
            return content[:place] + content[place + length :]
        case 1:
            return content[:place] + rng.integers(0, 256, length, dtype=np.uint8).tobytes() + content[place:]
        case _:
            return content[: place + length] + content[place:]


def _counts(content: bytes, rng: np.random.Generator) -> bytes:
    value = int(rng.choice(np.array(EXTREMES, dtype=object)))
    order, width = "<>"[int(rng.integers(2))], int(rng.choice([1, 2, 4, 8]))
    if rng.random() < 0.3:
        packed = struct.pack(f"{order}d", rng.choice([np.nan, np.inf, -np.inf, 1e308, 1e-320]))
    else:
        packed = (value % (1 << 8 * width)).to_bytes(width, "little" if order == "<" else "big")
    place = _place(len(content), rng)
    if rng.random() < 0.7:
        place -= place % len(packed)
    return content[:place] + packed + content[place + len(packed) :]


def _token(content: bytes, rng: np.random.Generator) -> bytes:
    reach = content if _is_text(content) else content[:4000]
    found = list(TOKEN.finditer(reach))
    if not found:
        return content
    if rng.random() < 0.5:
        # Numbers decide more than words do.
        found = [one for one in found if one[0][-1:].isdigit()] or found
    token = found[int(rng.integers(len(found)))]
    worst = WORST[int(rng.integers(len(WORST)))].encode("utf-8", "surrogatepass")
    return content[: token.start()] + worst + content[token.end() :]


def _lines(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) < 2:
        return content
    one, other = (int(index) for index in rng.integers(0, len(lines), 2))
    match int(rng.integers(3)):
        case 0:
            del lines[one]
        case 1:
            lines.insert(one, lines[other])
        case _:
            lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)
