"""Three numbers for which splat formats have no field: a line in the header of a PLY file, else a JSON file beside."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from output_files import write_text_whole
from splat_render.errors import InputError

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreeNumbers:
    """How three numbers are kept with a splat file; the usual ones are not written, and removed where they stood."""

    name: str
    """What messages call them."""

    wanted: str
    """What they are to be."""

    comment: str
    """Beginning of the line in the header of a PLY file; the numbers follow."""

    ending: str
    """What is added to a file's name for the JSON beside it."""

    key: str
    """Its entry."""

    usual: Triple
    """Those that nobody has to be told."""

    fits: Callable[[float], bool] = math.isfinite
    """Whether a number is in its range."""

    shown: Callable[[float], str] = repr
    """A number in a header."""

    def comments(self, values: Triple | None) -> list[str]:
        """The lines of a PLY header: none for the usual ones and for None."""
        return [] if values in (None, self.usual) else [" ".join([self.comment, *map(self.shown, values or ())])]

    def in_comments(self, comments: Sequence[str], path: Path) -> Triple | None:
        """What the lines of a PLY header name; None without one."""
        for line in comments:
            if line.strip().startswith(self.comment):
                return self._checked(line.strip().removeprefix(self.comment).split(), path)
        return None

    def sidecar(self, path: Path) -> Path:
        """The JSON file beside a splat file."""
        return path.with_name(path.name + self.ending)

    def write_sidecar(self, path: Path, values: Triple | None) -> None:
        """Write the JSON file beside a splat file; for the usual ones, remove what an earlier splat left."""
        beside = self.sidecar(path)
        if values not in (None, self.usual):
            write_text_whole(beside, json.dumps({self.key: list(values or ())}) + "\n")
            return
        try:
            if beside.is_file() and self.key in beside.read_text(encoding="utf-8", errors="replace"):
                beside.unlink()
        except OSError as error:
            raise InputError(f"cannot write {beside}: {error.strerror or error}") from None

    def read_sidecar(self, path: Path) -> Triple | None:
        """What the JSON file beside a splat file names; None without such a file."""
        beside = self.sidecar(path)
        if not beside.is_file():
            return None
        try:
            values = json.loads(beside.read_text(encoding="utf-8"))[self.key]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f'{beside} does not hold "{self.key}" ({error!r}): repair or remove it') from None
        return self._checked(values, beside)

    def _checked(self, values: object, path: Path) -> Triple:
        try:
            x, y, z = (float(value) for value in values)  # type: ignore[attr-defined]
        except (TypeError, ValueError, OverflowError):
            x = y = z = math.nan
        if not all(map(self.fits, (x, y, z))):
            raise InputError(f"{path}: its {self.name} {values} is not {self.wanted}: repair or remove it")
        return x, y, z
