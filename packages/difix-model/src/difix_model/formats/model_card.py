"""The README of saved weights: what they are, how to use them, and which license they carry."""

import json
import re
from typing import Any

import torch

from difix_model.formats.checkpoint import Checkpoint
from difix_model.formats.weights_license import UNKNOWN

HUB_LICENSES = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"})
"""Licenses that the hub knows by these names; all others are `other` with a name of their own."""

TAGS = ("difix", "image-to-image", "novel-view-synthesis", "gaussian-splatting", "image-restoration")

UNKNOWN_LICENSE = (
    "The license of these weights is not known: the files that they were read from do not say. "
    "Ask whoever made them before you use or share them."
)


def model_card(
    checkpoint: Checkpoint, *, name: str, published_layout: bool = False, dtype: torch.dtype | None = None
) -> str:
    """Return the text of a model card, with the front matter that the hub reads.

    Args:
        checkpoint: The weights; its metadata has name, license and origin.
        name: Folder or hub id by which the usage example loads them.
        published_layout: Whether they are saved in the published layout instead of our format.
        dtype: Floating-point type on disk; None means each parameter's own.
    """
    metadata = checkpoint.metadata
    terms = metadata.license or UNKNOWN
    call = "pipe(rendered, reference)" if checkpoint.uses_reference else "pipe(rendered)"
    terms_line = f"The weights carry this license, whatever the license of the code: **{terms}**."
    title = metadata.name or name.rstrip("/").rpartition("/")[2]
    return f"""{_front_matter(terms)}
# {title}

Difix weights: a single-step diffusion network that cleans up rendered views, for
`difix-model`{_form(published_layout)}.

```python
from difix_model import DifixPipeline

pipe = DifixPipeline.from_pretrained({json.dumps(name)})
fixed = {call}  # PIL images, arrays or tensors; sizes and types are kept
```

{_facts(checkpoint, dtype)}

## License

{UNKNOWN_LICENSE if terms == UNKNOWN else terms_line}
"""


def _form(published_layout: bool) -> str:
    return ", in the layout of the published weights" if published_layout else ""


def _front_matter(terms: str) -> str:
    identifier = terms.lower()
    lines = [f"license: {identifier}"] if identifier in {*HUB_LICENSES, UNKNOWN} else _other_license(terms)
    lines += ["library_name: difix-model", "pipeline_tag: image-to-image", "tags:", *(f"- {tag}" for tag in TAGS)]
    return "\n".join(["---", *lines, "---"])


def _other_license(terms: str) -> list[str]:
    slug = re.sub(r"[^a-z0-9.]+", "-", terms.lower()).strip("-")
    return ["license: other", f"license_name: {json.dumps(slug)}"]


def _facts(checkpoint: Checkpoint, dtype: torch.dtype | None) -> str:
    network, metadata = checkpoint.network, checkpoint.metadata
    rank = network.config.vae.lora_rank
    parameters = list(network.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    size = sum(parameter.numel() * (dtype or parameter.dtype).itemsize for parameter in parameters)
    references = "used: attention runs across views" if checkpoint.uses_reference else "not known; do not pass any"
    rows: list[tuple[str, Any]] = [
        ("origin", metadata.origin or "not recorded"),
        ("references", references),
        ("prompt", json.dumps(checkpoint.prompt)),
        ("timestep", metadata.timestep),
        ("parameters", f"{count / 1e6:,.1f} million, {size / 2**20:,.1f} MiB as saved"),
        ("decoder's adapters", f"rank {rank}" if rank else "none, or folded into the layers"),
    ]
    if metadata.gate is not None:
        rows.append(("gate", f"`{json.dumps(metadata.to_dict()['gate'])}`"))
    return "\n".join(["| | |", "|---|---|", *(f"| {label} | {_cell(value)} |" for label, value in rows)])


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
