"""Links in an output folder that lead out of it."""

import os
from pathlib import Path

from output_files.errors import InputError


def check_links(folder: Path) -> None:
    """Refuse a folder in which a folder leads elsewhere: what is written into that would be written outside.

    The folder itself may be a link, which is how people put results on another disk. Links to files do no harm: files
    are replaced and not written through (`whole_file.written_whole`).

    Args:
        folder: The output folder, which may not be there yet.
    """
    root = _resolved(folder)
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            if _is_link(path):
                _check(path, root, folder)


def output_place(folder: Path, name: str) -> Path:
    """The place of a file in an output folder, where no link on the way to it leads out of the folder.

    Args:
        folder: The output folder, which may not be there yet.
        name: A relative name, from `names.output_names` or of the program's own making.

    Raises:
        InputError: A link leads out, or the name does.
    """
    path = folder / name
    _check(path.parent, _resolved(folder), folder)
    return path


def _check(path: Path, root: Path | None, folder: Path) -> None:
    found = _resolved(path)
    if root is None or found is None or (found != root and root not in found.parents):
        leads = "in a circle" if found is None else f"to {found}"
        raise InputError(f"{path} leads {leads}, out of {folder}: remove it, or choose another --out")


def _is_link(path: Path) -> bool:
    # Windows' junctions are no symbolic links; Python tells them apart from 3.12 on.
    return path.is_symlink() or bool(getattr(os.path, "isjunction", lambda _: False)(path))


def _resolved(path: Path) -> Path | None:
    """Where a path leads; None where links go round in a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return None
