"""Prompts to what the denoisers attend to: CLIP for Stable Diffusion 1.5, T5 for PixArt-Sigma, both for 3.5."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diffsplat.denoiser import TextCondition

CLIP_TOKENS = 77
PIXART_TOKENS = 300
SD3_T5_TOKENS = 256


@runtime_checkable
class TextEncoder(Protocol):
    """Encodes prompts, one row each."""

    def __call__(self, prompts: Sequence[str]) -> TextCondition:
        """Encode; longer prompts are cut."""
        ...

    def modules(self) -> Iterable[nn.Module]:
        """The networks, to be moved or dropped."""
        ...


def _tokens(tokenizer: Any, prompts: Sequence[str], length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    found = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return found.input_ids.to(device), found.attention_mask.to(device)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipTextEncoder:
    """CLIP's last hidden states, for Stable Diffusion 1.5."""

    tokenizer: Any
    """Of transformers."""
    encoder: nn.Module
    """A `CLIPTextModel`."""

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> TextCondition:
        """Encode prompts."""
        device = next(self.encoder.parameters()).device
        ids, _ = _tokens(self.tokenizer, prompts, min(CLIP_TOKENS, self.tokenizer.model_max_length), device)
        return TextCondition(embeds=self.encoder(ids)[0])

    def modules(self) -> list[nn.Module]:
        """The networks."""
        return [self.encoder]


@dataclass(frozen=True, kw_only=True, eq=False)
class T5TextEncoder:
    """T5's last hidden states and which tokens count, for PixArt-Sigma."""

    tokenizer: Any
    """Of transformers."""
    encoder: nn.Module
    """A `T5EncoderModel`."""
    num_tokens: int = PIXART_TOKENS
    """Length that prompts are filled up or cut to."""

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> TextCondition:
        """Encode prompts."""
        device = next(self.encoder.parameters()).device
        ids, mask = _tokens(self.tokenizer, prompts, self.num_tokens, device)
        return TextCondition(embeds=self.encoder(ids, attention_mask=mask)[0], mask=mask)

    def modules(self) -> list[nn.Module]:
        """The networks."""
        return [self.encoder]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sd3TextEncoder:
    """Two CLIP networks side by side, filled up with zeros, and T5 behind them, for Stable Diffusion 3.5."""

    tokenizers: tuple[Any, Any, Any]
    """Of transformers: CLIP-L's, CLIP-G's and T5's."""
    encoders: tuple[nn.Module, nn.Module, nn.Module | None]
    """Two `CLIPTextModelWithProjection` and a `T5EncoderModel`, or None to leave it out: its tokens are then zeros."""
    joint_dim: int
    """Width of the tokens, T5's."""

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> TextCondition:
        """Encode prompts."""
        hidden, pooled = [], []
        for tokenizer, encoder in zip(self.tokenizers[:2], self.encoders[:2], strict=True):
            assert encoder is not None
            device = next(encoder.parameters()).device
            ids, _ = _tokens(tokenizer, prompts, min(CLIP_TOKENS, tokenizer.model_max_length), device)
            found = encoder(ids, output_hidden_states=True)
            hidden.append(found.hidden_states[-2])
            pooled.append(found.text_embeds)
        clip = torch.cat(hidden, dim=-1)
        clip = nn.functional.pad(clip, (0, self.joint_dim - clip.shape[-1]))
        t5 = self.encoders[2]
        if t5 is None:
            rest = clip.new_zeros(len(prompts), SD3_T5_TOKENS, self.joint_dim)
        else:
            ids, _ = _tokens(self.tokenizers[2], prompts, SD3_T5_TOKENS, next(t5.parameters()).device)
            rest = t5(ids)[0].to(clip)
        return TextCondition(embeds=torch.cat([clip, rest], dim=1), pooled=torch.cat(pooled, dim=-1))

    def modules(self) -> list[nn.Module]:
        """The networks."""
        return [encoder for encoder in self.encoders if encoder is not None]
