"""A small text encoder that knows a list of words: for small models of one's own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn

from diffsplat.denoiser import TextCondition
from diffsplat.errors import InputError

VOCABULARY_FILE = "words.json"
WEIGHTS_FILE = "model.safetensors"
PADDING, UNKNOWN = 0, 1
NUM_SPECIAL = 2


class WordEncoder(nn.Module):
    """Words to vectors: an embedding of words and places, and one transformer layer."""

    def __init__(self, words: Sequence[str], *, dim: int = 64, num_tokens: int = 12, num_heads: int = 4) -> None:
        """Make an encoder with fresh weights.

        Args:
            words: What it knows, in lower case; all else is one unknown word.
            dim: Channels of a token.
            num_tokens: Longest prompt; longer ones are cut.
            num_heads: Attention heads.
        """
        super().__init__()
        self.words = tuple(words)
        self.num_tokens, self.num_heads = num_tokens, num_heads
        self._index = {word: index + NUM_SPECIAL for index, word in enumerate(self.words)}
        self.embedding = nn.Embedding(len(self.words) + NUM_SPECIAL, dim)
        self.places = nn.Parameter(0.02 * torch.randn(num_tokens, dim))
        self.layer = nn.TransformerEncoderLayer(
            dim, num_heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(dim)

    def tokens(self, prompts: Sequence[str]) -> Int[Tensor, "b m"]:
        """Numbers of the words, filled up with padding."""
        rows = []
        for prompt in prompts:
            found = [self._index.get(word, UNKNOWN) for word in re.findall(r"[a-z]+", prompt.lower())]
            rows.append((found + [PADDING] * self.num_tokens)[: self.num_tokens])
        return torch.tensor(rows, device=self.places.device)

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of a prompt that it does not know."""
        return [word for word in re.findall(r"[a-z]+", prompt.lower()) if word not in self._index]

    def forward(self, prompts: Sequence[str]) -> TextCondition:
        """Encode prompts; padding attends and is attended to like any token."""
        return TextCondition(embeds=self.norm(self.layer(self.embedding(self.tokens(prompts)) + self.places)))

    def write_settings(self, folder: Path) -> None:
        """Write what the encoder is made from, without its weights."""
        settings = {
            "words": list(self.words), "dim": self.places.shape[1], "num_tokens": self.num_tokens,
            "num_heads": self.num_heads,
        }  # fmt: skip
        (folder / VOCABULARY_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_folder(cls, folder: Path) -> WordEncoder:
        """Read an encoder."""
        from diffsplat.checkpoints import load_into, read_state

        path = folder / VOCABULARY_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            encoder = cls(
                values["words"], dim=values["dim"], num_tokens=values["num_tokens"], num_heads=values["num_heads"]
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no list of words of a text encoder: {error}") from error
        load_into(encoder, read_state([folder / WEIGHTS_FILE]), where=folder)
        return encoder.eval()
