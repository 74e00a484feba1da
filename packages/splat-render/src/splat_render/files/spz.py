"""SPZ, Niantic's compressed splats: version 3 is written, versions 2 and 3 are read.

A gzip stream: a header of 16 bytes, then, one after another for all Gaussians, positions (24-bit fixed point),
opacities, colors, logarithms of scales (steps of 1/16), rotations (version 3: which component is largest and the
others in 10 bits; version 2: x y z in 8 bits) and spherical harmonics in bytes over [-1, 1), color channels innermost.
The axes in the file are OpenGL's (x right, y up, z backward); Gaussians here have COLMAP's (y down, z forward).
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from output_files import written_whole
from splat_render.errors import InputError
from splat_render.files.quantized import MAX_SMALLER, SplatArrays, to_u8, with_largest, without_largest
from splat_render.files.whole_file import read_bytes
from splat_render.gaussians import Gaussians
from splat_render.transform import harmonic_rotation

MAGIC, VERSION = 0x5053474E, 3
"""First entries of the header: the letters NGSP, and the version that is written."""

HEADER = struct.Struct("<IIIBBBB")
"""Magic, version, number of Gaussians, SH degree, fractional bits, flags, reserved."""

FLAG_ANTIALIASED = 1
"""The splats are made for rendering with compensation for the screen-space blur."""

FLAG_EXTENDED = 2
"""More follows after the Gaussians, which is left out of account."""

MOST_SWOLLEN = 60
"""Splats are noise to gzip, which makes them two to five times smaller; what claims to be packed beyond this lies."""

CREDIBLE_BYTES = 64 << 20
"""So much may be claimed by any file."""

COLOR_SCALE = 0.15
"""Coefficients of degree 0 are stored times this, so that colors somewhat out of range survive."""

MAX_FRACTIONAL_BITS = 16
"""Positions are stored as finely as their range allows, up to steps of 2^-16."""

SH_STEPS = {1: 8, 2: 16, 3: 16}
"""Coefficients of each degree are rounded to multiples of so many 128ths, which is what makes the files small."""

NUM_RESTS = {0: 0, 1: 3, 2: 8, 3: 15, 4: 24}
"""Coefficients from degree 1 on, by degree."""

_AXES = np.array([1.0, -1.0, -1.0])
_QUAT_AXES = np.array([1.0, 1.0, -1.0, -1.0])


def write_spz(path: Path | str, gaussians: Gaussians, *, antialiased: bool = False) -> None:
    """Write Gaussians in COLMAP's axes as SPZ version 3.

    Scales are limited to exp(-10) .. exp(5.9375), spherical harmonics to [-1, 1).

    Raises:
        InputError: The file cannot be written, a value is not finite, or a position is beyond 2^23.
    """
    arrays = SplatArrays.of(gaussians)
    n, num_rest = arrays.sh_rest.shape[:2]
    bits = _fractional_bits(arrays.means)
    fixed = np.round(arrays.means.astype(np.float64) * _AXES * 2.0**bits).astype(np.int64)
    fixed = np.clip(fixed, -(2**23), 2**23 - 1)
    positions = np.ascontiguousarray(fixed.astype("<i4")).view(np.uint8).reshape(n, 3, 4)[..., :3]
    degree = gaussians.sh_degree_max
    flags = FLAG_ANTIALIASED if antialiased else 0
    content = b"".join(
        [
            HEADER.pack(MAGIC, VERSION, n, degree, bits, flags, 0),
            np.ascontiguousarray(positions).tobytes(),
            to_u8(arrays.opacities * 255).tobytes(),
            to_u8((arrays.sh0 * COLOR_SCALE + 0.5) * 255).tobytes(),
            to_u8((arrays.log_scales + 10) * 16).tobytes(),
            _packed_rotations(arrays.quats_wxyz * _QUAT_AXES).astype("<u4").tobytes(),
            _packed_harmonics(arrays.sh_rest * _harmonic_signs(degree)[:num_rest, None], degree).tobytes(),
        ]
    )
    with written_whole(Path(path)) as partial:
        # No time stamp: the same Gaussians are the same bytes.
        partial.write_bytes(gzip.compress(content, mtime=0))


def _fractional_bits(means: np.ndarray) -> int:
    largest = float(np.abs(means).max()) if len(means) else 0.0
    for bits in range(MAX_FRACTIONAL_BITS, -1, -1):
        if largest * 2**bits < 2**23 - 1:
            return bits
    raise InputError(f"a Gaussian is {largest:.3g} from the origin: SPZ holds positions up to 2^23")


def _packed_rotations(quats_wxyz: np.ndarray) -> np.ndarray:
    largest, others = without_largest(quats_wxyz[:, [1, 2, 3, 0]])
    magnitude = np.floor(np.abs(others) / MAX_SMALLER * 511 + 0.5).clip(0, 511).astype(np.uint32)
    packed = magnitude | (others < 0).astype(np.uint32) << 9
    return largest << 30 | packed[:, 0] << 20 | packed[:, 1] << 10 | packed[:, 2]


def _packed_harmonics(sh_rest: np.ndarray, degree: int) -> np.ndarray:
    packed = sh_rest.astype(np.float64) * 128 + 128
    for band in range(1, degree + 1):
        rows, step = slice(band * band - 1, (band + 1) ** 2 - 1), SH_STEPS[band]
        packed[:, rows] = np.floor(packed[:, rows] / step + 0.5) * step
    return packed.clip(0, 255).astype(np.uint8)


def _harmonic_signs(degree: int) -> np.ndarray:
    """Half a turn about x changes no coefficient but for its sign."""
    signs = [np.round(np.diag(harmonic_rotation(band, np.diag(_AXES)))) for band in range(1, degree + 1)]
    return np.concatenate([np.zeros(0), *signs])


def read_spz(path: Path | str) -> tuple[Gaussians, bool]:
    """Read Gaussians into COLMAP's axes, and whether they are made for antialiased rendering.

    Coefficients of degree 4 are left out.

    Raises:
        InputError: The file is missing, is no SPZ of version 2 or 3, is truncated, or holds more or far less than its
            header claims.
    """
    path = Path(path)
    stream = _GzipStream(path)
    magic, version, n, degree, bits, flags, _ = HEADER.unpack(stream.read(HEADER.size))
    if magic != MAGIC:
        raise InputError(f"{path} is no SPZ file")
    if version not in (2, 3) or degree not in NUM_RESTS:
        raise InputError(f"{path} is SPZ version {version} with SH degree {degree}: versions 2 and 3 up to 4 are read")
    num_rest = NUM_RESTS[degree]
    widths = (9, 1, 3, 3, 4 if version == 3 else 3, 3 * num_rest)
    stream.check_claim(n, n * sum(widths))
    parts = [np.frombuffer(stream.read(n * width), np.uint8).reshape(n, width) for width in widths]
    if not flags & FLAG_EXTENDED and stream.has_more():
        raise InputError(f"{path} is no SPZ file that can be read: it holds more than the {n} Gaussians of its header")
    positions, alphas, colors, scales, rotations, harmonics = parts
    kept = min(num_rest, NUM_RESTS[3])
    sh_rest = (harmonics.reshape(n, num_rest, 3)[:, :kept].astype(np.float64) - 128) / 128
    arrays = SplatArrays(
        means=(_signed_24(positions) / 2.0**bits * _AXES).astype(np.float32),
        log_scales=(scales / 16.0 - 10).astype(np.float32),
        quats_wxyz=((_rotations_3 if version == 3 else _rotations_2)(rotations) * _QUAT_AXES).astype(np.float32),
        opacities=(alphas[:, 0] / 255.0).astype(np.float32),
        sh0=((colors / 255.0 - 0.5) / COLOR_SCALE).astype(np.float32),
        sh_rest=(sh_rest * _harmonic_signs(min(degree, 3))[:, None]).astype(np.float32),
    )
    return arrays.gaussians(), bool(flags & FLAG_ANTIALIASED)


class _GzipStream:
    """A file's content, unpacked no further than it is asked for: a hostile stream may have no end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packed = read_bytes(path)
        self._num_packed = len(self._packed)
        self._unzip = zlib.decompressobj(wbits=31)
        if self._packed[:4] == MAGIC.to_bytes(4, "little"):
            raise InputError(f"{path} is SPZ version 4 or newer: write version 3 (gzip), which is read here")

    def check_claim(self, n: int, num_bytes: int) -> None:
        """Refuse what no file of this size can hold, before memory is taken for it."""
        if num_bytes > max(CREDIBLE_BYTES, MOST_SWOLLEN * self._num_packed):
            raise InputError(
                f"{self._path} is no SPZ file that can be read: {n} Gaussians are {num_bytes >> 20} MiB, which its "
                f"{self._num_packed >> 10} KiB cannot hold"
            )

    def has_more(self) -> bool:
        """Whether there is content beyond what was read."""
        try:
            return bool(self._unzip.decompress(self._packed, 1))
        except zlib.error:
            return False

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        if count == 0:
            return b""
        try:
            content = self._unzip.decompress(self._packed, count)
        except (zlib.error, MemoryError, OverflowError) as error:
            raise InputError(f"{self._path} is no SPZ file that can be read ({error})") from None
        self._packed = self._unzip.unconsumed_tail
        if len(content) < count:
            raise InputError(f"{self._path} is no SPZ file that can be read: it is truncated")
        return content


def _signed_24(positions: np.ndarray) -> np.ndarray:
    """[n 9] bytes as [n 3] signed integers."""
    wide = np.zeros((len(positions), 3, 4), dtype=np.uint8)
    wide[..., 1:] = positions.reshape(-1, 3, 3)
    return (wide.view("<i4")[..., 0] >> 8).astype(np.float64)


def _rotations_3(rotations: np.ndarray) -> np.ndarray:
    packed = np.ascontiguousarray(rotations).view("<u4")[:, 0]
    fields = np.stack([packed >> shift & 1023 for shift in (20, 10, 0)], axis=1)
    others = np.where(fields & 512, -1.0, 1.0) * (fields & 511) / 511 * MAX_SMALLER
    return with_largest((packed >> 30).astype(np.int64), others)[:, [3, 0, 1, 2]]


def _rotations_2(rotations: np.ndarray) -> np.ndarray:
    xyz = rotations / 127.5 - 1
    w = np.sqrt(np.clip(1 - (xyz**2).sum(axis=1), 0, None))
    return np.concatenate([w[:, None], xyz], axis=1)
