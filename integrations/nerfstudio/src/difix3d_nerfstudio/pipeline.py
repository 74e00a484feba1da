"""The method around a model of nerfstudio: rounds between steps, and steps that use novel views."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.splatfacto import SplatfactoModel
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig

from difix3d_nerfstudio.checkpoints import check_model_state, relink_splat_optimizers
from difix3d_nerfstudio.config import FixerConfig, MixtureConfig, RoundsConfig, SteppingConfig, TargetsConfig
from difix3d_nerfstudio.data_errors import clear_data_errors
from difix3d_nerfstudio.errors import InputError
from difix3d_nerfstudio.novel import NovelViews
from difix3d_nerfstudio.rounds import Fixer, novel_view, render_views, report_round
from difix3d_nerfstudio.targets import cameras_at, next_poses, poses_of, target_poses


@dataclass
class ProgressivePipelineConfig(VanillaPipelineConfig):
    """nerfstudio's pipeline, and the progressive method around it."""

    _target: type = field(default_factory=lambda: ProgressivePipeline)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    """When novel views are rendered and fixed."""
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    """Where they go."""
    stepping: SteppingConfig = field(default_factory=SteppingConfig)
    """How far they move per round."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """How much they count."""
    fixer: FixerConfig = field(default_factory=FixerConfig)
    """What fixes them."""
    seed: int = 42
    """Of the choice between photos and novel views, and of their pixels."""


class ProgressivePipeline(VanillaPipeline):
    """Trains a model on photos and, from the first round on, on fixed novel views.

    The datamanager is left as it is: novel views live beside it, so evaluation, export and the viewer see photos only.
    """

    config: ProgressivePipelineConfig

    def __init__(
        self,
        config: ProgressivePipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Any = None,
    ) -> None:
        if world_size > 1:
            raise InputError("difix3d trains on one GPU only: give --machine.num-devices 1")
        with clear_data_errors(config):
            super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        self.is_splat = isinstance(self.model, SplatfactoModel)
        self.fixer = Fixer(config.fixer, config.fixer.device or device)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.rounds: list[NovelViews] = []
        """The newest rounds, the newest last."""
        self.novel: NovelViews | None = None
        """All views of those rounds."""
        self.num_rounds = 0
        self.next_round_step: int | None = None
        self._T_world_novel: np.ndarray | None = None
        self._T_world_target: np.ndarray | None = None
        self._pending: dict[str, Any] | None = None
        self._trainer: Any = None

    # Training

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """Nerfstudio's callbacks, and one that makes rounds; what a checkpoint kept is taken up again here."""
        callbacks = super().get_training_callbacks(attributes)
        self._trainer = attributes.trainer
        start = self._trainer._start_step
        if self.is_splat and start:
            relink_splat_optimizers(self.model, attributes.optimizers)
        if self.next_round_step is None:
            self.next_round_step = start if start else self.config.rounds.first
        self._check_targets()
        self._take_up_random_state()
        location = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
        return [*callbacks, TrainingCallback(where_to_run=location, func=self._round_if_due)]

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Losses of a batch of photos, or of one of novel views."""
        mixture = self.config.mixture
        if self.novel is None or float(torch.rand((), generator=self.generator)) >= mixture.novel_prob:
            return super().get_train_loss_dict(step)
        if self.is_splat:
            camera, batch = self.novel.image(self.generator)
            outputs = self._model(camera)
        else:
            num_rays = self.datamanager.get_train_rays_per_batch()
            bundle, batch = self.novel.rays(num_rays, self.generator)
            outputs = self._model(bundle)
        metrics = self.model.get_metrics_dict(outputs, batch)
        losses = self.model.get_loss_dict(outputs, batch, metrics)
        name = "main_loss" if self.is_splat else "rgb_loss"
        losses[name] = losses[name] * mixture.novel_weight
        return outputs, losses, metrics

    def _round_if_due(self, step: int) -> None:
        assert self.next_round_step is not None
        if step < self.next_round_step:
            return
        start, length = self._trainer._start_step, self._trainer.config.max_num_iterations
        self.next_round_step = step + self.config.rounds.every
        if step - start <= self.config.rounds.last * length:
            self.make_round(step)

    def make_round(self, step: int) -> None:
        """Move the novel views, render and fix them, and train on them from now on."""
        dataset = self.datamanager.train_dataset
        assert dataset is not None
        photos = dataset.cameras.to("cpu")
        T_world_photo = poses_of(photos)
        poses = next_poses(
            T_world_photo if self._T_world_novel is None else self._T_world_novel,
            self._targets(),
            T_world_photo,
            self.config.stepping,
            num_references=self.config.fixer.num_references,
        )
        cameras = cameras_at(poses.T_world_cam, photos, poses.references[:, 0])
        self.eval()
        rendered = render_views(cameras.to(self.device), self.model.get_outputs_for_camera)
        self.train()
        references = [[self._photo(index) for index in nearest] for nearest in poses.references.tolist()]
        fixed, verdicts = self.fixer(rendered, references)
        views = [
            novel_view(render, image, nearest[0], self.config.mixture)
            for render, image, nearest in zip(rendered, fixed, poses.references.tolist(), strict=True)
        ]
        folder = self._trainer.base_dir / "rounds" / f"round_{self.num_rounds:03d}"
        nearest_photos = [several[0] for several in references]
        report_round(self.num_rounds, step, rendered, fixed, nearest_photos, verdicts, folder)
        self._T_world_novel = poses.T_world_cam
        self.num_rounds += 1
        self._keep(NovelViews(cameras, views, device=self.device))

    def _keep(self, newest: NovelViews) -> None:
        self.rounds = [*self.rounds, newest][-self.config.rounds.keep :]
        joined: NovelViews | None = None
        for views in self.rounds:
            joined = views.joined(joined)
        self.novel = joined

    def _photo(self, index: int) -> torch.Tensor:
        dataset = self.datamanager.train_dataset
        assert dataset is not None
        return dataset.get_image_float32(index)[..., :3].cpu()

    def _targets(self) -> np.ndarray:
        if self._T_world_target is None:
            dataset, held_out = self.datamanager.train_dataset, self.datamanager.eval_dataset
            assert dataset is not None
            outputs = dataset._dataparser_outputs
            self._T_world_target = target_poses(
                self.config.targets,
                poses_of(dataset.cameras),
                poses_of(held_out.cameras) if held_out is not None and len(held_out) else np.empty((0, 4, 4)),
                T_frame_data=outputs.dataparser_transform.double().cpu().numpy(),
                scale=float(outputs.dataparser_scale),
            )
        return self._T_world_target

    def _check_targets(self) -> None:
        """Fail before the first step, not after hours, where novel views have nowhere to go."""
        if self.config.mixture.novel_prob > 0:
            self._targets()

    # State

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint of this method, or of nerfacto or splatfacto, that fits in every parameter.

        Raises:
            InputError: It does not fit; the message names the flag.
        """
        method = "difix3d-splat" if self.is_splat else "difix3d"
        check_model_state(loaded_state, self.model, method=method)
        super().load_pipeline(loaded_state, step)

    def get_extra_state(self) -> dict[str, Any]:
        """What nerfstudio's checkpoint keeps of the method: tensors, numbers and lists."""
        state: dict[str, Any] = {
            "format": 1,
            "num_rounds": self.num_rounds,
            "next_round_step": self.next_round_step,
            "T_world_novel": None if self._T_world_novel is None else torch.from_numpy(self._T_world_novel),
            "rounds": [views.state() for views in self.rounds],
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if str(self.device).startswith("cuda") else None,
            "python": _python_state(),
        }
        sampler = getattr(self.model, "proposal_sampler", None)
        if sampler is not None:
            state["proposal_sampler"] = [sampler._step, sampler._steps_since_update]
        return state

    def set_extra_state(self, state: Any) -> None:
        """Take up what a checkpoint kept; novel views only for training, so that other commands start at once."""
        if not isinstance(state, dict) or self.test_mode != "val":
            return
        self.num_rounds = int(state["num_rounds"])
        self.next_round_step = state["next_round_step"]
        self._T_world_novel = None if state["T_world_novel"] is None else state["T_world_novel"].cpu().numpy()
        self.rounds = []
        for kept in state["rounds"]:
            self._keep(NovelViews.from_state(kept, device=self.device))
        self.generator.set_state(state["generator"].cpu())
        sampler = getattr(self.model, "proposal_sampler", None)
        if sampler is not None and "proposal_sampler" in state:
            sampler._step, sampler._steps_since_update = state["proposal_sampler"]
        self._pending = state

    def _take_up_random_state(self) -> None:
        """After everything else that draws numbers while it is set up."""
        if self._pending is None:
            return
        state, self._pending = self._pending, None
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] is not None and str(self.device).startswith("cuda"):
            torch.cuda.set_rng_state(state["cuda"].cpu())
        random.setstate((3, tuple(state["python"].tolist()), None))


def _python_state() -> torch.Tensor:
    return torch.tensor(random.getstate()[1], dtype=torch.int64)
