"""The live page: a splat, the fixer and the photos behind it, put together and served."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from difix3d.enhance.references import PosedPhotos
from difix3d.errors import InputError
from difix3d.viewer.composer import FixComposer
from difix3d.viewer.config import MODES, LiveConfig
from difix3d.viewer.fixes import LiveFixes
from difix_model.gate.config import GATES
from difix_model.opening import open_pipeline
from difix_model.video.fix import PHOTOS_IN_MEMORY, Fixer
from media_files.photos import open_image
from splat_recon.io.camera_files import read_camera_file
from splat_recon.io.own_runs import cameras_of_run
from splat_recon.pages.view_requests import ViewRequests
from splat_recon.pages.viewer import SplatViewer, serve, thumbnails, viser_module
from splat_recon.splat_model import SplatModel
from splat_render.cameras import Camera
from splat_render.device import chosen_device

GPU_PX, CPU_PX = 1024, 512
"""Longer side of a picture, where nothing says otherwise."""

JPEG_QUALITY = 95
"""Pictures are compared: what their coding adds should not be taken for the fix's."""


class PhotoFixer:
    """Fixes pictures with the photos from nearest by.

    Args:
        photos: Those to choose from; None fixes without.
        strength: Share of the fix, in [0, 1].
    """

    def __init__(
        self, pipeline: Fixer, photos: PosedPhotos | None, *, num_references: int = 1, strength: float = 1.0
    ) -> None:
        self.pipeline = pipeline
        self._photos = photos
        self._num_references = num_references
        self._strength = strength
        self._opened: Callable[[Path], Image.Image] = functools.lru_cache(maxsize=PHOTOS_IN_MEMORY)(open_image)

    def __call__(
        self, rgb_u8: UInt8[np.ndarray, "h w 3"], T_world_cam: Float64[np.ndarray, "4 4"]
    ) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[str, ...]]:
        """The same that a film's frame becomes which is not steadied."""
        paths = () if self._photos is None else self._photos.nearest(T_world_cam[None], self._num_references)[0]
        references = [[self._opened(path) for path in paths]] if paths else None
        (fixed,) = self.pipeline.fix_images([rgb_u8], references, strength=self._strength, with_weight=False)
        return fixed.image, tuple(path.name for path in paths)


class LivePage:
    """A page of a splat with its fixes; `serve` draws until it is interrupted.

    Args:
        config: What to show; it is checked here, and the weights are loaded.
        pipeline: What fixes; None loads what `config.fixer` names.

    Raises:
        InputError: Anything is absent or unreadable, the viewer is not installed, or the address cannot be had.
    """

    def __init__(self, config: LiveConfig, pipeline: Fixer | None = None) -> None:
        viser_module()
        photos_folder, cameras = _cameras(config)
        self.splats = SplatModel.of_file(config.splat, which=config.which, device=chosen_device(config.device))
        self._pipeline = pipeline or open_pipeline(config.fixer, device=config.device)
        # On the page everything lies near the splat's own origin: browsers compute in float32.
        cameras = {name: self.splats.near(camera) for name, camera in cameras.items()}
        photos = _photos(config, self._pipeline)
        photos = None if photos is None else photos.less(self.splats.offset)
        self.splats = self.splats.without_offset()
        fixer = PhotoFixer(self._pipeline, photos, num_references=config.num_references, strength=config.fixer.strength)
        self._fixes = LiveFixes(fixer)
        composer = FixComposer(self._fixes, mode=config.fix)
        max_px = config.max_size or (GPU_PX if self.splats.device != "cpu" else CPU_PX)
        requests = ViewRequests(max_px=max_px, composer=composer, jpeg_quality=JPEG_QUALITY)
        self._viewer = SplatViewer(
            f"difix3d: {config.splat.name}",
            cameras,
            {} if photos_folder is None else thumbnails(photos_folder, list(cameras)),
            host=config.host,
            port=config.port,
            requests=requests,
        )
        self._add_controls(composer, config)
        self._fixes.ready = requests.ask_again
        self._fixes.start()

    def _add_controls(self, composer: FixComposer, config: LiveConfig) -> None:
        viewer = self._viewer
        viewer.dock_controls()
        viewer.set_status(f"{len(self.splats.gaussians):,} Gaussians")
        composer.set_status = viewer.set_status

        def show(mode: str) -> None:
            composer.mode = mode
            viewer.fit_photos(mode != "side-by-side")

        def believe(gate: str) -> None:
            self._pipeline.gate = gate  # type: ignore[attr-defined]
            self._fixes.cancel()

        viewer.fit_photos(config.fix != "side-by-side")
        hint = "side by side: left as rendered, right fixed. A picture is fixed where the camera rests"
        viewer.offer_choice("Fix", MODES, config.fix, show, hint=hint)
        if hasattr(self._pipeline, "gate"):
            hint = "how much of a fix is believed: auto keeps good renders, off believes everything"
            viewer.offer_choice("Gate", GATES, config.fixer.gate, believe, hint=hint)

    @property
    def url(self) -> str:
        """Where the page is."""
        return self._viewer.url

    def serve(self, *, seconds: float | None = None) -> None:
        """Draw what is asked for until interrupted, or for so many seconds."""
        serve(self._viewer, self.splats.render, seconds=seconds)

    def close(self) -> None:
        """Stop serving."""
        self._viewer.close()
        self._fixes.close()

    def __enter__(self) -> LivePage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cameras(config: LiveConfig) -> tuple[Path | None, dict[str, Camera]]:
    """The cameras that the page shows, and where their photos lie."""
    for path in (config.splat, config.scene, config.cameras):
        if path is not None and not path.exists():
            raise InputError(f"there is no {path}")
    source = config.cameras or config.scene or cameras_of_run(config.splat)
    if source is None:
        return None, {}
    file = read_camera_file(source)
    scene = config.captured or source
    return scene / "images", dict(zip(file.names, file.cameras, strict=True))


def _photos(config: LiveConfig, pipeline: Fixer) -> PosedPhotos | None:
    """Where references come from; None without a scene, and for weights that know none."""
    if config.captured is None or config.num_references == 0 or not pipeline.uses_reference:
        return None
    return PosedPhotos.of_scene(config.captured)
