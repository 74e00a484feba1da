"""Names of photos that lead where nothing may be written, and what lies there."""

import hashlib
import os
from pathlib import Path

HOSTILE = (
    "../beside/up.png",
    "sub/../../../beside/far.png",
    "d.png",
    "d.jpg",
    "E.png",
    "e.png",
    "sch\u00f6n.png",
    "scho\u0308n.png",
    "back\\slash.png",
    "..\\..\\beside\\windows.png",
    "C:\\photos\\drive.png",
    "con.png",
    "x" * 240 + ".png",
    "first/a.png",
    ".hidden/h.png",
    "new\nline.png",
    "name?.png",
    "a.png/inside.png",
)
"""Relative ones; an absolute one needs a place."""


def files_outside(world: Path, *outs: Path) -> dict[str, str]:
    """Everything in a folder but for some folders: what each file holds, where each link leads."""
    found = {}
    for folder, folders, names in os.walk(world):
        folders[:] = [name for name in folders if Path(folder, name) not in outs]
        for name in [*names, *folders]:
            path = Path(folder, name)
            if path in outs:
                continue
            if path.is_symlink():
                found[str(path)] = f"-> {path.readlink()}"
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = "folder"
    return found
