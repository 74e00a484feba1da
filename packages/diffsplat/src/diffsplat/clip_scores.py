"""How well renders fit their prompts, by CLIP: similarity and R-precision, as T3Bench's lists are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from diffsplat.errors import InputError

CLIP_B32 = "openai/clip-vit-base-patch32"
"""The network that published figures were measured with."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""What CLIP's images are normalized with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipScorer:
    """CLIP's two networks."""

    model: Any
    """A `CLIPModel`."""
    tokenizer: Any

    @classmethod
    def from_pretrained(cls, source: Path | str = CLIP_B32, device: torch.device | str = "cpu") -> ClipScorer:
        """Load CLIP from a folder, or from the hub's cache; nothing is downloaded."""
        from transformers import AutoTokenizer, CLIPModel

        try:
            model = CLIPModel.from_pretrained(source, local_files_only=True, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"CLIP is not available ({said}): fetch it once with `hf download {CLIP_B32}`, or name its folder"
            ) from error
        return cls(model=model.eval().requires_grad_(False).to(device), tokenizer=tokenizer)

    @torch.no_grad()
    def of_images(self, rgb: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Unit vectors of images in [0, 1]."""
        size = int(self.model.config.vision_config.image_size)
        device = next(self.model.parameters()).device
        x = functional.interpolate(rgb.to(device), size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
        pooled = self.model.vision_model(pixel_values=(x - mean) / std).pooler_output
        return functional.normalize(self.model.visual_projection(pooled), dim=-1)

    @torch.no_grad()
    def of_prompts(self, prompts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit vectors of prompts."""
        device = next(self.model.parameters()).device
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt").to(device)
        pooled = self.model.text_model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output  # fmt: skip
        return functional.normalize(self.model.text_projection(pooled), dim=-1)


def similarity_and_precision(
    images: Float[Tensor, "p v d"], prompts: Float[Tensor, "p d"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """CLIP similarity in percent and R-precision of each prompt, mean over its views.

    A view counts for R-precision if its own prompt is the nearest of all.

    Args:
        images: Unit vectors of every prompt's views.
        prompts: Unit vectors of the prompts.
    """
    scores = torch.einsum("pvd,qd->pvq", images, prompts)
    own = torch.arange(len(prompts), device=scores.device)
    similarity = 100 * scores[own, :, own].mean(dim=1)
    nearest = scores.argmax(dim=-1) == own[:, None]
    return similarity, nearest.float().mean(dim=1)
