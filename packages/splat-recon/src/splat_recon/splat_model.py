"""Gaussians from a run or from a file, with what it takes to render them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from splat_recon.checkpoint import config_from_state, gaussians_from_tensors, latest_valid, read_checkpoint
from splat_recon.config import TrainConfig
from splat_recon.errors import InputError
from splat_render.cameras import Camera
from splat_render.files.background import BLACK, Background
from splat_render.files.folders import Which
from splat_render.files.formats import SplatFile, near_zero, read_splats
from splat_render.files.world_offset import ZERO, Offset
from splat_render.gaussians import Gaussians
from splat_render.output import RenderOutput
from splat_render.rasterizer import RenderConfig, make_rasterizer

DRAWN_FAR = 10.0
"""So many of its own sizes from zero a splat is moved to be drawn: rasterizers compute in float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplatModel:
    """Gaussians with what it takes to render them as they were meant."""

    gaussians: Gaussians
    """In the frame of the cameras that will look at them, but for `offset`; on `device`."""

    sh_degree: int
    """Degree of the view-dependent colors that are shown."""

    config: RenderConfig
    """How they are projected; antialiased as they were trained."""

    background: tuple[float, float, float]
    """RGB behind them, in [0, 1]."""

    device: str
    """Where they render."""

    offset: Offset = ZERO
    """What to add to the Gaussians' positions for the cameras' frame; zero unless its origin is far away."""

    training: TrainConfig | None = None
    """Settings that they were trained with; None where they come from a file."""

    step: int | None = None
    """Steps that they were trained for; None where they come from a file."""

    @classmethod
    def trained(cls, gaussians: Gaussians, training: TrainConfig, step: int, *, device: str) -> "SplatModel":
        """Gaussians of a scene's frame, as the trainer's own `render` showed them at this step."""
        return cls(
            gaussians=gaussians.to(device),
            sh_degree=min(step // training.sh_degree_every, training.sh_degree, gaussians.sh_degree_max),
            config=RenderConfig(near=training.nearest_rendered, antialiased=training.antialiased),
            background=training.background,
            device=device,
            training=training,
            step=step,
        )

    @classmethod
    def load(cls, checkpoint: Path, *, device: str = "cpu") -> "SplatModel":
        """The Gaussians of a checkpoint, in the frame of the scene that they were trained in."""
        found = read_checkpoint(checkpoint)
        training = config_from_state(found.values, checkpoint)
        return cls.trained(gaussians_from_tensors(found.tensors), training, found.values["step"], device=device)

    @classmethod
    def newest(cls, checkpoints: Path, *, device: str = "cpu") -> "SplatModel":
        """The Gaussians of the newest valid checkpoint in a folder of them."""
        newest = latest_valid(checkpoints)
        if newest is None:
            raise InputError(f"{checkpoints} holds no valid checkpoint: train first")
        return cls.load(newest, device=device)

    @classmethod
    def of_file(
        cls, path: Path, *, which: Which = "best", device: str = "cpu", background: Background | None = None
    ) -> "SplatModel":
        """The Gaussians of a file, in COLMAP's frame, before the background that it names, or black.

        Args:
            which: Of a training that compares two splats, which one.
            background: In place of the file's; sRGB in [0, 1].
        """
        content: SplatFile = near_zero(read_splats(path, which), far=DRAWN_FAR)
        if not len(content.gaussians):
            raise InputError(f"{path} holds no Gaussians: there is nothing to show")
        return cls(
            gaussians=content.gaussians.to(device),
            sh_degree=content.gaussians.sh_degree_max,
            config=RenderConfig(near=content.near_plane or RenderConfig().near, antialiased=content.antialiased),
            background=background if background is not None else content.background or BLACK,
            device=device,
            offset=content.offset,
        )

    def near(self, camera: Camera) -> Camera:
        """A camera of the world in the frame of the Gaussians' own positions, which are near its origin."""
        return self._moved(camera, -1.0)

    def in_world(self, camera: Camera) -> Camera:
        """The way back from `near`."""
        return self._moved(camera, 1.0)

    def without_offset(self) -> "SplatModel":
        """The same for cameras that `near` has moved already."""
        return replace(self, offset=ZERO)

    def _moved(self, camera: Camera, sign: float) -> Camera:
        if self.offset == ZERO:
            return camera
        T_world_cam = camera.T_world_cam.copy()
        T_world_cam[:3, 3] += sign * np.array(self.offset)
        return camera.with_pose(T_world_cam)

    def over(self, background: tuple[float, float, float]) -> "SplatModel":
        """The same before another background."""
        return replace(self, background=background)

    def render(self, camera: Camera) -> RenderOutput:
        """The picture that a camera takes, without gradients."""
        rasterize = make_rasterizer(self.device, self.config)
        background = torch.tensor(self.background, dtype=torch.float32, device=self.device)
        with torch.no_grad():
            return rasterize(self.gaussians, self.near(camera), sh_degree=self.sh_degree, background=background)
