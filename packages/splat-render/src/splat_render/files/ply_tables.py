"""PLY files as tables: a header of any encoding, text or binary, and memory bounded by what the file itself holds.

Each element is a structured array with a field for each scalar property. A list property whose lists all have one
length becomes fields too: a list `scale` of three is scale_0, scale_1, scale_2. Other lists are left out. Elements
that are not asked for are not read.
"""

import itertools
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from splat_render.errors import InputError

MAX_HEADER = 1 << 20
"""Bytes within which a header ends."""

MAX_LIST = 256
"""Longest lists that become fields."""

_ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8", "int64": "i8", "uint64": "u8",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Property:
    name: str
    dtype: np.dtype
    length_dtype: np.dtype | None = None
    """Of a list: the type of its length."""

    @property
    def min_bytes(self) -> int:
        return (self.length_dtype or self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class _Element:
    name: str
    count: int
    properties: list[_Property]

    @property
    def has_lists(self) -> bool:
        return any(one.length_dtype is not None for one in self.properties)

    @property
    def min_bytes(self) -> int:
        return self.count * sum(one.min_bytes for one in self.properties)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlyTables:
    """The elements of a file that were asked for and are there."""

    comments: tuple[str, ...]
    """Lines of the header, without the word comment."""

    elements: Mapping[str, np.ndarray]
    """Structured arrays by the elements' names."""

    def __contains__(self, name: str) -> bool:
        """Whether the file has such an element."""
        return name in self.elements

    def __getitem__(self, name: str) -> np.ndarray:
        """The rows of an element."""
        return self.elements[name]


def read_ply_tables(path: Path, wanted: Sequence[str]) -> PlyTables:
    """Read elements of a PLY file.

    Args:
        wanted: Names of elements; those that the file lacks are lacking in the result.

    Raises:
        InputError: The file is missing, is no PLY file, announces more than it holds, or its text is no numbers.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            head = file.read(MAX_HEADER)
            kind, elements, comments, start = _parsed_header(head, path)
            size = path.stat().st_size
            content: Any = b""
            if size:
                content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            tables = _text_tables if kind == "ascii" else _binary_tables
            return PlyTables(comments=comments, elements=dict(tables(content, start, size, elements, wanted, path)))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _refuse(path: Path, why: str) -> NoReturn:
    raise InputError(f"{path} is not a PLY file that can be read: {why}")


def _parsed_header(head: bytes, path: Path) -> tuple[str, list[_Element], tuple[str, ...], int]:
    """The format, the elements, the comments, and where the data begin."""
    if not head.startswith(b"ply"):
        _refuse(path, "it does not begin with the letters ply")
    # Unix, Windows or the old Macintosh; in a binary file the byte after the header belongs to the data.
    newline = next((end for end in (b"\r\n", b"\n", b"\r") if head[3:].lstrip(b" \t").startswith(end)), b"\n")
    lines, place = [], 0
    while True:
        end = head.find(newline, place)
        if end < 0:
            _refuse(path, "its header has no end")
        # Comments come in every encoding, and are for people.
        line = head[place:end].decode("utf-8", errors="replace").strip()
        place = end + len(newline)
        if line == "end_header":
            break
        lines.append(line)
    kind, elements, comments = "", [], []
    for line in lines[1:]:
        words = line.split()
        match words:
            case []:
                continue
            case ["comment" | "obj_info", *_]:
                comments.append(line.split(maxsplit=1)[1] if len(words) > 1 else "")
            case ["format", name, _] if name in _ORDERS:
                kind = name
            case ["element", name, count]:
                elements.append(_Element(name=name, count=_whole_number(count, line, path), properties=[]))
            case ["property", *described] if elements and kind:
                elements[-1].properties.append(_property(described, _ORDERS[kind], line, path))
            case _:
                _refuse(path, f"its header has a line {line[:60]!r}")
    if not kind:
        _refuse(path, "its header names no format")
    for element in elements:
        names = [one.name for one in element.properties]
        if len(set(names)) < len(names):
            _refuse(path, f"its element {element.name} has two properties of one name")
    if len({element.name for element in elements}) < len(elements):
        _refuse(path, "it has two elements of one name")
    return kind, elements, tuple(comments), place


def _whole_number(text: str, line: str, path: Path) -> int:
    # More digits than that are no count, and Python itself refuses thousands of them.
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        _refuse(path, f"its header has a line {line[:60]!r}, which is no count of anything")
    return int(text)


def _property(described: list[str], order: str, line: str, path: Path) -> _Property:
    match described:
        case ["list", length, kind, name] if length in _TYPES and kind in _TYPES and _TYPES[length][0] != "f":
            return _Property(
                name=name, dtype=np.dtype(order + _TYPES[kind]), length_dtype=np.dtype(order + _TYPES[length])
            )
        case [kind, name] if kind in _TYPES:
            return _Property(name=name, dtype=np.dtype(order + _TYPES[kind]))
        case _:
            _refuse(path, f"its header has a line {line[:60]!r}")


def _check_fits(element: _Element, least: int, left: int, path: Path) -> None:
    if least > left:
        _refuse(
            path,
            f"it announces {element.count} of the element {element.name}, at least {least} bytes, and holds {left}: "
            "it is truncated",
        )


def _binary_tables(
    content: Any, start: int, size: int, elements: Sequence[_Element], wanted: Sequence[str], path: Path
) -> Iterator[tuple[str, np.ndarray]]:
    place, missing = start, set(wanted) & {element.name for element in elements}
    for element in elements:
        if not missing:
            return
        _check_fits(element, element.min_bytes, size - place, path)
        if element.has_lists:
            rows, place = _rows_with_lists(content, place, size, element, path)
        else:
            row = np.dtype([(one.name, one.dtype) for one in element.properties])
            num_bytes = element.count * row.itemsize
            # An element without properties has no rows to speak of, however many it announces.
            rows = np.frombuffer(content[place : place + num_bytes], row) if num_bytes else np.zeros(0, row)
            place += num_bytes
        if element.name in missing:
            missing.remove(element.name)
            yield element.name, rows


def _rows_with_lists(content: Any, place: int, size: int, element: _Element, path: Path) -> tuple[np.ndarray, int]:
    """The rows, and where the next element begins."""
    if not element.count:
        return _row_fields(element, {}, ()), place
    lengths, _ = _walked(content, place, size, element, path)
    fields: list[tuple] = []
    for index, one in enumerate(element.properties):
        if one.length_dtype is not None:
            fields.append((f"length {index}", one.length_dtype))
        fields.append((f"value {index}", one.dtype, *([(lengths[index],)] if index in lengths else [])))
    row = np.dtype(fields)
    num_bytes = element.count * row.itemsize
    if num_bytes <= size - place:
        rows = np.frombuffer(content[place : place + num_bytes], dtype=row)
        if all((rows[f"length {index}"] == length).all() for index, length in lengths.items()):
            columns = {index: rows[f"value {index}"] for index in range(len(element.properties))}
            return _row_fields(element, lengths, columns), place + num_bytes
    # Lists of several lengths: rows are walked one by one, and only what is no list is kept.
    scalars: dict[int, list] = {index: [] for index, one in enumerate(element.properties) if one.length_dtype is None}
    for _ in range(element.count):
        _, place = _walked(content, place, size, element, path, scalars)
    columns = {
        index: np.frombuffer(b"".join(values), element.properties[index].dtype) for index, values in scalars.items()
    }
    return _row_fields(element, {}, columns), place


def _walked(
    content: Any, place: int, size: int, element: _Element, path: Path, scalars: Mapping[int, list] | None = None
) -> tuple[dict[int, int], int]:
    """Lengths of one row's lists, by their properties' indices, and where the next row begins."""
    lengths = {}
    for index, one in enumerate(element.properties):
        width = one.min_bytes
        if place + width > size:
            _refuse(path, f"it ends within the element {element.name}: it is truncated")
        if one.length_dtype is None:
            if scalars is not None:
                scalars[index].append(content[place : place + width])
            place += width
            continue
        length = int(np.frombuffer(content[place : place + width], one.length_dtype)[0])
        if length < 0 or place + width + length * one.dtype.itemsize > size:
            _refuse(path, f"it has a list of {length} in the element {element.name}, which it does not hold")
        lengths[index] = length
        place += width + length * one.dtype.itemsize
    return lengths, place


def _row_fields(element: _Element, lengths: Mapping[int, int], columns: Any) -> np.ndarray:
    """Rows with one field for each number."""
    fields, values = [], []
    for index, one in enumerate(element.properties):
        if one.length_dtype is None:
            fields.append((one.name, one.dtype))
            values.append(columns[index] if len(columns) else np.zeros(0))
        elif 0 < lengths.get(index, 0) <= MAX_LIST:
            for item in range(lengths[index]):
                fields.append((f"{one.name}_{item}", one.dtype))
                values.append(columns[index][:, item])
    # Of a list `scale` beside a property scale_0, the first one counts.
    by_name: dict[str, tuple[np.dtype, np.ndarray]] = {}
    for (name, dtype), column in zip(fields, values, strict=True):
        by_name.setdefault(name, (dtype, column))
    rows = np.empty(element.count if by_name else 0, dtype=[(name, dtype) for name, (dtype, _) in by_name.items()])
    for name, (_, column) in by_name.items():
        rows[name] = column
    return rows


def _text_tables(
    content: Any, start: int, size: int, elements: Sequence[_Element], wanted: Sequence[str], path: Path
) -> Iterator[tuple[str, np.ndarray]]:
    missing, place = set(wanted) & {element.name for element in elements}, start
    content.seek(start)
    lines = (line for line in iter(content.readline, b"") if line.strip())
    for element in elements:
        if not missing:
            return
        # A number takes a character, and one more to end it.
        _check_fits(element, 2 * element.count * len(element.properties) - 1, size - place, path)
        own = itertools.islice(lines, element.count) if element.properties else iter(())
        if element.name not in missing:
            for _ in own:
                pass
        else:
            missing.remove(element.name)
            yield element.name, _text_rows(own, element, path)
        place = content.tell()


def _text_rows(lines: Iterator[bytes], element: _Element, path: Path) -> np.ndarray:
    decoded = (line.decode("latin-1") for line in lines)
    try:
        if element.has_lists:
            return _text_rows_with_lists(decoded, element, path)
        num_columns = len(element.properties)
        if not (element.count and num_columns):
            return _row_fields(element, {}, [np.zeros(0)] * num_columns)
        first = next(decoded, None)
        if first is None:
            _refuse(path, f"it announces {element.count} of the element {element.name} and holds none: it is truncated")
        values = np.loadtxt(
            itertools.chain([first], decoded), dtype=np.float64, ndmin=2, comments=None, max_rows=element.count
        )
    except InputError:
        raise
    except (ValueError, OverflowError) as error:
        _refuse(path, f"the text of its element {element.name} is no numbers ({' '.join(str(error).split())[:100]})")
    if values.shape != (element.count, num_columns):
        _refuse(
            path,
            f"it announces {element.count} rows of {num_columns} numbers in the element {element.name}, and holds "
            f"{values.shape[0]} of {values.shape[1]}: it is truncated",
        )
    return _cast_rows(element, {}, list(values.T))


def _text_rows_with_lists(lines: Iterator[str], element: _Element, path: Path) -> np.ndarray:
    scalars: dict[int, list[float]] = {}
    lists: dict[int, list[list[float]]] = {}
    num_rows = 0
    for line in lines:
        words = iter(line.split())
        num_rows += 1
        for index, one in enumerate(element.properties):
            word = next(words, None)
            if word is None:
                _refuse(path, f"a row of its element {element.name} is too short")
            if one.length_dtype is None:
                scalars.setdefault(index, []).append(float(word))
                continue
            length = int(word)
            items = [float(item) for item in itertools.islice(words, max(length, 0))]
            if len(items) != length:
                _refuse(path, f"it has a list of {length} in the element {element.name}, which it does not hold")
            lists.setdefault(index, []).append(items)
    if num_rows != element.count:
        _refuse(
            path, f"it announces {element.count} of the element {element.name} and holds {num_rows}: it is truncated"
        )
    lengths = {index: len(items[0]) for index, items in lists.items() if len({len(one) for one in items}) == 1}
    columns: Any = {index: np.array(values) for index, values in scalars.items()}
    columns |= {index: np.array(lists[index]).reshape(num_rows, length) for index, length in lengths.items()}
    return _cast_rows(element, lengths, columns)


def _cast_rows(element: _Element, lengths: Mapping[int, int], columns: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return _row_fields(element, lengths, columns)


def color_fields(names: Sequence[str]) -> tuple[str, str, str] | None:
    """The fields that hold red, green and blue, under any of the usual names in upper or lower case; None without."""
    by_lower = {name.lower(): name for name in names}
    for triple in _COLOR_NAMES:
        if all(name in by_lower for name in triple):
            red, green, blue = (by_lower[name] for name in triple)
            return red, green, blue
    return None


_COLOR_NAMES = [("red", "green", "blue"), ("r", "g", "b")]
_COLOR_NAMES += [
    (f"{prefix}{a}", f"{prefix}{b}", f"{prefix}{c}")
    for prefix in ("diffuse_", "color_", "colour_", "col_", "vertex_", "rgb_", "colors_")
    for a, b, c in (("red", "green", "blue"), ("r", "g", "b"), ("0", "1", "2"))
]


def colors_of(rows: np.ndarray) -> np.ndarray | None:
    """Red, green and blue of rows in [0, 1], float64 [n 3]; None where they have none.

    Bytes are parts of 255. Wider integers are parts of 255 where none is larger, else of 65535; floats are what they
    are where none is beyond 1, else parts of 255, else of 65535.
    """
    fields = color_fields(rows.dtype.names or ())
    if fields is None:
        return None
    values = np.stack([rows[name].astype(np.float64) for name in fields], axis=1)
    finite = values[np.isfinite(values)]
    largest = float(finite.max(initial=0.0))
    kinds = {rows[name].dtype for name in fields}
    if all(kind.itemsize == 1 for kind in kinds):
        white = 255.0
    elif all(kind.kind == "f" for kind in kinds) and largest <= 1 + 1e-3:
        white = 1.0
    else:
        white = 255.0 if largest <= 255 else 65535.0 if largest <= 65535 else math.inf
    return values / white
