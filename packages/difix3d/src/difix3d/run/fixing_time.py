"""How much of a run's time goes into the fixer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difix3d.errors import InputError

if TYPE_CHECKING:
    from difix3d.fixers.contract import FixRequest, FixResult, ViewFixer

TIME_FILE = "time.json"
"""Where a checkpoint keeps the seconds so far, and a run's folder the result."""

PHASES = ("training", "comparison")
"""Rounds are made in training; the comparison fixes the renders that it shows."""


class FixingTime:
    """Wall seconds of the phases of a run, and of the fixer in each; they are carried over in checkpoints."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.fixing_seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._phase: str | None = None
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block, and what is fixed in it, for a phase."""
        self._phase, self._since = name, time.monotonic()
        try:
            yield
        finally:
            self._count()
            self._phase = None

    def _count(self) -> None:
        if self._phase is not None:
            now = time.monotonic()
            self.seconds[self._phase] += now - self._since
            self._since = now

    def add_fixing(self, seconds: float) -> None:
        """Count seconds in the fixer."""
        if self._phase is not None:
            self.fixing_seconds[self._phase] += seconds

    def fraction(self, *phases: str) -> float:
        """The fixer's fraction of the phases' time, in [0, 1]; 0 before anything has run."""
        self._count()
        total = sum(self.seconds[name] for name in phases)
        return min(1.0, sum(self.fixing_seconds[name] for name in phases) / total) if total > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The content of a run's time.json."""
        return {
            "fixing_fraction": self.fraction(*PHASES),
            "fixing_fraction_training": self.fraction("training"),
            "seconds": {name: round(value, 6) for name, value in self.seconds.items()},
            "fixing_seconds": {name: round(value, 6) for name, value in self.fixing_seconds.items()},
        }

    def sentence(self) -> str:
        """For the screen."""
        return (
            f"Fixing took {self.fraction(*PHASES):.1%} of the time ({self.fraction('training'):.1%} of training, "
            f"{self.fraction('comparison'):.1%} of the comparison and its film)."
        )

    def save(self, folder: Path) -> None:
        """Write into a checkpoint."""
        self._count()
        values = {"seconds": self.seconds, "fixing_seconds": self.fixing_seconds}
        (folder / TIME_FILE).write_text(json.dumps(values) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: Its times are missing or damaged.
        """
        path = folder / TIME_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            self.seconds, self.fixing_seconds = (
                {name: float(values[kind][name]) for name in PHASES} for kind in ("seconds", "fixing_seconds")
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} does not hold a run's times ({error!r}): name another --out") from None


class TimedFixer:
    """A fixer whose time is counted."""

    def __init__(self, fixer: ViewFixer, spent: FixingTime) -> None:
        self.fixer = fixer
        self.spent = spent

    @contextmanager
    def resident(self) -> Iterator[None]:
        """Have the fixer stay where it works for the block; fetching it and putting it away count as fixing."""
        from difix3d.fixers.contract import resident

        stays = ExitStack()
        with self._counted():
            stays.enter_context(resident(self.fixer))
        try:
            yield
        finally:
            with self._counted():
                stays.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.spent.add_fixing(time.monotonic() - begun)

    def __call__(self, request: FixRequest) -> FixResult:
        """Fix, and count how long it takes."""
        with self._counted():
            result = self.fixer(request)
            if result.rgb.is_cuda:
                # A GPU works on after the call has returned.
                result.rgb.sum().item()
        return result
