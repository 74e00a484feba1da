"""`DifixPipeline` behind the call and the methods of a diffusers pipeline, so that scripts need one changed import.

`from difix_model.diffusers import DifixPipeline` in the place of the released code's own import is all.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from difix_model import pipeline
from difix_model.config import NUM_TRAIN_TIMESTEPS
from difix_model.errors import InputError
from difix_model.formats.sources import DEFAULT_SOURCE
from difix_model.released_pipeline import ReleasedOutput, ReleasedPipeline

__all__ = ["DifixPipeline"]

logger = logging.getLogger(__name__)

WITHOUT_EFFECT = frozenset({"height", "width", "negative_prompt", "negative_prompt_embeds", "eta"})
"""Arguments that change nothing in the released pipeline's single step without guidance either."""

LOADING_WITHOUT_EFFECT = frozenset({"trust_remote_code", "use_safetensors", "low_cpu_mem_usage", "variant"})
"""Arguments of diffusers' `from_pretrained` that there is nothing to do for: code of a repository never runs, and
only safetensors are read."""


class DifixPipeline:
    """The released pipeline's call on `difix_model.DifixPipeline`.

    Args:
        pipe: What fixes.
    """

    def __init__(self, pipe: pipeline.DifixPipeline) -> None:
        self.pipeline = pipe

    @classmethod
    def from_pretrained(cls, source: Path | str = DEFAULT_SOURCE, **arguments: Any) -> "DifixPipeline":
        """Load weights; the arguments are those of `difix_model.DifixPipeline.from_pretrained` and of diffusers.

        `torch_dtype` counts as `dtype`; `trust_remote_code` has no effect, since code of a repository is never run.

        Raises:
            TypeError: If an argument is known to neither.
        """
        return cls(pipeline.DifixPipeline.from_pretrained(source, **_loading_arguments(arguments)))

    def to(self, *targets: str | torch.device | torch.dtype) -> "DifixPipeline":
        """Move the pipeline to a device, a floating-point type, or both, in place; returns itself."""
        self.pipeline.to(*targets)
        return self

    def set_progress_bar_config(self, **_: Any) -> None:
        """Do nothing, since there is no progress bar; scripts for a diffusers pipeline call it."""

    @overload
    def __call__(
        self, prompt: Any = None, image: Any = None, ref_image: Any = None, *, return_dict: Literal[False], **more: Any
    ) -> tuple[Any, None]: ...

    @overload
    def __call__(
        self, prompt: Any = None, image: Any = None, ref_image: Any = None, **arguments: Any
    ) -> ReleasedOutput: ...

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        image: Any = None,
        ref_image: Any = None,
        *,
        num_inference_steps: int = 1,
        timesteps: Sequence[int] | None = None,
        guidance_scale: float = 0.0,
        num_images_per_prompt: int | None = 1,
        generator: Any = None,
        prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        strength: float = 1.0,
        **others: Any,
    ) -> ReleasedOutput | tuple[Any, None]:
        """Fix images with the arguments of the released pipeline.

        Without a generator the result is that of `difix_model.DifixPipeline`: deterministic, of the input's size,
        references of any size, the weights' gate applied. With one, the latents are sampled and the sides floored to a
        multiple of 8 as in the released pipeline, whose numbers it reproduces (`ReleasedPipeline`; no gate, as there
        is none there).

        Args:
            prompt: The prompt that the pipeline was loaded with, once or once per image; None is that one as well.
            image: PIL image, HWC or NHWC array, CHW or NCHW tensor in [0, 1], or a list.
            ref_image: References, of the same number.
            num_inference_steps: 1.
            timesteps: None, or one timestep; without a generator the one of the weights.
            guidance_scale: At most 1, which means none.
            num_images_per_prompt: Results per image; more than one needs a generator.
            generator: torch's, one or one per image; None for a deterministic result.
            prompt_embeds: Instead of a prompt, with a generator.
            output_type: "pil", "np", "pt" or, with a generator, "latent".
            return_dict: False returns a tuple of the images and None, as diffusers does.
            strength: Share of the fix, in [0, 1]; with a generator 1.
            others: What else a script passes; refused unless it is None or without effect there as well.
        """
        pipe = self.pipeline
        timestep = _checked_timestep(pipe, num_inference_steps, timesteps, guidance_scale)
        _check_others(others)
        if output_type not in ("pil", "np", "pt", "latent"):
            raise InputError(f'output_type must be "pil", "np", "pt" or "latent", got {output_type!r}')
        if image is None:
            raise InputError("an image is needed beside the prompt: pass image= with a PIL image, an array or a tensor")
        if generator is None:
            if prompt_embeds is not None or output_type == "latent" or num_images_per_prompt not in (None, 1):
                raise InputError(
                    'prompt_embeds, output_type="latent" and num_images_per_prompt above 1 need a generator: '
                    "pass generator=torch.Generator().manual_seed(0)"
                )
            if timestep != pipe.timestep:
                raise InputError(
                    f"these weights work at timestep {pipe.timestep}, got {timestep}: leave timesteps out, "
                    "or pass a generator to get what the released pipeline computes"
                )
            for text in [prompt] if isinstance(prompt, str) or prompt is None else prompt:
                _embedding(pipe, pipe.prompt if text is None else text)
            images = _fixed(pipe, image, ref_image, output_type, strength)
        else:
            if strength != 1.0:
                raise InputError(f"with a generator, strength must be 1, got {strength}: leave the generator out")
            released = ReleasedPipeline(
                pipe.network, lambda text: _embedding(pipe, text), device=pipe.device, dtype=pipe.dtype
            )
            images = released(
                pipe.prompt if prompt is None and prompt_embeds is None else prompt,
                image,
                ref_image,
                timesteps=[timestep],
                guidance_scale=guidance_scale,
                num_images_per_prompt=num_images_per_prompt or 1,
                generator=generator,
                prompt_embeds=prompt_embeds,
                output_type=output_type,
            ).images
        return ReleasedOutput(images=images) if return_dict else (images, None)


def _loading_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """What of a script's arguments says something here: the type to load in, and all that diffusers does not know."""
    if arguments.get("trust_remote_code"):
        logger.info("trust_remote_code is not needed: code of a repository is never run")
    if arguments.get("variant") is not None:
        raise InputError(f"variants of weights are not read (got variant={arguments['variant']!r}): pass dtype instead")
    kept = {name: value for name, value in arguments.items() if name not in LOADING_WITHOUT_EFFECT}
    torch_dtype = kept.pop("torch_dtype", None)
    return kept if torch_dtype is None else {**kept, "dtype": torch_dtype}


def _checked_timestep(
    pipe: pipeline.DifixPipeline, num_inference_steps: int, timesteps: Sequence[int] | None, guidance_scale: float
) -> int:
    if num_inference_steps != 1:
        raise InputError(f"Difix takes one step: num_inference_steps must be 1, got {num_inference_steps}")
    if guidance_scale > 1.0:
        raise InputError(f"Difix is used without guidance: guidance_scale must be at most 1, got {guidance_scale}")
    visited = [pipe.timestep] if timesteps is None else [int(t) for t in timesteps]
    if len(visited) != 1 or not 0 <= visited[0] < NUM_TRAIN_TIMESTEPS:
        raise InputError(
            f"timesteps must name one timestep in [0, {NUM_TRAIN_TIMESTEPS - 1}], such as [199], got {visited}"
        )
    return visited[0]


def _check_others(others: dict[str, Any]) -> None:
    given = sorted(name for name, value in others.items() if value is not None)
    refused = [name for name in given if name not in WITHOUT_EFFECT]
    if refused:
        raise InputError(f"Difix's single step knows nothing of {', '.join(refused)}: leave it out")
    if given:
        logger.warning("%s has no effect here, as in the released pipeline", ", ".join(given))


def _embedding(pipe: pipeline.DifixPipeline, prompt: str) -> Tensor:
    if prompt != pipe.prompt:
        raise InputError(
            f'this pipeline was loaded with the prompt "{pipe.prompt}", got "{prompt}": '
            "load it with from_pretrained(..., prompt=...)"
        )
    return pipe.text_embedding


def _fixed(pipe: pipeline.DifixPipeline, image: Any, ref_image: Any, output_type: str, strength: float) -> Any:
    images = _as_list(image)
    references = None if ref_image is None else _as_list(ref_image)
    if output_type != "pil" or not all(isinstance(entry, Image.Image) for entry in images):
        images = [_as_array(entry) for entry in images]
    if references is not None:
        references = [_as_array(entry) for entry in references]
    fixed = pipe(images, references, strength=strength)
    if output_type == "pil":
        return [entry if isinstance(entry, Image.Image) else _to_pil(entry) for entry in fixed]
    if any(entry.shape != fixed[0].shape for entry in fixed):
        raise InputError(f'images of several sizes make no array: pass output_type="pil" instead of "{output_type}"')
    stacked = np.stack(fixed)
    return stacked if output_type == "np" else torch.from_numpy(stacked.transpose(0, 3, 1, 2).copy())


def _as_list(image: Any) -> list[Any]:
    if isinstance(image, (list, tuple)):
        return list(image)
    return list(image) if isinstance(image, (np.ndarray, Tensor)) and image.ndim == 4 else [image]


def _as_array(image: Any) -> Any:
    """Return an image as an HWC array in [0, 1]; diffusers' tensors are CHW."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    if isinstance(image, Tensor):
        image = image.detach().float().cpu().movedim(-3, -1).numpy()
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    return image.astype(np.float32) / 255.0 if image.dtype == np.uint8 else image


def _to_pil(image: Any) -> Image.Image:
    if image.dtype != np.uint8:
        image = (np.clip(image, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return Image.fromarray(image)
