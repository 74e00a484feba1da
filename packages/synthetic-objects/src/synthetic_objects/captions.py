"""Captions of objects, and what a phrase of the same form asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from synthetic_objects.errors import InputError
from synthetic_objects.vocabulary import COLORS, MATERIALS, RELATIONS, SHAPES

if TYPE_CHECKING:
    from synthetic_objects.objects import GeneratedObject, Part


def caption_of(generated: GeneratedObject) -> str:
    """The phrase that describes an object, such as "a red ball on a shiny blue box"; matte is not mentioned."""
    described = [_described(part) for part in generated.parts]
    return described[0] if generated.relation is None else f"{described[0]} {generated.relation} {described[1]}"


def _described(part: Part) -> str:
    words = [part.color, part.shape] if part.material == "matte" else [part.material, part.color, part.shape]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


_PART = rf"an?\s+(?:({'|'.join(MATERIALS)})\s+)?({'|'.join(COLORS)})\s+({'|'.join(SHAPES)})"
_PHRASE = re.compile(rf"{_PART}(?:\s+({'|'.join(RELATIONS)})\s+{_PART})?")


def parse_caption(caption: str) -> tuple[tuple[tuple[str, str, str], ...], str | None]:
    """What a caption names: (material, color, shape) of every part, and their relation.

    Raises:
        InputError: It is not of the form that `caption_of` writes.
    """
    match = _PHRASE.fullmatch(" ".join(caption.lower().strip(" .").split()))
    if match is None:
        raise InputError(
            f"{caption!r} is not a caption of this kind: write one such as 'a red ball on a shiny blue box'"
        )
    first, relation, second = match.group(1, 2, 3), match.group(4), match.group(5, 6, 7)
    named = [first] if relation is None else [first, second]
    return tuple((material or "matte", color, shape) for material, color, shape in named), relation
