"""The call of the released pipeline and of the released inference script, for scripts that were written for them.

`DifixPipeline` is the better choice for new code: it keeps image sizes, is deterministic and pairs images and
references of whole lists. This one reproduces what the released code computes, its random numbers included, except for
what fails there (`docs/deviations.md`).
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from difix_model.config import NUM_TRAIN_TIMESTEPS, PROMPT, TIMESTEP
from difix_model.denoise import ddpm_step
from difix_model.errors import InputError
from difix_model.formats.hub import weights_folder
from difix_model.formats.released import is_layout, load_released
from difix_model.formats.released_pickle import is_pickle, load_pickle
from difix_model.formats.sources import DEFAULT_SOURCE, load_source
from difix_model.images import from_network, to_network
from difix_model.network import DifixNetwork, EncodedViews

Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class ReleasedOutput:
    """What a call returns."""

    images: Any
    """PIL images, an array or a tensor, by `output_type`."""


class ReleasedPipeline:
    """Published weights behind the released pipeline's call."""

    def __init__(
        self,
        network: DifixNetwork,
        embed: Callable[[str], Float[Tensor, "n d"]],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Take a network and what turns prompts into embeddings, for example a `TextEncoder`."""
        self.network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.embed = embed
        self.device = torch.device(device)
        self.dtype = dtype
        self.processor = VaeImageProcessor(vae_scale_factor=network.config.vae.downscale_factor)

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        *,
        revision: str | None = None,
        base: Path | str | None = None,
        reference_attention: bool | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "ReleasedPipeline":
        """Load published weights, or a checkpoint of ours (which knows its own prompt only).

        Args:
            source: As for `DifixPipeline.from_pretrained`.
            revision: Branch, tag or commit of a hub repository.
            base: For a .pkl, what it was trained from.
            reference_attention: Overrides what the weights say.
            device: Where to run.
            dtype: Floating-point type of the network.
        """
        if is_pickle(source) and base is not None:
            released = load_pickle(
                source, base=base, base_revision=revision, reference_attention=reference_attention is not False
            )
            return cls(released.network, released.text_encoder, device=device, dtype=dtype)
        if not is_pickle(source) and str(source) != DEFAULT_SOURCE:
            folder = weights_folder(source, revision=revision)
            if is_layout(folder):
                released = load_released(folder, reference_attention=reference_attention)
                return cls(released.network, released.text_encoder, device=device, dtype=dtype)
        checkpoint = load_source(source, revision=revision, base=base, uses_reference=reference_attention)

        def embed(prompt: str) -> Tensor:
            if prompt != checkpoint.prompt:
                raise InputError(f'{source} knows the prompt "{checkpoint.prompt}" only, got "{prompt}"')
            return checkpoint.text_embedding

        return cls(checkpoint.network, embed, device=device, dtype=dtype)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        image: Any = None,
        ref_image: Any = None,
        *,
        num_inference_steps: int = 50,
        timesteps: Sequence[int] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        generator: Generators = None,
        prompt_embeds: Float[Tensor, "b n d"] | None = None,
        negative_prompt_embeds: Float[Tensor, "b n d"] | None = None,
        output_type: str = "pil",
        last_skips_for_all: bool = False,
    ) -> ReleasedOutput:
        """Fix images the way the released pipeline does; the defaults are its own, so pass 1, [199] and 0.0.

        Args:
            prompt: One prompt, or one per image.
            image: PIL image, array, tensor in [0, 1] (NCHW) or a list. Sides are resized down to a multiple of 8.
            ref_image: References of the same number and size.
            num_inference_steps: Sampling steps, where `timesteps` is None.
            timesteps: Timesteps to visit, descending; `[199]` is what the weights were trained for.
            guidance_scale: Above 1, guidance away from the negative prompt.
            negative_prompt: Empty if not given.
            num_images_per_prompt: Results per image.
            generator: One for all images or one per image. Draws first the latents' noise, then each step's; None
                draws from torch's global one.
            prompt_embeds: Instead of a prompt.
            negative_prompt_embeds: Instead of a negative prompt.
            output_type: "pil", "np", "pt" or "latent".
            last_skips_for_all: With a list of generators the released code decodes every image with the skips of
                the last one, which mixes images. True reproduces that, to compare with old results.
        """
        if output_type not in ("pil", "np", "pt", "latent"):
            raise InputError(f'output_type must be "pil", "np", "pt" or "latent", got {output_type!r}')
        x = self._views(image, ref_image)
        batch_size = x.shape[0]
        embeds = self._embeddings(prompt, prompt_embeds, batch_size, num_images_per_prompt)
        encoded = _repeated(self._encode(x, generator), num_images_per_prompt)
        negative = None
        if guidance_scale > 1.0:
            given = "" if negative_prompt is None and negative_prompt_embeds is None else negative_prompt
            negative = self._embeddings(given, negative_prompt_embeds, batch_size, num_images_per_prompt)
        schedule = _schedule(num_inference_steps, timesteps)
        z = encoded.z
        for timestep, previous in schedule:
            noise = self.network.predict_noise(z, text_embedding=embeds, timestep=timestep)
            if negative is not None:
                without = self.network.predict_noise(z, text_embedding=negative, timestep=timestep)
                noise = without + guidance_scale * (noise - without)
            z = ddpm_step(z, noise, timestep, previous, self._draw(z, generator))
        target = dataclasses.replace(encoded, z=z).target()
        if last_skips_for_all:
            target = dataclasses.replace(target, skips=tuple(skip[-1:].expand_as(skip) for skip in target.skips))
        if output_type == "latent":
            return ReleasedOutput(images=target.z[:, 0])
        decoded = self.network.decode(target)[:, 0]
        return ReleasedOutput(images=self.processor.postprocess(decoded, output_type=output_type))

    @torch.no_grad()
    def sample(
        self,
        image: Image.Image,
        *,
        width: int = 1024,
        height: int = 576,
        ref_image: Image.Image | None = None,
        prompt: str = PROMPT,
        timestep: int = TIMESTEP,
        generator: torch.Generator | None = None,
    ) -> Image.Image:
        """Fix one image the way the released inference script does: stretched to a fixed size and back.

        Args:
            image: The render.
            width: Width that the network sees.
            height: Height that the network sees.
            ref_image: A reference; stretched to the same size.
            prompt: Prompt.
            timestep: Timestep of the single step.
            generator: Draws the latents' noise; None draws from torch's global one.
        """
        floored = (image.width - image.width % 8, image.height - image.height % 8)
        views = [image] if ref_image is None else [image, ref_image]
        stretched = [
            view.convert("RGB")
            .resize(floored, Image.Resampling.LANCZOS)
            .resize((width, height), Image.Resampling.LANCZOS)
            for view in views
        ]
        rgb = torch.from_numpy(np.stack([np.asarray(view) for view in stretched])[None]).float() / 255.0
        encoded = self._encode(to_network(rgb).to(self.device, self.dtype), generator)
        denoised = self.network.denoise(encoded, text_embedding=self.embed(prompt), timestep=timestep)
        fixed = from_network(self.network.decode(denoised.target())[0, 0].float()).cpu()
        # The released script truncates to bytes.
        return Image.fromarray((fixed * 255.0).to(torch.uint8).numpy()).resize(image.size, Image.Resampling.LANCZOS)

    def _views(self, image: Any, ref_image: Any) -> Float[Tensor, "b v c=3 h w"]:
        if image is None:
            raise InputError("an image is needed")
        views = [self.processor.preprocess(given) for given in (image, ref_image) if given is not None]
        if views[0].shape[1] != 3:
            raise InputError(f"images must have 3 channels, got {views[0].shape[1]}: convert them to RGB")
        if any(view.shape != views[0].shape for view in views):
            raise InputError(
                f"images and references must be of one number and size, got {[tuple(view.shape) for view in views]}"
            )
        return torch.stack(views, dim=1).to(self.device, self.dtype)

    def _embeddings(
        self, prompt: str | Sequence[str] | None, embeds: Tensor | None, batch_size: int, num_images: int
    ) -> Float[Tensor, "b n d"]:
        if (prompt is None) == (embeds is None):
            raise InputError("give either a prompt or its embedding")
        if embeds is None:
            prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
            embeds = torch.stack([self.embed(text) for text in prompts])
        if embeds.shape[0] == 1:
            embeds = embeds.expand(batch_size, -1, -1)
        if embeds.shape[0] != batch_size:
            raise InputError(f"give one prompt, or one per image ({batch_size}), got {embeds.shape[0]}")
        return embeds.to(self.device, self.dtype).repeat_interleave(num_images, dim=0)

    def _encode(self, x: Float[Tensor, "b v c=3 h w"], generator: Generators) -> EncodedViews:
        factor = self.network.config.vae.downscale_factor
        channels = self.network.config.vae.latent_channels
        shape = (*x.shape[:2], channels, x.shape[-2] // factor, x.shape[-1] // factor)
        noise = self._draw(torch.empty(shape, device=self.device, dtype=self.dtype), generator)
        return self.network.encode(x, posterior_noise=noise)

    def _draw(self, like: Float[Tensor, "b v c h w"], generator: Generators) -> Float[Tensor, "b v c h w"]:
        """Draw standard normal noise, from each image's own generator if there are several."""
        if isinstance(generator, (list, tuple)):
            if len(generator) != like.shape[0]:
                raise InputError(f"give one generator, or one per image ({like.shape[0]}), got {len(generator)}")
            draws = [self._draw(like[i : i + 1], own) for i, own in enumerate(generator)]
            return torch.cat(draws)
        one = generator if isinstance(generator, torch.Generator) else None
        device = "cpu" if one is None else one.device
        flat = rearrange(like, "b v c h w -> (b v) c h w")
        noise = torch.randn(flat.shape, generator=one, device=device, dtype=like.dtype)
        return noise.reshape(like.shape).to(like.device)


def _schedule(num_inference_steps: int, timesteps: Sequence[int] | None) -> list[tuple[int, int]]:
    """Return the timesteps to visit, each with the one that its step leads to."""
    if timesteps is not None:
        visited = [int(t) for t in timesteps]
        if not visited or any(b >= a for a, b in itertools.pairwise(visited)):
            raise InputError(f"timesteps must be descending, got {visited}")
        return list(zip(visited, [*visited[1:], -1], strict=True))
    if not 1 <= num_inference_steps <= NUM_TRAIN_TIMESTEPS:
        raise InputError(f"num_inference_steps must be in [1, {NUM_TRAIN_TIMESTEPS}], got {num_inference_steps}")
    spaced = np.round(np.arange(NUM_TRAIN_TIMESTEPS, 0, -NUM_TRAIN_TIMESTEPS / num_inference_steps)) - 1
    stride = NUM_TRAIN_TIMESTEPS // num_inference_steps
    return [(int(t), int(t) - stride) for t in spaced]


def _repeated(encoded: EncodedViews, times: int) -> EncodedViews:
    return EncodedViews(
        z=encoded.z.repeat_interleave(times, dim=0),
        skips=tuple(skip.repeat_interleave(times, dim=0) for skip in encoded.skips),
    )
