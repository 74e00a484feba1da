"""What `first_gpu_run.py` does how much of, and where it writes what it found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLOORS_MS = {"1": 13.4, "2 cached": 17.7}
"""By arithmetic alone, for the full-size network at 1024x576 on an H200, without a reference and with a known one."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    gaussians: int = 500_000
    parity_gaussians: int = 20_000
    image: int = 1024
    parity_image: int = 256
    ssim_shape: tuple[int, int] = (1080, 1920)
    train_steps: int = 2000
    scene_views: int = 24
    scene_width: int = 320
    loop_steps: int = 600
    timed_steps: int = 500
    rounds: int = 3
    frame: str = "1024x576"
    architecture: str = "full"
    compile_modes: tuple[str, ...] = ("no", "default", "max-autotune")
    repeats: int = 20
    fixer_size: int = 512
    fixer_steps: int = 5
    fixer_preset: str = "sd-turbo"
    tests: tuple[str, ...] = ("-m", "gpu", "--run-slow", "-n", "0", "-q")


SIZES = Sizes()
REHEARSAL = Sizes(
    gaussians=60,
    parity_gaussians=50,
    image=20,
    parity_image=20,
    ssim_shape=(20, 24),
    train_steps=8,
    scene_views=6,
    scene_width=24,
    loop_steps=9,
    timed_steps=2,
    rounds=1,
    frame="32x32",
    architecture="embedded",
    compile_modes=("no",),
    repeats=1,
    fixer_size=32,
    fixer_steps=1,
    fixer_preset="tiny",
    tests=("--version",),
)


class Report:
    """Rows and notes of a part; the files are written anew with each, so that none is lost."""

    def __init__(self, out: Path, name: str) -> None:
        self.folder = out / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def row(self, **values: Any) -> None:
        """Add a row; its names become columns."""
        self.rows.append(values)
        self._write()

    def note(self, text: str) -> None:
        """Add a sentence."""
        self.notes.append(text)
        self._write()

    def _write(self) -> None:
        self.folder.with_suffix(".json").write_text(
            json.dumps({"rows": self.rows, "notes": self.notes}, indent=1) + "\n", encoding="utf-8"
        )
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"] if columns else []
        lines += [f"| {' | '.join(_shown(row.get(name, '')) for name in columns)} |" for row in self.rows]
        self.folder.with_suffix(".md").write_text("\n".join([*lines, *["", *self.notes]]) + "\n", encoding="utf-8")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
