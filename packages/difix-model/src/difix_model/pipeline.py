"""DifixPipeline: RGB images in, RGB images of the same sizes and types out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, overload

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from difix_model.device import prefers_channels_last
from difix_model.errors import InputError
from difix_model.formats.checkpoint import Checkpoint
from difix_model.formats.publishing import push_checkpoint, save_with_card
from difix_model.formats.sources import DEFAULT_SOURCE, load_source
from difix_model.gate.apply import Gated, apply_gate
from difix_model.gate.config import GateChoice, chosen_gate
from difix_model.images import AnyImage, GivenImage, colors, given_image, on_device
from difix_model.inference.reference_cache import DEFAULT_CACHE_BYTES, ReferenceImage
from difix_model.inference.runner import NetworkRunner
from difix_model.inference.tiling import TilingConfig
from difix_model.masks import FixedImage, one_per_image, planes

ImageT = TypeVar("ImageT", Image.Image, np.ndarray, Tensor)
"""What comes back is of the kind that was given."""


class FixOptions(TypedDict, total=False):
    """What a call of the pipeline takes beside images and references; its docstring says what of it does what."""

    strength: float
    gate: GateChoice | None
    mask: Any
    alpha: Any


NO_REFERENCES = "these weights know no references: leave the references out, or use weights such as nvidia/difix_ref"


class DifixPipeline:
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
        tiling: TilingConfig | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        channels_last: bool | None = None,
        compile: bool | str = False,
    ) -> None:
        """Take over a checkpoint's network; its decoder's adapters are folded into the layers.

        Args:
            checkpoint: What to run. Its metadata says whether references are used, the timestep and the gate.
            device: Where to.
            dtype: Floating-point type of the network.
            batch_size: How many images of one size are fixed at a time; less where memory runs out.
            tiling: When and how large images are cut into tiles; None means the defaults of `TilingConfig`.
            cache_bytes: Room for latents of references, which are kept from call to call; 0 keeps none.
            channels_last: Memory layout of images and weights; None takes the faster one of the device.
            compile: Whether to run through `torch.compile`, or its mode, such as "max-autotune". Compiling takes
                seconds to minutes for each new size, number of references and batch size.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.network = checkpoint.network.merge_lora().to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.text_embedding = checkpoint.text_embedding.to(device=device, dtype=dtype)
        self.prompt = checkpoint.prompt
        self.metadata = checkpoint.metadata
        self.timestep = self.metadata.timestep
        self.uses_reference = checkpoint.uses_reference
        self.gate: GateChoice = "checkpoint"
        """How much of a fix is believed where a call does not say."""
        self.device = torch.device(device)
        self.dtype = dtype
        self.batch_size = batch_size
        self.runner = NetworkRunner(
            self.network,
            tiling=tiling,
            cache_bytes=cache_bytes,
            channels_last=prefers_channels_last(self.device) if channels_last is None else channels_last,
            compile_mode=("default" if compile else None) if isinstance(compile, bool) else compile,
        )

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
        tiling: TilingConfig | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        channels_last: bool | None = None,
        compile: bool | str = False,
    ) -> "DifixPipeline":
        """Load a pipeline from any kind of weights.

        Args:
            source: "default" (the weights of this package), a checkpoint folder of ours, the folder of a training run
                or of one of its checkpoints, a folder in the published layout, a hub id such as `nvidia/difix_ref`, or
                a `model_<step>.pkl` of the released trainer.
            revision: Branch, tag or commit of a hub repository.
            device: Where to run.
            dtype: Floating-point type of the network; bfloat16 suits GPUs.
            base: For a .pkl, what it was trained from: folder or hub id of SD-Turbo or published Difix weights.
            prompt: Prompt; None takes the checkpoint's, or the one of the released weights.
            uses_reference: Whether the weights know references; None takes it from the checkpoint. A .pkl does not
                say and is taken to know them.
            batch_size: How many images of one size are fixed at a time; less where memory runs out.
            tiling: When and how large images are cut into tiles; None means the defaults of `TilingConfig`.
            cache_bytes: Room for latents of references, which are kept from call to call; 0 keeps none.
            channels_last: Memory layout of images and weights; None takes the faster one of the device.
            compile: Whether to run through `torch.compile`, or its mode, such as "max-autotune". Compiling takes
                seconds to minutes for each new size, number of references and batch size.
        """
        checkpoint = load_source(source, revision=revision, base=base, prompt=prompt, uses_reference=uses_reference)
        return cls(
            checkpoint,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            tiling=tiling,
            cache_bytes=cache_bytes,
            channels_last=channels_last,
            compile=compile,
        )

    @overload
    def __call__(
        self, images: Sequence[ImageT], references: Any = None, **options: Unpack[FixOptions]
    ) -> list[ImageT]: ...

    @overload
    def __call__(self, images: ImageT, references: Any = None, **options: Unpack[FixOptions]) -> ImageT: ...

    def __call__(
        self, images: AnyImage | Sequence[AnyImage], references: Any = None, **options: Unpack[FixOptions]
    ) -> AnyImage | list[AnyImage]:
        """Fix one image or a list of images.

        Args:
            images: PIL images, HWC arrays or HWC tensors, uint8 or float in [0, 1], of any sizes.
            references: For one image: None, a reference, or a list of references. For a list of images: None, or a
                list with one of these per image. References of another size are resized.
            strength: Fraction of the fix, in [0, 1], 1 by default; below, the result is blended with the input.
            gate: How much of the fix is let through: "checkpoint" takes the gate that the weights bring, if any; "auto"
                `gate.config.DEFAULT_GATE`, which keeps good renders, unless theirs looks at evidence as well; "off"
                none; or a `GateConfig`. None takes the pipeline's `gate`.
            mask: Where an image may be changed: gray, white for yes. One for all images, or a list with one per image.
                Where it is black, the image comes back bit by bit.
            alpha: Opacity of the renders, for the gate, in the same form; None takes an image's alpha channel.

        Returns:
            Fixed images of the same types and sizes, in the same order; a list if a list was given. `fix_images` also
            says what became of each.
        """
        single = not isinstance(images, (list, tuple))
        found = [each.image for each in self.fix_images(images, references, with_weight=False, **options)]
        return found[0] if single else found

    def fix_images(
        self,
        images: AnyImage | Sequence[AnyImage],
        references: Any = None,
        *,
        strength: float = 1.0,
        gate: GateChoice | None = None,
        mask: Any = None,
        alpha: Any = None,
        with_weight: bool = True,
    ) -> list[FixedImage]:
        """Fix images, and say of each how much of its fix was let through where, and why not all.

        The arguments are those of a call; one image counts as a list of one. Without `with_weight` nothing is said of
        pixels, which takes less time and memory.
        """
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
        taken = [given_image(image) for image in given]
        views = [self._references_of(entry, image) for entry, image in zip(references, taken, strict=True)]
        rgbs = [image.rgb(self.device) for image in taken]
        sizes = [(image.height, image.width) for image in taken]
        masks = planes(one_per_image(mask, len(given), "mask"), sizes, "mask")
        alphas = planes(one_per_image(alpha, len(given), "opacity"), sizes, "opacity")
        chosen = chosen_gate(gate or self.gate, self.metadata.gate)
        results = []
        judges = chosen is not None and chosen.evidence is not None
        for number, (image, rgb, fixed) in enumerate(zip(taken, rgbs, self._run(rgbs, views), strict=True)):
            opacity = image.opacity() if alphas[number] is None else alphas[number]
            finished = apply_gate(
                rgb[None],
                fixed[None],
                chosen,
                strength=strength,
                mask=_batched(masks[number], rgb),
                alpha=_batched(opacity, rgb),
                references=_batched(colors(on_device(views[number][0].pixels, rgb.device)), rgb)
                if judges and views[number]
                else None,
                with_weight=with_weight,
                in_place=True,
            )
            weight = None if finished.weight is None else finished.weight[0].float().cpu().numpy()
            restored = image.restore(finished.rgb[0])
            results.append(FixedImage(image=restored, weight=weight, verdict=finished.verdicts[0]))
        return results

    def fix(
        self,
        rendered: Float[Tensor, "b h w c=3"],
        references: Float[Tensor, "n *r h2 w2 c=3"] | Sequence[Sequence[Float[Tensor, "_h _w c=3"]]] | None = None,
        *,
        strength: float = 1.0,
        gate: GateChoice | None = None,
        mask: Float[Tensor, "b h w"] | None = None,
        alpha: Float[Tensor, "b h w"] | None = None,
    ) -> Float[Tensor, "b h w c=3"]:
        """Fix a batch of tensors; `fix_with_verdicts` without the verdicts."""
        return self.fix_with_verdicts(rendered, references, strength=strength, gate=gate, mask=mask, alpha=alpha).rgb

    @torch.no_grad()
    def fix_with_verdicts(
        self,
        rendered: Float[Tensor, "b h w c=3"],
        references: Float[Tensor, "n *r h2 w2 c=3"] | Sequence[Sequence[Float[Tensor, "_h _w c=3"]]] | None = None,
        *,
        strength: float = 1.0,
        gate: GateChoice | None = None,
        mask: Float[Tensor, "b h w"] | None = None,
        alpha: Float[Tensor, "b h w"] | None = None,
    ) -> Gated:
        """Fix a batch of tensors, for use in loops, and say what became of every fix.

        Args:
            rendered: RGB in [0, 1]; values beyond are clamped.
            references: One reference each, several (a second axis), or a list per image with any number of any size,
                the nearest first; of another size they are resized. The network sees all at once, the gate the first.
            strength: Fraction of the fix, in [0, 1].
            gate: How much of the fix is let through, as in a call.
            mask: Where images may be changed, in [0, 1].
            alpha: Opacity of the renders in [0, 1], for the gate.

        Returns:
            RGB in [0, 1], float32, on the device of `rendered`, and a verdict per image.

        Raises:
            InputError: If references are given to weights that know none, or not one per image.
        """
        own = self._references_of_batch(rendered, references)
        height, width = rendered.shape[1:3]
        rendered = rendered.float()
        fixed = self._run(
            list(rendered), [[ReferenceImage(each, height, width) for each in several] for several in own]
        )
        chosen = chosen_gate(gate or self.gate, self.metadata.gate)
        results = [
            apply_gate(
                rendered[index : index + 1].clamp(0.0, 1.0),
                image[None],
                chosen,
                strength=strength,
                mask=None if mask is None else mask[index : index + 1],
                alpha=None if alpha is None else alpha[index : index + 1],
                references=own[index][0][None].to(image).clamp(0.0, 1.0) if own[index] else None,
                in_place=True,
            )
            for index, image in enumerate(fixed)
        ]
        verdicts = tuple(result.verdicts[0] for result in results)
        if len(results) == 1:
            return Gated(rgb=results[0].rgb, verdicts=verdicts)
        return Gated(rgb=torch.cat([result.rgb for result in results]) if results else rendered, verdicts=verdicts)

    def to(self, *targets: str | torch.device | torch.dtype) -> "DifixPipeline":
        """Move the pipeline to a device, a floating-point type, or both, in place; returns itself."""
        for target in targets:
            if isinstance(target, torch.dtype):
                self.dtype = target
            else:
                self.device = torch.device(target)
        self.network = self.network.to(device=self.device, dtype=self.dtype)
        self.text_embedding = self.text_embedding.to(device=self.device, dtype=self.dtype)
        self.runner.cache.clear()  # Latents of references are kept where, and as precisely as, they were made.
        return self

    def checkpoint(self) -> Checkpoint:
        """Return the weights with all that is needed to run or save them; the network is shared, not copied."""
        metadata = replace(self.metadata, uses_reference=self.uses_reference, timestep=self.timestep)
        return Checkpoint(
            network=self.network, text_embedding=self.text_embedding, prompt=self.prompt, metadata=metadata
        )

    def save_pretrained(self, folder: Path | str) -> None:
        """Save the weights in our format with a model card that carries their license; `from_pretrained` loads them.

        The adapters are folded into the layers, and parameters keep the pipeline's floating-point type, so that the
        loaded pipeline computes the same to the bit.

        Args:
            folder: Created if needed; a checkpoint in it is replaced.
        """
        save_with_card(folder, self.checkpoint(), name=Path(folder).resolve().name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload Difix weights",
    ) -> str:
        """Upload what `save_pretrained` saves to a repository of the hub. Weights carry licenses: see the model card.

        Args:
            repo_id: "owner/name"; made if it does not exist.
            private: Whether a new repository is private; None leaves it to the owner's settings.
            token: Access token; None takes the one that is logged in.
            revision: Branch to upload to; None means the main one.
            commit_message: First line of the commit's message.

        Returns:
            The address of the commit.

        Raises:
            InputError: If the hub cannot be reached or refuses.
        """
        return push_checkpoint(
            repo_id, self.checkpoint(), private=private, token=token, revision=revision, commit_message=commit_message
        )

    def _run(self, rgbs: Sequence[Tensor], references: Sequence[Sequence[ReferenceImage]]) -> list[Tensor]:
        return self.runner.run(
            rgbs, references, text_embedding=self.text_embedding, timestep=self.timestep, batch_size=self.batch_size
        )

    def _references_of_batch(
        self, rendered: Tensor, references: Tensor | Sequence[Sequence[Tensor]] | None
    ) -> list[list[Tensor]]:
        """The references of each image of a batch, nearest first."""
        if references is None:
            return [[] for _ in rendered]
        if isinstance(references, Tensor):
            references = [[own] if own.ndim == 3 else list(own) for own in references]
        if any(references) and not self.uses_reference:
            raise InputError(NO_REFERENCES)
        if len(references) != rendered.shape[0]:
            raise InputError(
                f"there must be one reference per image: got {rendered.shape[0]} images, {len(references)} references"
            )
        return [list(own) for own in references]

    def _references_of(self, entry: Any, image: GivenImage) -> list[ReferenceImage]:
        """Take the references of one image: none, one, or a list."""
        several = entry if isinstance(entry, (list, tuple)) else [] if entry is None else [entry]
        if several and not self.uses_reference:
            raise InputError(NO_REFERENCES)
        return [ReferenceImage(given_image(reference).pixels, image.height, image.width) for reference in several]


def _batched(plane: Tensor | None, rgb: Tensor) -> Tensor | None:
    return None if plane is None else plane.to(rgb)[None]
