"""Names of photos, whose bytes may be of any encoding."""

ENCODINGS = ("cp1252", "latin-1", "cp850", "cp437", "cp1250", "cp1251", "cp932", "gbk", "big5", "cp949", "mac-roman")
"""Encodings that programs write names in which are no UTF-8, the most likely first."""


def shown(name: str) -> str:
    """A name as text, where its bytes are none: of the most likely encoding."""
    return name if is_text(name) else decoded(name)[0]


def is_text(name: str) -> bool:
    """Whether a name is text, without surrogates for bytes that are no UTF-8."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def decoded(name: str) -> list[str]:
    """A name whose bytes are no UTF-8 in other encodings, as far as they know these bytes; at least one."""
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return [name.encode("utf-8", "replace").decode()]
    found = []
    for encoding in ENCODINGS:
        try:
            found.append(raw.decode(encoding))
        except UnicodeDecodeError:
            continue
    return list(dict.fromkeys(found))
