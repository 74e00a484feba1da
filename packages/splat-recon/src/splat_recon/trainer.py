"""The training engine: posed images in, Gaussians out. It owns no schedule of its own and calls nobody back."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from splat_recon.checkpoint import TrainerState, config_from_state, gaussians_from_tensors
from splat_recon.config import AdcConfig, TrainConfig
from splat_recon.distributed import ALONE, World, check_world, joined_tensors, shared_tensors
from splat_recon.errors import DivergedError, InputError
from splat_recon.gaussians.coverage import largest_coverage
from splat_recon.gaussians.densify import make_density_control
from splat_recon.gaussians.densify_adc import remove
from splat_recon.gaussians.dropout import dropped
from splat_recon.gaussians.initialize import from_points
from splat_recon.generators import load_generator, seeded_generators
from splat_recon.loss_record import LossRecord
from splat_recon.losses import photometric, regularization
from splat_recon.optim import GaussianOptimizer
from splat_recon.per_photo.parts import PerViewModel, photo_poses
from splat_recon.per_photo.poses import PoseChange
from splat_recon.scene.scene import Scene
from splat_recon.threads import one_torch_thread
from splat_recon.training_checks import check_device, check_sizes, image_sizes, shared_cap
from splat_recon.views.identity import check_same_views, views_identity
from splat_recon.views.mixture import ViewMixture
from splat_recon.views.on_device import ImagesOnDevice
from splat_recon.views.view_set import TrainingView, ViewSet
from splat_render.cameras import Camera
from splat_render.gaussians import Gaussians
from splat_render.gsplat_backend import SharedGsplatRasterizer
from splat_render.output import RenderOutput, RenderStats, SharedRenderOutput
from splat_render.rasterizer import RenderConfig, make_rasterizer
from splat_render.upload import uploaded
from train_runs.checkpoints import under

logger = logging.getLogger(__name__)

EXTENT_MARGIN = 1.1
"""The extent used for rates and thresholds is the cameras' one times this (gsplat)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """One line of the training history."""

    step: int
    """Steps done."""

    loss: float
    """Mean loss of the steps since the last record."""

    num_gaussians: int
    """Gaussians after the step."""

    def to_dict(self) -> dict[str, Any]:
        """As in `metrics.jsonl`."""
        return asdict(self)


class SplatTrainer:
    """A resumable engine: `train_until` returns, and may be called again with other views in between.

    On a CPU the same settings and seed give the same Gaussians bit for bit, in however many calls the steps are taken
    and however often the trainer is saved and loaded on the way; on CUDA, gsplat's atomic sums leave small differences.

    Args:
        scene: Gives the extent, the points to start from and the frame; its photos are not read.
        views: What to train on; may be replaced between calls of `train_until`.
        config: The settings, used as they are (see `TrainConfig.scaled_to` for short runs).
        device: "cpu" or "cuda".
        gaussians: Where to start instead of the scene's points.
        world: The processes that train together (`distributed`); each makes its trainer alike and calls the same
            methods.

    Raises:
        InputError: A view is too small, there are neither points nor Gaussians to start from, or the device or the
            processes cannot do what the settings ask for.
    """

    def __init__(
        self,
        scene: Scene,
        views: ViewSet | ViewMixture,
        config: TrainConfig,
        *,
        device: str = "cpu",
        gaussians: Gaussians | None = None,
        world: World = ALONE,
    ) -> None:
        self.scene = scene
        self.world = world
        self.config = config
        self.device = device
        self.step = 0
        self.history: list[StepRecord] = []
        self.views = views
        self._generators = seeded_generators(config.seed, device=device, rank=world.rank)
        self._extent = scene_extent(scene)
        check_device(config, device)
        check_world(config, world, image_sizes(views))
        absgrad = isinstance(config.strategy, AdcConfig) and config.strategy.absgrad
        self._render_config = RenderConfig(
            near=config.near,
            antialiased=config.antialiased,
            absgrad=absgrad,
            packed=config.packed,
            sparse_grad=config.sparse_grad,
        )
        self._rasterize_alone = make_rasterizer(device, replace(self._render_config, near=config.nearest_rendered))
        # Steps look at depths only where those are taught.
        step_config = replace(self._render_config, depth=config.depth is not None)
        shared = world.size > 1
        self._rasterize = SharedGsplatRasterizer(step_config) if shared else make_rasterizer(device, step_config)
        if gaussians is None:
            gaussians = from_points(scene.points, self._extent, config, self._generators["init"])
        if len(gaussians) == 0:
            raise InputError(f"scene {scene.name}: there is no Gaussian to start from")
        self._optimizer = GaussianOptimizer(
            world.shard(gaussians).to(device),
            config.learning_rates,
            extent=self._extent,
            max_steps=config.max_steps,
            batch_size=config.batch_size * world.size,
            kind="visible" if config.visible_adam else "sparse" if config.sparse_grad else "dense",
        )
        self._parts = PerViewModel(config, scene, photo_poses(views), extent=self._extent, device=device)
        self._density = make_density_control(
            shared_cap(config.strategy, world), extent=self._extent, generator=self._generators["density"]
        )
        self._background = torch.tensor(config.background, dtype=torch.float32, device=device)
        self._images = ImagesOnDevice(device)
        self._losses = LossRecord(device, world)

    @property
    def views(self) -> ViewSet | ViewMixture:
        """What the steps draw from."""
        return self._views

    @views.setter
    def views(self, views: ViewSet | ViewMixture) -> None:
        check_sizes(views)
        self._views = views

    @property
    def gaussians(self) -> Gaussians:
        """The current Gaussians, detached. They share memory with the trainer: `clone` what must not change."""
        return self._optimizer.gaussians.detach()

    def all_gaussians(self) -> Gaussians:
        """The Gaussians of all processes together; each process must ask."""
        if self.world.size == 1:
            return self.gaussians
        shards = [Gaussians(**shard) for shard in self.world.collected(self.gaussians.parameters())]
        fields = {name: [shard.parameters()[name] for shard in shards] for name in self.gaussians.parameters()}
        return Gaussians(**{name: torch.cat(parts) for name, parts in fields.items()}).to(self.device)

    @property
    def sh_degree(self) -> int:
        """Degree of the view-dependent color in use at this step."""
        degree = min(self.step // self.config.sh_degree_every, self.config.sh_degree)
        return min(degree, self._optimizer.gaussians.sh_degree_max)

    def train_until(self, step: int) -> None:
        """Train until `step` steps are done in all; does nothing where they are.

        Raises:
            DivergedError: The loss is not finite; nothing was changed by that step. On CUDA that shows at the next line
                of the history, or before this returns; the steps in between changed nothing either.
        """
        with one_torch_thread() if self.device == "cpu" else nullcontext():
            while self.step < step:
                self._train_step()
        self._losses.look(self.step)

    def render(self, camera: Camera) -> RenderOutput:
        """This process's Gaussians over the configured background, without gradients, at the current SH degree."""
        with torch.no_grad():
            return self._rasterize_alone(self.gaussians, camera, sh_degree=self.sh_degree, background=self._background)

    def largest_coverage(self, cameras: Sequence[Camera]) -> Float[Tensor, " n"]:
        """The most that each Gaussian covers of any of the views, in [0, 1], as `render` draws them."""
        return largest_coverage(self.gaussians, cameras, self._rasterize_alone)

    def remove(self, removed: Bool[Tensor, " n"]) -> None:
        """Remove Gaussians between two steps, but leave the most opaque few; density control begins to look anew."""
        remove(self._optimizer, removed)
        self._density.load_tensors({})

    def refined_camera(self, camera: Camera, name: str) -> Camera:
        """The camera of a training photo as pose refinement has it now; other cameras as they are."""
        return camera if self._parts.pose is None else self._parts.pose.corrected(camera, name)

    def learning_rates(self) -> dict[str, float]:
        """Rates of the last step by parameter; that of the means is in scene units per step."""
        return {group["name"]: float(group["lr"]) for group in self._optimizer.groups()}

    def pose_changes(self) -> dict[str, PoseChange]:
        """How far pose refinement moved each training photo's camera so far; empty where poses are trusted."""
        return {} if self._parts.pose is None else self._parts.pose.changes()

    def as_photo(self, rgb: Float[Tensor, "h w 3"], name: str) -> Float[Tensor, "h w 3"]:
        """A render with the exposure and tone that were learned for a training photo; unchanged for other names."""
        with torch.no_grad():
            return self._parts.adjust_color(rgb, name)

    def _train_step(self) -> None:
        self._optimizer.zero_grad()
        self._parts.begin(self.step)
        self._losses.begin()
        stats: list[RenderStats] = []
        for index in range(self.config.batch_size):
            loss, render_stats = self._view_loss(with_regularization=index == 0)
            self._losses.add(loss, self.step)
            loss.backward()
            stats.extend(render_stats)
        self._losses.check_gradients(self._optimizer, self.step)
        stopped = self._optimizer.stopped = self._losses.stopped
        self._optimizer.step(self.step, self._visible(stats))
        self._parts.step(self.step, stopped)
        if self._density.is_due(self.step):
            self._losses.look(self.step)
        self._density.after_step(self._optimizer, stats, self.step)
        self.step += 1
        self._losses.end()
        if self.step % self.config.log_every == 0:
            mean = self._losses.mean(self.step)
            self.history.append(StepRecord(step=self.step, loss=mean, num_gaussians=len(self._optimizer.gaussians)))

    def _view_loss(self, *, with_regularization: bool) -> tuple[Float[Tensor, ""], Sequence[RenderStats]]:
        """A photo's share of the step's loss, whose mean over the photos of all processes is minimized."""
        # All processes draw alike, and each takes its own.
        world = self.world
        view = [self._views.sample(self._generators["views"]) for _ in range(world.size)][world.rank]
        background = [self._step_background() for _ in range(world.size)][world.rank]
        gaussians, camera = self._parts.adjust_camera(self._optimizer.gaussians, view.camera, view.name)
        probability = self.config.dropout * min(self.step / self.config.max_steps, 1.0)
        gaussians = dropped(gaussians, probability, self._generators["dropout"])
        output = self._rasterize(gaussians, camera, sh_degree=self.sh_degree, background=background)
        loss = self._loss(output, view, camera) / (self.config.batch_size * world.size)
        if with_regularization:
            loss = loss + self._regularization()
        return loss, output.all_stats if isinstance(output, SharedRenderOutput) else (output.stats,)

    def _regularization(self) -> Float[Tensor, ""] | float:
        """A mean over the Gaussians of all processes, of which this one adds its share."""
        gaussians, config = self._optimizer.gaussians, self.config
        mean = regularization(gaussians, opacity_reg=config.opacity_reg, scale_reg=config.scale_reg)
        return mean if self.world.size == 1 else mean * (len(gaussians) / self.world.total(len(gaussians)))

    def _loss(self, output: RenderOutput, view: TrainingView, camera: Camera) -> Float[Tensor, ""]:
        parts = self._parts
        pixel_weight = self._images.pixel_weight(view)
        loss = view.weight * photometric(
            parts.adjust_color(output.rgb, view.name),
            self._images.rgb(view),
            ssim_weight=self.config.ssim_weight,
            pixel_weight=pixel_weight,
        )
        if parts.appearance is not None:
            loss = loss + parts.appearance.penalty(view.name)
        if parts.depth is not None:
            loss = loss + view.weight * parts.depth.loss(output, camera, view.name, pixel_weight)
        return loss

    def _visible(self, stats: Sequence[RenderStats]) -> Bool[Tensor, " n"] | None:
        if not (self.config.visible_adam or self.config.sparse_grad):
            return None
        return torch.stack([render.radii_px > 0 for render in stats]).any(dim=0)

    def _step_background(self) -> Float[Tensor, " c=3"]:
        if not self.config.random_background:
            return self._background
        return uploaded(torch.rand(3, generator=self._generators["background"]), self.device)

    def save(self, folder: Path) -> None:
        """Write everything that continuing needs, as one folder (see `checkpoint`); the first process writes for all.

        Raises:
            DivergedError: The Gaussians are no longer finite numbers; nothing was written.
        """
        state = self.state()
        if self.world.rank == 0:
            state.write(Path(folder))

    def state(self) -> TrainerState:
        """Everything that continuing needs; copy what must not change. Of several processes the first one has it all.

        Raises:
            DivergedError: The Gaussians are no longer finite numbers.
        """
        self._losses.look(self.step)
        if self.world.total(not self._optimizer.has_finite_parameters()):
            raise DivergedError(
                f"the Gaussians are no longer finite numbers at step {self.step}: "
                "resume from the last checkpoint with lower learning rates"
            )
        tensors = self._optimizer.tensors()
        tensors |= {f"density.{name}": tensor for name, tensor in self._density.tensors().items()}
        tensors |= {f"generator.{name}": generator.get_state() for name, generator in self._generators.items()}
        tensors |= {f"views.{name}": tensor for name, tensor in self._parts.tensors().items()}
        if self.world.size > 1:
            tensors = joined_tensors(self.world.collected(tensors))
        values = {
            "step": self.step,
            "config": self.config.to_dict(),
            "views": self._views.state_dict(),
            "identity": views_identity(self._views),
            **self._losses.state(),
            "history": [record.to_dict() for record in self.history],
            "scene": _scene_facts(self.scene),
        }
        return TrainerState(values=values, tensors=tensors)

    @classmethod
    def load(
        cls,
        folder: Path,
        scene: Scene,
        views: ViewSet | ViewMixture,
        *,
        device: str = "cpu",
        world: World = ALONE,
    ) -> "SplatTrainer":
        """Continue a run from `save`'s folder.

        Args:
            folder: The checkpoint.
            scene: The scene of the run.
            views: The same views as when it was saved; their position is restored.
            device: May differ from before; bitwise the same results come from a CPU only.
            world: May differ from before too.
        """
        return cls.from_state(TrainerState.read(Path(folder)), scene, views, device=device, world=world)

    @classmethod
    def from_state(
        cls,
        saved: TrainerState,
        scene: Scene,
        views: ViewSet | ViewMixture,
        *,
        device: str = "cpu",
        world: World = ALONE,
    ) -> "SplatTrainer":
        """Continue from what `state` gave, which stays as it is; see `load`."""
        state, tensors, what = saved.values, saved.tensors, f"checkpoint {saved.source}"
        if state["scene"] != (facts := _scene_facts(scene)):
            raise InputError(f"{what} is of another scene: expected {state['scene']}, got {facts}")
        config = config_from_state(state, saved.source)
        check_same_views(views, state["identity"], what)
        trainer = cls(scene, views, config, device=device, gaussians=gaussians_from_tensors(tensors), world=world)
        tensors = shared_tensors(tensors, world)
        try:
            trainer._parts.load_tensors(under("views.", tensors))
            views.load_state_dict(state["views"])
        except ValueError as error:
            raise InputError(f"{what} is of other views: {error}") from error
        trainer._optimizer.load_tensors(tensors)
        trainer._density.load_tensors(
            {name: tensor.to(device, copy=True) for name, tensor in under("density.", tensors).items()}
        )
        for name, generator_state in under("generator.", tensors).items():
            load_generator(trainer._generators[name], generator_state)
        trainer.step = state["step"]
        trainer._losses.load_state(state, trainer.step)
        trainer.history = [StepRecord(**record) for record in state["history"]]
        return trainer


def scene_extent(scene: Scene) -> float:
    """The scale of rates and thresholds: the cameras' extent and a margin; the points' where all cameras coincide."""
    extent = scene.extent
    if extent <= 0 and len(scene.points):
        p_world = torch.from_numpy(scene.points.p_world)
        extent = float((p_world - p_world.median(dim=0).values).norm(dim=-1).median())
    return EXTENT_MARGIN * extent if extent > 0 else 1.0


def _scene_facts(scene: Scene) -> dict[str, Any]:
    return {"num_views": len(scene.views), "first_view": scene.views[0].name, "extent": scene.extent}
