"""DifixPipeline: RGB images in, RGB images of the same sizes and types out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from difix_model.checkpoint import Checkpoint
from difix_model.config import TIMESTEP
from difix_model.diffusers_call import call_like_diffusers, checked_loading_dtype, is_diffusers_call
from difix_model.errors import InputError
from difix_model.images import AnyImage, cropped, from_network, padded, resized, to_network, to_rgb
from difix_model.pipeline_methods import PipelineMethods
from difix_model.sources import DEFAULT_SOURCE, load_source


class DifixPipeline(PipelineMethods):
    """Fixes rendered images, optionally with captured images of the same place from nearby as references.

    The result is deterministic: the latent is the encoder's mean, not a sample. Images are padded to the size that the
    network needs and cropped back, so nothing is distorted.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 4,
    ) -> None:
        """Take over a checkpoint's network; its decoder's adapters are folded into the layers.

        Args:
            checkpoint: What to run. Its metadata may hold "uses_reference", "timestep" and "gate".
            device: Where to.
            dtype: Floating-point type of the network.
            batch_size: How many images of one size are fixed at a time.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.network = checkpoint.network.merge_lora().to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.text_embedding = checkpoint.text_embedding.to(device=device, dtype=dtype)
        self.prompt = checkpoint.prompt
        self.metadata = dict(checkpoint.metadata)
        self.timestep = int(self.metadata.get("timestep", TIMESTEP))
        self.uses_reference = bool(self.metadata.get("uses_reference", checkpoint.network.config.reference_attention))
        self.device = torch.device(device)
        self.dtype = dtype
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str = DEFAULT_SOURCE,
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        base: Path | str | None = None,
        prompt: str | None = None,
        uses_reference: bool | None = None,
        batch_size: int = 4,
        **diffusers: Any,
    ) -> "DifixPipeline":
        """Load a pipeline from any kind of weights.

        Args:
            source: "default" (the weights of this package), a checkpoint folder of ours, a folder in the published
                layout, a hub id such as `nvidia/difix_ref`, or a `model_<step>.pkl` of the released trainer.
            revision: Branch, tag or commit of a hub repository.
            device: Where to run.
            dtype: Floating-point type of the network; bfloat16 suits GPUs.
            base: For a .pkl, what it was trained from: folder or hub id of SD-Turbo or published Difix weights.
            prompt: Prompt; None takes the checkpoint's, or the one of the released weights.
            uses_reference: Whether the weights know references; None takes it from the checkpoint. A .pkl does not
                say and is taken to know them.
            batch_size: How many images of one size are fixed at a time.
            diffusers: What scripts for a diffusers pipeline pass: `torch_dtype` counts as `dtype`, and
                `trust_remote_code` has no effect, since code of a repository is never run.

        Raises:
            InputError: If the weights cannot be found, read or used this way.
        """
        dtype = checked_loading_dtype(dtype, diffusers)
        checkpoint = load_source(source, revision=revision, base=base, prompt=prompt, uses_reference=uses_reference)
        return cls(checkpoint, device=device, dtype=dtype, batch_size=batch_size)

    def __call__(
        self,
        images: AnyImage | Sequence[AnyImage] = None,
        references: Any = None,
        *,
        strength: float = 1.0,
        **diffusers: Any,
    ) -> Any:
        """Fix one image or a list of images.

        Args:
            images: PIL images, HWC arrays or HWC tensors, uint8 or float in [0, 1], of any sizes.
            references: For one image: None, a reference, or a list of references. For a list of images: None, or a
                list with one of these per image. References of another size are resized.
            strength: Share of the fix, in [0, 1]; below 1 the result is blended with the input.
            diffusers: With a prompt instead of images, the arguments of `call_like_diffusers`, for scripts written
                for the released pipeline: `pipe(prompt, image=..., ref_image=..., timesteps=[199]).images[0]`.

        Returns:
            Fixed images of the same types and sizes, in the same order; a list if a list was given.

        Raises:
            InputError: If an image cannot be used, the numbers differ, or the weights know no references.
        """
        if is_diffusers_call(images, diffusers):
            positional = [given for given in (images, references) if given is not None]
            return call_like_diffusers(self, *positional, strength=strength, **diffusers)
        if diffusers:
            raise TypeError(f"DifixPipeline got unexpected arguments: {', '.join(sorted(diffusers))}")
        if not 0.0 <= strength <= 1.0:
            raise InputError(f"strength must be in [0, 1], got {strength}")
        single = not isinstance(images, (list, tuple))
        given = [images] if single else list(images)
        references = [references] if single or references is None else list(references)
        if len(references) == 1 and references[0] is None:
            references = [None] * len(given)
        if len(references) != len(given):
            raise InputError(
                f"there must be one reference per image: got {len(given)} images, {len(references)} references"
            )
        converted = [to_rgb(image) for image in given]
        rgbs = [rgb for rgb, _ in converted]
        views = [self._reference_views(entry, rgb) for entry, rgb in zip(references, rgbs, strict=True)]
        fixed = self._fix_in_batches(rgbs, views, strength)
        results = [restore(rgb) for rgb, (_, restore) in zip(fixed, converted, strict=True)]
        return results[0] if single else results

    @torch.no_grad()
    def fix(
        self,
        rendered: Float[Tensor, "b h w c=3"],
        references: Float[Tensor, "n *r h2 w2 c=3"] | None = None,
        *,
        strength: float = 1.0,
    ) -> Float[Tensor, "b h w c=3"]:
        """Fix a batch of tensors, for use in loops.

        Args:
            rendered: RGB in [0, 1]; values beyond are clamped.
            references: One reference each, or several (a second axis); of another size they are resized.
            strength: Share of the fix, in [0, 1].

        Returns:
            RGB in [0, 1], float32, on the device of `rendered`.

        Raises:
            InputError: If references are given to weights that know none, or not one per image.
        """
        if references is not None:
            self._check_references(rendered, references)
        height, width = rendered.shape[1:3]
        if references is not None and references.ndim == 4:
            references = references[:, None]
        fixed = []
        for start in range(0, rendered.shape[0], self.batch_size):
            part = slice(start, start + self.batch_size)
            views = rendered[part][:, None]
            if references is not None:
                num_references = references.shape[1]
                flat = resized(rearrange(references[part], "b r h w c -> (b r) h w c").float(), height, width)
                views = torch.cat(
                    [views, rearrange(flat, "(b r) h w c -> b r h w c", r=num_references).to(views)], dim=1
                )
            fixed.append(self._fix_views(views).to(rendered.device))
        result = torch.cat(fixed) if fixed else rendered.float()
        rendered = rendered.float().clamp(0.0, 1.0)
        result = self._gated(rendered, result)
        return result if strength == 1.0 else torch.lerp(rendered, result, strength)

    def _fix_views(self, views: Float[Tensor, "b v h w c=3"]) -> Float[Tensor, "b h w c=3"]:
        num_samples, _, height, width, _ = views.shape
        x = rearrange(to_network(views.to(self.device).float()).to(self.dtype), "b v c h w -> (b v) c h w")
        x = padded(x, self.network.config.vae.downscale_factor)
        x = rearrange(x, "(b v) c h w -> b v c h w", b=num_samples)
        output = self.network(x, text_embedding=self.text_embedding, timestep=self.timestep, decode="target")
        return from_network(cropped(output[:, 0].float(), height, width))

    def _gated(self, rendered: Tensor, fixed: Tensor) -> Tensor:
        if self.metadata.get("gate") is None:
            return fixed
        from difix_model.gate import GateConfig, apply_gate

        return apply_gate(rendered, fixed, GateConfig(**self.metadata["gate"]))

    def _check_references(self, rendered: Tensor, references: Tensor) -> None:
        if not self.uses_reference:
            raise InputError(
                "these weights know no references: leave the references out, or use weights such as nvidia/difix_ref"
            )
        if references.shape[0] != rendered.shape[0]:
            raise InputError(
                f"there must be one reference per image: got {rendered.shape[0]} images, "
                f"{references.shape[0]} references"
            )

    def _reference_views(self, entry: Any, rgb: Tensor) -> Tensor | None:
        """Return the references of one image in its size, `[r h w 3]`."""
        if entry is None:
            return None
        several = entry if isinstance(entry, (list, tuple)) else [entry]
        if not several:
            return None
        height, width = rgb.shape[:2]
        return torch.cat([resized(to_rgb(reference)[0][None], height, width) for reference in several])

    def _fix_in_batches(self, rgbs: list[Tensor], views: list[Tensor | None], strength: float) -> list[Tensor]:
        """Fix images of equal size and number of references together; results are on the CPU."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (rgb, references) in enumerate(zip(rgbs, views, strict=True)):
            num_references = 0 if references is None else references.shape[0]
            groups.setdefault((*rgb.shape[:2], num_references), []).append(index)
        fixed: dict[int, Tensor] = {}
        for indices in groups.values():
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                references = [view for i in batch if (view := views[i]) is not None]
                stacked = torch.stack(references) if references else None
                results = self.fix(torch.stack([rgbs[i] for i in batch]), stacked, strength=strength)
                fixed |= dict(zip(batch, results.cpu(), strict=True))
        return [fixed[index] for index in range(len(rgbs))]
