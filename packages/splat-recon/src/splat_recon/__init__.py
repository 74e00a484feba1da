"""Posed images in, 3D Gaussian splats and renders out, on CUDA or a CPU.

Start with `trainer`, the engine, and `scene.scene`, what it works on.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splat_recon.config import (
        AdcConfig,
        LearningRates,
        McmcConfig,
        TrainConfig,
        absgrad_config,
        antialiased_config,
        mcmc_config,
    )
    from splat_recon.errors import InputError
    from splat_recon.evaluate import Evaluation, ViewScore
    from splat_recon.export import export_ply, export_splats
    from splat_recon.film import Film, write_frames, write_videos
    from splat_recon.gaussians.initialize import from_points
    from splat_recon.geometry.camera_paths import CameraPathConfig, camera_path
    from splat_recon.geometry.trajectories import interpolated
    from splat_recon.io.camera_files import read_camera_file
    from splat_recon.io.colmap import read_scene, write_scene
    from splat_recon.io.sfm.config import SfmConfig
    from splat_recon.io.sfm.reconstruct import reconstruct
    from splat_recon.io.sfm.report import SfmResult
    from splat_recon.io.transforms_json import read_transforms, write_transforms
    from splat_recon.metrics import make_lpips
    from splat_recon.pages.report import write_report
    from splat_recon.pages.viewer import SplatViewer, TrainingViewer
    from splat_recon.per_photo.configs import BilateralGridConfig, DepthConfig, ExposureConfig, PoseConfig
    from splat_recon.scene.downscale import downscaled
    from splat_recon.scene.normalize import normalized
    from splat_recon.scene.scene import Points, Scene, View
    from splat_recon.scene.splits import Split, make_split
    from splat_recon.scene.synthetic import SyntheticConfig, generate_scene
    from splat_recon.scene.training_points import TrainingPoints, with_training_points
    from splat_recon.splat_model import SplatModel
    from splat_recon.stereo.config import StereoConfig
    from splat_recon.stereo.start import StereoMatching, StereoStart
    from splat_recon.trainer import SplatTrainer
    from splat_recon.views.mixture import ViewMixture
    from splat_recon.views.view_set import TrainingView, ViewSet
    from splat_render import (
        Camera,
        Gaussians,
        Rasterizer,
        RenderConfig,
        RenderOutput,
        RenderStats,
        SplatFile,
        make_rasterizer,
        read_ply,
        read_splats,
        transformed,
        write_ply,
        write_splats,
    )

_SUBMODULES = {
    "AdcConfig": "config",
    "BilateralGridConfig": "per_photo.configs",
    "CameraPathConfig": "geometry.camera_paths",
    "DepthConfig": "per_photo.configs",
    "Evaluation": "evaluate",
    "ExposureConfig": "per_photo.configs",
    "Film": "film",
    "InputError": "errors",
    "LearningRates": "config",
    "McmcConfig": "config",
    "Points": "scene.scene",
    "PoseConfig": "per_photo.configs",
    "Scene": "scene.scene",
    "SfmConfig": "io.sfm.config",
    "SfmResult": "io.sfm.report",
    "SplatModel": "splat_model",
    "SplatTrainer": "trainer",
    "SplatViewer": "pages.viewer",
    "Split": "scene.splits",
    "StereoConfig": "stereo.config",
    "StereoMatching": "stereo.start",
    "StereoStart": "stereo.start",
    "SyntheticConfig": "scene.synthetic",
    "TrainConfig": "config",
    "TrainingPoints": "scene.training_points",
    "TrainingView": "views.view_set",
    "TrainingViewer": "pages.viewer",
    "View": "scene.scene",
    "ViewMixture": "views.mixture",
    "ViewScore": "evaluate",
    "ViewSet": "views.view_set",
    "absgrad_config": "config",
    "antialiased_config": "config",
    "camera_path": "geometry.camera_paths",
    "downscaled": "scene.downscale",
    "export_ply": "export",
    "export_splats": "export",
    "from_points": "gaussians.initialize",
    "generate_scene": "scene.synthetic",
    "interpolated": "geometry.trajectories",
    "make_lpips": "metrics",
    "make_split": "scene.splits",
    "mcmc_config": "config",
    "normalized": "scene.normalize",
    "read_camera_file": "io.camera_files",
    "read_scene": "io.colmap",
    "read_transforms": "io.transforms_json",
    "reconstruct": "io.sfm.reconstruct",
    "with_training_points": "scene.training_points",
    "write_frames": "film",
    "write_report": "pages.report",
    "write_scene": "io.colmap",
    "write_transforms": "io.transforms_json",
    "write_videos": "film",
}
"""Where each public name lives; it is imported when it is first used."""

_OF_RENDER = (
    "Camera",
    "Gaussians",
    "Rasterizer",
    "RenderConfig",
    "RenderOutput",
    "RenderStats",
    "SplatFile",
    "make_rasterizer",
    "read_ply",
    "read_splats",
    "transformed",
    "write_ply",
    "write_splats",
)
"""Names of `splat_render` that those who train need as well; they lived here before that package was its own."""

__all__ = [
    "AdcConfig",
    "BilateralGridConfig",
    "Camera",
    "CameraPathConfig",
    "DepthConfig",
    "Evaluation",
    "ExposureConfig",
    "Film",
    "Gaussians",
    "InputError",
    "LearningRates",
    "McmcConfig",
    "Points",
    "PoseConfig",
    "Rasterizer",
    "RenderConfig",
    "RenderOutput",
    "RenderStats",
    "Scene",
    "SfmConfig",
    "SfmResult",
    "SplatFile",
    "SplatModel",
    "SplatTrainer",
    "SplatViewer",
    "Split",
    "StereoConfig",
    "StereoMatching",
    "StereoStart",
    "SyntheticConfig",
    "TrainConfig",
    "TrainingPoints",
    "TrainingView",
    "TrainingViewer",
    "View",
    "ViewMixture",
    "ViewScore",
    "ViewSet",
    "absgrad_config",
    "antialiased_config",
    "camera_path",
    "downscaled",
    "export_ply",
    "export_splats",
    "from_points",
    "generate_scene",
    "interpolated",
    "make_lpips",
    "make_rasterizer",
    "make_split",
    "mcmc_config",
    "normalized",
    "read_camera_file",
    "read_ply",
    "read_scene",
    "read_splats",
    "read_transforms",
    "reconstruct",
    "transformed",
    "with_training_points",
    "write_frames",
    "write_ply",
    "write_report",
    "write_scene",
    "write_splats",
    "write_transforms",
    "write_videos",
]


def __getattr__(name: str) -> Any:
    if name in _OF_RENDER:
        return getattr(import_module("splat_render"), name)
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
