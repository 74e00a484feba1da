"""Which license weights carry: what is known of where they come from, or that nothing is known."""

import re
from pathlib import Path
from typing import Any

from difix_model.errors import InputError

UNKNOWN = "unknown"

NVIDIA = "NVIDIA License (non-commercial use only) and Stability AI Community License"
STABILITY = "Stability AI Community License"

KNOWN = (("nvidia/difix", NVIDIA), ("stabilityai/sd-turbo", STABILITY))
"""Beginnings of repositories' names and the licenses of what is in them."""

SNAPSHOT = re.compile(r"models--([^/\\]+)--([^/\\]+)")


def license_of_layout(folder: Path, source: Path | str) -> str:
    """Tell the license of weights in the published layout.

    Known repositories are recognized by their names, which copies and fine-tuned versions usually still carry in
    their configuration files; otherwise the model card is asked.

    Args:
        source: What they were asked for by: a hub id, or a folder.
    """
    known = next((terms for name in _names(folder, source) for start, terms in KNOWN if name.startswith(start)), None)
    stated = license_of_card(folder)
    if known is None:
        return stated or UNKNOWN
    return known if stated in (None, "other", known) else f"{known}; its model card says: {stated}"


def license_of_pickle(base_license: str | None) -> str:
    """Tell the license of a trainer's file, which says nothing itself, from that of what it was trained from."""
    if base_license in (None, UNKNOWN):
        return UNKNOWN
    return f"{UNKNOWN} for what was trained; for what it was trained from: {base_license}"


def license_of_card(folder: Path) -> str | None:
    """Return the license that a folder's model card names, or None if it names none."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    from huggingface_hub import ModelCard

    try:
        data = ModelCard.load(card).data.to_dict()
    except Exception:  # Whatever a damaged card makes the parser raise, it is only a card.
        return None
    named, name = data.get("license"), data.get("license_name")
    if named == "other" and isinstance(name, str):
        link = data.get("license_link")
        return f"{name} ({link})" if isinstance(link, str) else name
    return named if isinstance(named, str) and named != UNKNOWN else None


def _names(folder: Path, source: Path | str) -> list[str]:
    from difix_model.formats.checkpoint import read_json

    names = [str(source).lower()]
    cached = SNAPSHOT.search(str(folder))
    if cached:
        names.append(f"{cached[1]}/{cached[2]}".lower())
    for part in ("model_index.json", "unet/config.json", "vae/config.json"):
        try:
            value: Any = read_json(folder / part).get("_name_or_path")
        except InputError:
            continue
        if isinstance(value, str):
            names.append(value.lower())
    return names
