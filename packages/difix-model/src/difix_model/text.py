"""Prompt to embedding with CLIP, once per prompt; the encoder can be dropped afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difix_model.errors import InputError, first_problems

TOKENIZER_FOLDER = "tokenizer"
ENCODER_FOLDER = "text_encoder"

POSITION_IDS = "embeddings.position_ids"
"""A constant that old checkpoints store; of no consequence when it is left over."""


class TextEncoder:
    """A CLIP tokenizer and text model from a folder in the published layout."""

    def __init__(self, folder: Path | str) -> None:
        """Read tokenizer and text model.

        Args:
            folder: Contains `tokenizer/` and `text_encoder/`.
        """
        # Both are slow to import, and no one needs them who has an embedding.
        from transformers import CLIPTextModel, CLIPTokenizer

        folder = Path(folder)
        for part, needed in ((TOKENIZER_FOLDER, "vocab.json"), (ENCODER_FOLDER, "config.json")):
            if not (folder / part / needed).is_file():
                raise InputError(f"{folder / part / needed} does not exist: the prompt cannot be embedded without it")
        try:
            self.tokenizer = CLIPTokenizer.from_pretrained(folder / TOKENIZER_FOLDER, local_files_only=True)
            with _no_progress_bar():
                loaded: Any = CLIPTextModel.from_pretrained(
                    folder / ENCODER_FOLDER, local_files_only=True, output_loading_info=True, dtype=torch.float32
                )
                self.model, info = loaded
        except Exception as error:  # transformers raises whatever its parsers raise.
            raise InputError(f"cannot read the text encoder of {folder}, it may be damaged: {error}") from error
        problems = [f"missing {name}" for name in info["missing_keys"]]
        problems += [f"unexpected {name}" for name in info["unexpected_keys"] if not name.endswith(POSITION_IDS)]
        if problems:
            raise InputError(f"the text encoder of {folder} does not fit: {first_problems(sorted(problems))}")
        self.model.eval().requires_grad_(False)
        self._embeddings: dict[str, Tensor] = {}

    def token_ids(self, prompt: str) -> Int[Tensor, " n"]:
        """Return the prompt's token ids, padded and cut to the model's length."""
        tokens = self.tokenizer(
            prompt,
            max_length=self.tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        return tokens.input_ids[0]

    def __call__(self, prompt: str) -> Float[Tensor, "n d"]:
        """Return the prompt's embedding in float32 on the CPU: the last hidden state after the final layer norm."""
        if prompt not in self._embeddings:
            with torch.no_grad():
                self._embeddings[prompt] = self.model(self.token_ids(prompt)[None])[0][0]
        return self._embeddings[prompt]


def embed_prompt(prompt: str, folder: Path | str) -> Float[Tensor, "n d"]:
    """Embed one prompt and drop the encoder.

    Args:
        prompt: The text.
        folder: Contains `tokenizer/` and `text_encoder/`.

    Raises:
        InputError: If the encoder cannot be read.
    """
    return TextEncoder(folder)(prompt)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
