"""The methods `difix3d` (nerfacto) and `difix3d-splat` (splatfacto)."""

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanagerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.plugins.types import MethodSpecification

from difix3d_nerfstudio.config import MixtureConfig
from difix3d_nerfstudio.models import DifixNerfactoModelConfig, DifixSplatModelConfig
from difix3d_nerfstudio.pipeline import ProgressivePipelineConfig

MAX_STEPS = 30_000


def _adam(lr: float, *, final: float | None = None, max_steps: int = MAX_STEPS, **schedule: float) -> dict:
    """An optimizer with nerfstudio's epsilon, its rate decaying exponentially where an end is given."""
    scheduler = (
        None if final is None else ExponentialDecaySchedulerConfig(lr_final=final, max_steps=max_steps, **schedule)
    )
    return {"optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15), "scheduler": scheduler}


def _viewer() -> ViewerConfig:
    """Nerfstudio's viewer, reachable from this machine only."""
    return ViewerConfig(num_rays_per_chunk=1 << 15, websocket_host="127.0.0.1")


difix3d = MethodSpecification(
    config=TrainerConfig(
        method_name="difix3d",
        steps_per_eval_batch=500,
        steps_per_save=2000,
        max_num_iterations=MAX_STEPS,
        mixed_precision=True,
        pipeline=ProgressivePipelineConfig(
            datamanager=VanillaDataManagerConfig(
                dataparser=NerfstudioDataParserConfig(), train_num_rays_per_batch=4096, eval_num_rays_per_batch=4096
            ),
            model=DifixNerfactoModelConfig(eval_num_rays_per_chunk=1 << 15),
        ),
        optimizers={
            "proposal_networks": _adam(1e-2, final=1e-4, max_steps=200_000),
            "fields": _adam(1e-2, final=1e-4, max_steps=200_000),
            "camera_opt": _adam(1e-3, final=1e-4, max_steps=5000),
        },
        viewer=_viewer(),
        vis="viewer",
    ),
    description="nerfacto that also trains on novel views which Difix has fixed (Difix3D).",
)

difix3d_splat = MethodSpecification(
    config=TrainerConfig(
        method_name="difix3d-splat",
        steps_per_eval_image=100,
        steps_per_eval_batch=0,
        steps_per_save=2000,
        steps_per_eval_all_images=1000,
        max_num_iterations=MAX_STEPS,
        mixed_precision=False,
        pipeline=ProgressivePipelineConfig(
            datamanager=FullImageDatamanagerConfig(
                dataparser=NerfstudioDataParserConfig(load_3D_points=True), cache_images_type="uint8"
            ),
            model=DifixSplatModelConfig(),
            mixture=MixtureConfig(novel_prob=0.3, novel_weight=0.3),
        ),
        optimizers={
            "means": _adam(1.6e-4, final=1.6e-6),
            "features_dc": _adam(0.0025),
            "features_rest": _adam(0.0025 / 20),
            "opacities": _adam(0.05),
            "scales": _adam(0.005),
            "quats": _adam(0.001),
            "camera_opt": _adam(1e-4, final=5e-7, warmup_steps=1000, lr_pre_warmup=0),
            "bilateral_grid": _adam(2e-3, final=1e-4, warmup_steps=1000, lr_pre_warmup=0),
        },
        viewer=_viewer(),
        vis="viewer",
    ),
    description="splatfacto that also trains on novel views which Difix has fixed (Difix3D); needs CUDA.",
)
