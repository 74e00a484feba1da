"""Text or one image to a splat: the published pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffsplat.cameras import AZIMUTHS_DEG, RADIUS, canonical_intrinsics, orbit_rig, plucker_rays
from diffsplat.config import Backbone, Control, GenerationConfig
from diffsplat.denoiser import MultiViewControlNet, MultiViewDenoiser, TextCondition
from diffsplat.elevest import ElevEst
from diffsplat.errors import InputError
from diffsplat.gsvae import GSVAE
from diffsplat.render import raw_gaussians, rendered
from diffsplat.sampling import ControlCondition, denoised, guidance_per_view
from diffsplat.schedulers import FLOW_SHIFT, make_scheduler
from diffsplat.splat_grids import ActiveGaussians, SplatGrids, activated
from diffsplat.text import TextEncoder

DEFAULT_ELEVATION_DEG = 10.0
"""Height of the four views over the horizon where nothing says otherwise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneratedSplat:
    """One object."""

    prompt: str
    """What was asked for."""
    gaussians: ActiveGaussians
    """Its Gaussians, of one object; y is up, the first view looks along -z."""
    T_world_cam: Float[Tensor, "v 4 4"]
    """OpenCV cameras of the views whose grids it is made of."""
    elevation_deg: float
    """Their height over the horizon."""
    seed: int
    """Of its noise."""

    def raw(self) -> Any:
        """Raw parameters (`splat_render.Gaussians`), for splat files and renderers."""
        return raw_gaussians(self.gaussians)

    @torch.no_grad()
    def render(
        self,
        T_world_cam: Float[Tensor, "n 4 4"],
        size: int = 256,
        *,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> Float[Tensor, "n 3 h w"]:
        """Renders by canonical cameras at these poses, in [0, 1]."""
        views = rendered(
            self.gaussians, T_world_cam[None], canonical_intrinsics(len(T_world_cam))[None], size, size,
            background=background,
        )  # fmt: skip
        return views.rgb[0].clamp(0, 1)


@dataclass(kw_only=True, eq=False)
class PipelineParts:
    """The networks of a pipeline."""

    denoiser: MultiViewDenoiser
    """Takes noise away."""
    gsvae: GSVAE
    """Latents to grids."""
    noise_schedule: dict[str, Any]
    """Noise levels of the base model, as in its scheduler_config.json."""
    text_encoder: TextEncoder | None = None
    """None once it was dropped, or for embeddings made elsewhere."""
    image_vae: nn.Module | None = None
    """Encodes the image; needed with one."""
    controlnet: MultiViewControlNet | None = None
    """Follows a control map."""
    elevest: ElevEst | None = None
    """Estimates an image's elevation."""
    flow_shift: float = FLOW_SHIFT
    """For flow schedulers."""
    default_scheduler: str = "sde-dpmsolver++"
    """Unless another is asked for."""
    default_steps: int = 20
    """Unless another number is asked for."""
    default_guidance: float = 7.5
    """Unless another is asked for."""
    input_res: int = 256
    """Side of the grids in pixels."""
    text_prediction: str = "epsilon"
    """What the denoiser predicts where no image is given; with one it is v_prediction."""
    image_optional: bool = False
    """Whether a denoiser that takes an image was also trained to go without: it is then given zeros."""


class DiffSplatPipeline:
    """Generates splats.

    ```python
    pipe = DiffSplatPipeline.from_pretrained("sd15", device="cuda", dtype=torch.float16)
    (splat,) = pipe(["a toy robot"], GenerationConfig(seed=1))
    ```
    """

    def __init__(
        self,
        parts: PipelineParts,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
    ) -> None:
        """Put the parts together.

        Args:
            parts: The networks.
            device: Where to compute.
            dtype: Precision of the networks. Schedulers, grids and rendering stay in float32.
            offload: Keep each network on the CPU except while it is used.
        """
        self.parts = parts
        self.device, self.dtype, self.offload = torch.device(device), dtype, offload
        for network in self._networks():
            network.eval().requires_grad_(False)
            network.to(device="cpu" if offload else self.device, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls,
        source: Backbone | Path | str = "default",
        *,
        image: bool = False,
        control: Control | None = None,
        elevest: bool = False,
        model: Backbone | None = None,
        base: Path | str | None = None,
        vae: Path | str | None = None,
        iteration: int | None = None,
        without_t5: bool = False,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
    ) -> DiffSplatPipeline:
        """Load published weights, or others of the same layout.

        Args:
            source: `default` for the small weights that come with the package; `sd15`, `pas` or `sd35m` for the
                published repository; a folder that is laid out like it; or the hub id of another repository that is.
            image: The model that also takes an image.
            control: Also load a ControlNet; for `sd15` with a text.
            elevest: Also load the estimator of elevations.
            model: For a folder or hub id: which of the three it holds, where it holds several.
            base: Folder or hub id of the base model, instead of the original's.
            vae: Folder or hub id of the image VAE, where it is another than the base model's.
            iteration: Which checkpoint; None takes the latest.
            without_t5: Leave T5 out of Stable Diffusion 3.5.
            revision: Of the hub repository of the weights.
            device: Where to compute.
            dtype: Precision of the networks.
            offload: Keep each network on the CPU except while it is used.

        Raises:
            InputError: A part is missing, damaged or does not fit; the sentence names it and the command that fetches
                it. Nothing is ever unpickled, and no code of a repository is run.
        """
        from diffsplat.loading import loaded_parts

        parts = loaded_parts(
            source, image=image, control=control, elevest=elevest, model=model, base=base, vae=vae,
            iteration=iteration, without_t5=without_t5, revision=revision,
        )  # fmt: skip
        return cls(parts, device=device, dtype=dtype, offload=offload)

    def _networks(self) -> Iterator[nn.Module]:
        parts = self.parts
        for network in (parts.denoiser, parts.gsvae, parts.image_vae, parts.controlnet, parts.elevest):
            if network is not None:
                yield network
        if parts.text_encoder is not None:
            yield from parts.text_encoder.modules()

    @contextmanager
    def _in_use(self, *networks: nn.Module | None) -> Iterator[None]:
        """With offloading, networks are on the device only while this lasts."""
        used = [network for network in networks if network is not None] if self.offload else []
        for network in used:
            network.to(self.device)
        try:
            yield
        finally:
            for network in used:
                network.to("cpu")

    def encode_text(self, prompts: Sequence[str]) -> TextCondition:
        """Prompts as what the denoiser attends to."""
        if self.parts.text_encoder is None:
            raise InputError("this pipeline has no text encoders: give embeddings, or load it with them")
        with self._in_use(*self.parts.text_encoder.modules()):
            return self.parts.text_encoder(prompts).to(self.device, self.dtype)

    def drop_text_encoders(self) -> None:
        """Free the text encoders' memory; from here on embeddings are needed."""
        self.parts.text_encoder = None

    def encode_image(self, images: Float[Tensor, "b 3 h w"], *, as_trained: bool = False) -> Float[Tensor, "b l y x"]:
        """Images in [0, 1] as the latents of the conditioning view.

        Args:
            images: Square, over white.
            as_trained: For Stable Diffusion 3.5: also take off the VAE's shift, as in training. The released
                inference does not, and neither does this by default.
        """
        vae: Any = self.parts.image_vae
        if vae is None:
            raise InputError("this pipeline has no image VAE: load it with image=True")
        with self._in_use(vae), torch.no_grad():
            x = (2 * images - 1).to(self.device, self.dtype)
            latents = vae.encode(x).latent_dist.mode().float()
        shift = float(vae.config.get("shift_factor") or 0.0) if as_trained else 0.0
        return float(vae.config["scaling_factor"]) * (latents - shift)

    def decode(self, latents: Float[Tensor, "b v l h w"]) -> SplatGrids:
        """Latents of diffusion to grids in float32."""
        gsvae = self.parts.gsvae
        with self._in_use(gsvae), torch.no_grad():
            flat = gsvae.unscaled(latents.flatten(0, 1)).to(self.device, self.dtype)
            grids = gsvae.decode(flat).float()
        return SplatGrids.from_channels(grids.unflatten(0, latents.shape[:2]))

    def elevation_of(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Estimated heights over the horizon in degrees, positive upward."""
        if self.parts.elevest is None:
            raise InputError("this pipeline has no estimator of elevations: load it with elevest=True")
        with self._in_use(self.parts.elevest):
            return -self.parts.elevest.elevations_deg(images.to(self.device, self.dtype)).float().cpu()

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        config: GenerationConfig | None = None,
        *,
        seeds: Sequence[int] | None = None,
        images: Float[Tensor, "b 3 h w"] | None = None,
        control: Float[Tensor, "b 3 y x"] | None = None,
        text: TextCondition | None = None,
        negative: TextCondition | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> list[GeneratedSplat]:
        """Generate one splat per prompt.

        Args:
            prompts: What to make. With an image a prompt may be empty.
            config: How.
            seeds: One per prompt, for its noise; None counts from the config's. A splat does not depend on what else
                is in its batch.
            images: An image of each object, in [0, 1]; needs a model that takes one.
            control: A control map of each object, in [0, 1]; needs a ControlNet.
            text: Embeddings of the prompts, instead of encoding them.
            negative: Embedding of what to turn away from, of one row or one per prompt.
            on_step: Called with the number of steps that are done.
        """
        config = GenerationConfig() if config is None else config
        parts, num = self.parts, len(prompts)
        self._check(prompts, images, control)
        seeds = [config.seed + index for index in range(num)] if seeds is None else list(seeds)
        elevation = DEFAULT_ELEVATION_DEG if config.elevation_deg is None else config.elevation_deg
        if config.elevation_deg is None and images is not None and parts.elevest is not None:
            elevations = self.elevation_of(images).tolist()
        else:
            elevations = [elevation] * num
        poses = torch.stack([orbit_rig(-degrees, radius=config.distance) for degrees in elevations])
        fxfycxcy = canonical_intrinsics(len(AZIMUTHS_DEG)).repeat(num, 1, 1)
        rays = plucker_rays(parts.input_res, parts.input_res, poses, fxfycxcy).to(self.device)

        text = self.encode_text(prompts) if text is None else text.to(self.device, self.dtype)
        if negative is None:
            negative = self.encode_text([config.negative_prompt])
        negative = negative.to(self.device, self.dtype)
        if len(negative.embeds) != num:
            negative = negative.repeated(num)
        side = parts.input_res // parts.gsvae.downscaling
        shape = (len(AZIMUTHS_DEG), parts.denoiser.latent_channels, side, side)
        image_latents = None if images is None else self.encode_image(images)
        if image_latents is None and parts.denoiser.takes_image:
            image_latents = torch.zeros(num, *shape[1:], device=self.device)
        guidance = parts.default_guidance if config.guidance is None else config.guidance
        weights = guidance_per_view(
            guidance, len(AZIMUTHS_DEG), triangle=config.triangle_guidance, smallest=config.smallest_guidance
        )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        condition = None
        if control is not None and parts.controlnet is not None:
            condition = ControlCondition(
                network=parts.controlnet, maps=control.to(self.device, self.dtype), scale=config.control_scale
            )
        scheduler = make_scheduler(
            config.scheduler or parts.default_scheduler,  # type: ignore[arg-type]
            parts.noise_schedule,
            prediction_type=parts.text_prediction if images is None else "v_prediction",
            flow_shift=parts.flow_shift,
        )
        with self._in_use(parts.denoiser, parts.controlnet):
            latents = denoised(
                parts.denoiser, scheduler, noise.to(self.device),
                num_steps=config.num_steps or parts.default_steps, rays=rays, text=text, negative=negative,
                guidance=weights, image_latents=image_latents, control=condition, eta=config.eta,
                generator=generators, on_step=on_step,
            )  # fmt: skip
        return self.splats(latents, prompts, poses, elevations, seeds, opacity_threshold=config.opacity_threshold)

    def splats(
        self,
        latents: Float[Tensor, "b v l h w"],
        prompts: Sequence[str],
        T_world_cam: Float[Tensor, "b v 4 4"],
        elevations_deg: Sequence[float],
        seeds: Sequence[int],
        *,
        opacity_threshold: float = 0.0,
    ) -> list[GeneratedSplat]:
        """Decode latents, once, to splats."""
        grids = self.decode(latents)
        intrinsics = canonical_intrinsics(T_world_cam.shape[1]).repeat(len(T_world_cam), 1, 1).to(self.device)
        gaussians = activated(grids, T_world_cam.to(self.device), intrinsics, opacity_threshold=opacity_threshold)
        return [
            GeneratedSplat(
                prompt=prompt,
                gaussians=ActiveGaussians(
                    xyz=gaussians.xyz[index : index + 1],
                    rgb=gaussians.rgb[index : index + 1],
                    scales=gaussians.scales[index : index + 1],
                    quats_wxyz=gaussians.quats_wxyz[index : index + 1],
                    opacities=gaussians.opacities[index : index + 1],
                ),
                T_world_cam=T_world_cam[index],
                elevation_deg=float(elevations_deg[index]),
                seed=seeds[index],
            )
            for index, prompt in enumerate(prompts)
        ]

    def _check(self, prompts: Sequence[str], images: Tensor | None, control: Tensor | None) -> None:
        parts = self.parts
        if not prompts:
            raise InputError("there is no prompt: give at least one")
        empty = [str(index + 1) for index, prompt in enumerate(prompts) if not prompt.strip()]
        if images is None and empty:
            raise InputError(f"prompt {', '.join(empty[:10])} is empty: say what to generate")
        needs_image = parts.denoiser.takes_image and not parts.image_optional
        if (images is None and needs_image) or (images is not None and not parts.denoiser.takes_image):
            wanted = "needs an image of each object" if parts.denoiser.takes_image else "takes no image"
            raise InputError(f"this model {wanted}: load it with image={images is not None}")
        if (control is not None) != (parts.controlnet is not None):
            wanted = "no ControlNet was loaded" if parts.controlnet is None else "a control map is needed"
            raise InputError(f"{wanted}: control maps and a ControlNet go together")
        for what, given in (("images", images), ("control maps", control)):
            if given is not None and len(given) != len(prompts):
                raise InputError(f"there are {len(given)} {what} for {len(prompts)} prompts: give one for each")


def orbit_frames(num_frames: int, elevation_deg: float, radius: float = RADIUS) -> Float[Tensor, "n 4 4"]:
    """Poses of a full turn around an object, at a height over the horizon."""
    return orbit_rig(-elevation_deg, [360 * index / num_frames for index in range(num_frames)], radius)
