"""From the names of photos, whatever somebody calls them, to the names of what is written for them."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

MAX_PART_BYTES = 200
"""Longest part of a name; file systems take 255 bytes, and temporary files have longer names."""

MAX_NAME_BYTES = 800
"""Longest name with its folders; beyond, the folders are left out."""

_FORBIDDEN = frozenset('<>:"|?*')
"""Characters that Windows does not take in names. Slashes and backslashes separate parts."""

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's control, format and surrogate characters, and its separators of lines and paragraphs."""

_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE)
"""Names of devices on Windows, with any ending."""

_DRIVE = re.compile(r"[A-Za-z]:")

_ENDING = re.compile(r"(?<=.)\.[A-Za-z][A-Za-z0-9]{0,4}")
"""What counts as an ending of a photo's name: in 1305.125 and frame.0001 there is none."""

_PLAIN, _WITH_ENDING, _WITH_DIGEST = 0, 1, 2
"""What is done to a name to make it different from others; beyond, there are other digests."""


def output_names(
    names: Iterable[str], *, ending: str = ".png", kept: Collection[str] = (), flat: bool = False
) -> dict[str, str]:
    """A name of a file for each of a set of names: relative, safe on every system, different from all the others.

    The README of this package has the rule. Names that are fine keep their names but for the ending. The result
    depends on the set of names and not on their order; so whoever writes files for a part of a set, and others for
    another part into the same folder, is to give the whole set.

    Args:
        names: The names, of any form: absolute, with `..`, with backslashes, with characters that no file may have.
        ending: What the names of the files end in; takes the place of a name's own ending.
        kept: Endings, in lower case with their dots, that a name may keep instead.
        flat: Whether the files lie in one folder: `a/b.jpg` becomes `a_b.png`.

    Returns:
        The relative path of each name's file, with ``/`` between its parts.
    """
    whole = sorted(set(names))
    levels = dict.fromkeys(whole, _PLAIN)
    while True:
        found = {name: _named(name, ending, kept, flat, levels[name]) for name in whole}
        clashing = _clashing(found)
        if not clashing:
            return found
        for name in clashing:
            levels[name] += 1


def _clashing(found: dict[str, str]) -> list[str]:
    """Names whose files would be one, or whose file would stand in the place of another's folder."""
    keys = {name: _key(path) for name, path in found.items()}
    count = Counter(keys.values())
    folders = {parent.as_posix() for key in count for parent in PurePosixPath(key).parents}
    return [name for name, key in keys.items() if count[key] > 1 or key in folders]


def _key(path: str) -> str:
    """The same for names that some file system takes for one: without regard to case and to Unicode's forms."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _named(name: str, ending: str, kept: Collection[str], flat: bool, level: int) -> str:
    parts = _parts(name)
    if flat:
        parts = ["_".join(parts)]
    *folders, last = parts
    own = match[0] if (match := re.search(rf"{_ENDING.pattern}\Z", last)) else ""
    if own and own.lower() in kept:
        stem, ending = last.removesuffix(own), own
    else:
        stem = last.removesuffix(own) if level == _PLAIN else last
    if level >= _WITH_DIGEST:
        # Of another text at each level, so that no name can be made to clash with all of them.
        stem = f"{last.removesuffix(own)}-{_digest(f'{level} {name}', 8 if level == _WITH_DIGEST else 16)}"
    path = "/".join([*(_part(folder) for folder in folders), _part(stem, ending)])
    if len(path.encode()) > MAX_NAME_BYTES:
        path = _part(f"{stem}-{_digest(f'{level} {name}')}", ending)
    return path


def _parts(name: str) -> list[str]:
    """A name's folders and its last part, without what would lead out of a folder."""
    words = name.replace("\\", "/").split("/")
    if _DRIVE.fullmatch(words[0]):
        words = words[1:]
    return [word for word in words if word.strip(" ") not in ("", ".", "..")] or ["_"]


def _part(stem: str, ending: str = "") -> str:
    """One part of a name, as every file system takes it."""
    text = unicodedata.normalize("NFC", stem)
    text = "".join("_" if c in _FORBIDDEN or unicodedata.category(c) in _INVISIBLE else c for c in text)
    text = re.sub(r"\A[. ]", "_", text)
    if not ending:
        text = re.sub(r"[. ]+\Z", "_", text)
    text = text or "_"
    if _RESERVED.fullmatch(f"{text}{ending}".split(".")[0].rstrip(" ")):
        device, dot, rest = text.partition(".")
        text = f"{device.rstrip(' ')}_{dot}{rest}"
    if len(f"{text}{ending}".encode()) > MAX_PART_BYTES:
        left = MAX_PART_BYTES - len(ending.encode()) - 1 - 16
        text = f"{text.encode()[:left].decode(errors='ignore')}-{_digest(stem)}"
    return f"{text}{ending}"


def _digest(text: str, length: int = 16) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
