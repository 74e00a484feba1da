"""Help in plain text, from dataclasses: what matters first, all of it on demand, in groups."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from commands.flags import as_flag

Groups = Mapping[str, tuple[str, ...]]
"""Titles, and the names of the fields that stand under each."""

WIDTH = 100
FLAG_WIDTH = 28

METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH", bool: "True|False"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    """One flag of a command."""

    name: str
    """Of the field."""

    flag: str
    """As it is typed."""

    values: str
    """What follows it: choices, or a word for the kind of value; empty for switches."""

    text: str
    """What it means."""

    required: bool
    """Whether the command needs it."""


def flags_of(kind: Any, prefix: str = "", *, flat: bool = False, instance: Any = None) -> Iterator[Flag]:
    """The flags of a dataclass, and of those that are nested in it, in order.

    Nested fields have the outer field's name before theirs, unless the outer one is given no name
    (`tyro.conf.arg(name="")`), or all go without (`flat`). Defaults are those of an instance, where there is one.
    """
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        default = _default(field) if instance is None else getattr(instance, field.name)
        annotation, own_flat, names = _unwrapped(hints[field.name])
        if dataclasses.is_dataclass(annotation):
            inner = prefix if flat or own_flat else f"{prefix}{field.name}."
            nested = default if dataclasses.is_dataclass(default) else None
            yield from flags_of(annotation, inner, flat=flat, instance=nested)
        else:
            yield _flag(prefix + field.name, annotation, names, default, _doc(kind, field.name))


def _default(field: Any) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _unwrapped(annotation: Any) -> tuple[Any, bool, tuple[str, ...]]:
    """A field's type without markers, whether its own fields go without its name, and its further names."""
    if get_origin(annotation) is not Annotated:
        return annotation, False, ()
    inner, *markers = get_args(annotation)
    inner, flat, names = _unwrapped(inner)
    for marker in markers:
        flat = flat or getattr(marker, "name", None) == ""
        names += tuple(getattr(marker, "aliases", None) or ())
    return inner, flat, names


def _flag(name: str, annotation: Any, names: tuple[str, ...], default: Any, text: str) -> Flag:
    required = default is dataclasses.MISSING
    flag = as_flag(name)
    values = "" if annotation is bool else _values(annotation)
    if default is True:
        first, dot, last = name.rpartition(".")
        flag = as_flag(f"{first}{dot}no_{last}")
        text = f"Switches off: {text[:1].lower()}{text[1:]}"
    elif required:
        text += " Required."
    elif _worth_saying(default):
        text += f" Default: {default}."
    return Flag(name=name, flag=", ".join([flag, *names]), values=values, text=text, required=required)


def _worth_saying(default: Any) -> bool:
    """Whether a default says something; None and auto are explained by what the flag means."""
    return isinstance(default, int | float | str | Path) and default is not False and default not in ("auto", "")


def _values(annotation: Any) -> str:
    annotation, _, _ = _unwrapped(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "|".join(str(value) for value in inner)
    if origin in (Union, types.UnionType):
        return "|".join(_values(each) for each in inner if each is not type(None))
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return f"{_values(inner[0])} ..."
        return " ".join(_values(each) for each in inner)
    return METAVARS.get(annotation, getattr(annotation, "__name__", "VALUE").upper())


@cache
def _docs(kind: type) -> dict[str, str]:
    """The docstrings under a class's own fields."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return {}
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef))
    found = {}
    for statement, following in pairwise(body):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[statement.target.id] = re.sub(r"\s+", " ", str(following.value.value)).strip()
    return found


def _doc(kind: type, name: str) -> str:
    return next((found[name] for each in kind.__mro__ if name in (found := _docs(each))), "")


def parameters_of(kind: Any, *, flat: bool = False) -> dict[str, str]:
    """The fields that are flags of a dataclass, or of each of a union of them, and how they are typed.

    Of fields of one name the least nested counts.
    """
    kinds = [kind] if dataclasses.is_dataclass(kind) else get_args(kind)
    flags = [flag for each in kinds for flag in flags_of(each, flat=flat)]
    named = sorted(flags, key=lambda flag: flag.name.count("."), reverse=True)
    return {flag.name.rsplit(".", 1)[-1]: as_flag(flag.name) for flag in named}


def help_text(
    kind: Any,
    prog: str,
    groups: Groups | None = None,
    *,
    everything: bool = True,
    description: str | None = None,
    flat: bool = False,
) -> str:
    """What a command prints for `--help`, or for `--help all`.

    Args:
        groups: Titles and names; the first is shown for `--help`. Fields that no group names stand in the last. None:
            there is one group, which is shown in full.
        description: What the command does; None takes the docstring.
        flat: Nested fields go without the outer field's name.
    """
    flags = list(flags_of(kind, flat=flat))
    sections = _sections(flags, groups)
    shown = sections if everything else sections[:1]
    about = inspect.cleandoc(description or kind.__doc__ or "")
    lines = [f"usage: {prog} [options]", "", *_wrapped_paragraphs(about), ""]
    for title, members in shown:
        lines += [f"{title}:", *(line for flag in members for line in _entry(flag)), ""]
    if len(shown) < len(sections):
        lines.append(f"--help all shows all {len(flags)} options; --version tells the version.")
    else:
        lines.append("--version tells the version.")
    return "\n".join(lines)


def _sections(flags: list[Flag], groups: Groups | None) -> list[tuple[str, list[Flag]]]:
    if groups is None:
        return [("options", flags)]
    by_name = {flag.name: flag for flag in flags}
    unknown = [name for names in groups.values() for name in names if name not in by_name]
    if unknown:
        raise ValueError(f"groups of options name what is none: {', '.join(unknown)}")
    sections = [(title, [by_name[name] for name in names]) for title, names in groups.items()]
    named = {name for names in groups.values() for name in names}
    rest = [flag for flag in flags if flag.name not in named]
    return [*sections, ("others", rest)] if rest else sections


def _entry(flag: Flag) -> Iterable[str]:
    head = f"  {flag.flag} {flag.values}".rstrip()
    text = textwrap.wrap(flag.text, WIDTH - FLAG_WIDTH) or [""]
    if len(head) >= FLAG_WIDTH:
        yield head
    else:
        yield f"{head:<{FLAG_WIDTH}}{text.pop(0)}".rstrip()
    for line in text:
        yield " " * FLAG_WIDTH + line


def _wrapped_paragraphs(text: str) -> list[str]:
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(textwrap.fill(re.sub(r"\s+", " ", paragraph), WIDTH) for paragraph in paragraphs).splitlines()


def verbs_text(verbs: Mapping[str, Any], prog: str, description: str) -> str:
    """What a command with verbs prints for `--help`: each verb, and the first sentence about it."""
    lines = [f"usage: {prog} VERB [options]", "", *_wrapped_paragraphs(description), ""]
    width = max(len(verb) for verb in verbs) + 4
    for verb, about in verbs.items():
        text = about if isinstance(about, str) else inspect.cleandoc(about.__doc__ or "")
        first = re.sub(r"\s+", " ", re.split(r"\n\s*\n", text)[0])
        wrapped = textwrap.wrap(first, WIDTH - width)
        lines += [f"  {verb:<{width - 2}}{wrapped[0]}", *(" " * width + line for line in wrapped[1:])]
    return "\n".join([*lines, "", f"{prog} VERB --help tells the options of each; --version tells the version."])
