"""Everything that is learned or known about single photos besides their pixels: pose, appearance, depths."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from splat_recon.config import TrainConfig
from splat_recon.per_photo.appearance import Appearance, make_appearance
from splat_recon.per_photo.depth import DepthSupervision
from splat_recon.per_photo.poses import PoseRefinement
from splat_recon.per_photo.table import PerViewEmbedding
from splat_recon.scene.scene import Scene
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.view_set import ViewSet
from splat_render.cameras import Camera
from splat_render.gaussians import Gaussians
from train_runs.checkpoints import under


class PerViewModel:
    """The parts that a configuration asks for; without any, each method hands back what it got.

    Args:
        poses: T_world_cam of the training photos by name.
        extent: Size of the scene in scene units.
    """

    def __init__(
        self,
        config: TrainConfig,
        scene: Scene,
        poses: Mapping[str, Float64[np.ndarray, "4 4"]],
        *,
        extent: float,
        device: str,
    ) -> None:
        names = self.names = tuple(poses)
        self.pose: PoseRefinement | None = None
        self.appearance: Appearance | None = None
        self.depth: DepthSupervision | None = None
        self._pose_start = 0 if config.pose is None else config.pose.start
        self._moves_poses = False
        factor, max_steps = config.batch_size**0.5, config.max_steps
        if config.pose is not None:
            self.pose = PoseRefinement(config.pose, poses, extent=extent, max_steps=max_steps, rate_factor=factor)
        if config.appearance is not None:
            self.appearance = make_appearance(
                config.appearance, names, max_steps=max_steps, rate_factor=factor, device=device
            )
        if config.depth is not None:
            self.depth = DepthSupervision(
                config.depth, scene.points, names, near=config.near, extent=extent, device=device
            )

    def begin(self, step: int) -> None:
        """Forget what a step that was not finished left behind, and decide whether this one moves poses."""
        for table in self._tables().values():
            table.forget()
        self._moves_poses = step >= self._pose_start

    def adjust_camera(self, gaussians: Gaussians, camera: Camera, name: str) -> tuple[Gaussians, Camera]:
        """What to render for a photo; see `PoseRefinement.adjust_camera`."""
        if self.pose is None or not self._moves_poses:
            return gaussians, camera
        return self.pose.adjust_camera(gaussians, camera, name)

    def adjust_color(self, rgb: Float[Tensor, "h w 3"], name: str) -> Float[Tensor, "h w 3"]:
        """A render as the photo would show it; see `Appearance.adjust_color`."""
        return rgb if self.appearance is None else self.appearance.adjust_color(rgb, name)

    def step(self, step: int, stopped: Bool[Tensor, ""] | None = None) -> None:
        """Learn from the gradients of a step, counted from 0; nothing where `stopped` is true on the device."""
        if self.pose is not None and self._moves_poses:
            self.pose.step(step)
        if self.appearance is not None:
            self.appearance.table.step(step, stopped)

    def tensors(self) -> dict[str, Tensor]:
        """What was learned, for a checkpoint."""
        return {
            f"{part}.{name}": tensor
            for part, table in self._tables().items()
            for name, tensor in table.tensors().items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave.

        Raises:
            ValueError: They are of other parts or other photos.
        """
        for part, table in self._tables().items():
            table.load_tensors(under(f"{part}.", tensors))

    def _tables(self) -> dict[str, PerViewEmbedding]:
        parts = {"pose": self.pose, "appearance": self.appearance}
        return {name: part.table for name, part in parts.items() if part is not None}


def photo_poses(views: ViewSet | ViewMixture) -> dict[str, Float64[np.ndarray, "4 4"]]:
    """T_world_cam of the photos among the views, sorted by name; images without a name are no photos."""
    sets = views.sets if isinstance(views, ViewMixture) else (views,)
    poses = {view.name: view.camera.T_world_cam for view_set in sets for view in view_set if view.name}
    return dict(sorted(poses.items()))
