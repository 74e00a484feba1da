"""The training engine: it owns the loop, returns when asked, and continues bitwise after a save."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from difix_model.config import RENDERED_VIEW
from difix_model.formats.checkpoint import empty_network, load_strictly, save_checkpoint
from difix_model.network import DifixNetwork
from difix_train.batches import BatchStream
from difix_train.config import TrainConfig
from difix_train.dataset import Batch, PairDataset
from difix_train.errors import InputError, NonFiniteLossError
from difix_train.evaluate import REFERENCE_MODES, PairEvaluation, evaluate_pairs
from difix_train.examples import Example, fixed_example
from difix_train.losses.objective import Objective
from difix_train.optim import (
    WeightAverage,
    learning_rate_at,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)
from difix_train.processes import Processes, placed_like, whole, without_exchange
from difix_train.records import RunningMeans, StepRecord
from difix_train.sampler import PairSampler
from difix_train.start import TextEmbeddings, embeddings_by_prompt
from difix_train.state import EngineState, model_metadata, read_state, write_state
from difix_train.trainable import freeze_all_but, trainable_parameters

logger = logging.getLogger(__name__)

NO_REFERENCE_ATTENTION = (
    "The pairs have references, but in this network views do not attend to each other, so it cannot learn to use them: "
    "turn reference attention on (--reference-attention True, for weights in a published form or SD-Turbo), "
    "or leave ref_image out of the pairs, which makes steps cheaper"
)


class DifixTrainer:
    """Trains a :class:`DifixNetwork` on pairs; a resumable engine without hooks.

    Args:
        network: What is trained, in place, in float32.
        text_embedding: Embedding of the one prompt of the pairs, or embeddings by prompt; the first is the one that
            checkpoints carry.
        dataset: Training pairs.
        config: Everything else.
        device: Where to compute.
        objective: Loss; built from ``config.loss`` by default.
        metadata: Plain values for the checkpoints' metadata, such as licence and origin.
        processes: Where several processes train together; decides the device then.
        lpips: Perceptual distance for validations; the objective's by default, if it has one.

    Raises:
        InputError: A prompt has no embedding, sizes do not fit the network, no parameter is trainable, or a loss
            backbone is missing.
    """

    def __init__(
        self,
        network: DifixNetwork,
        text_embedding: Float[Tensor, "n d"] | TextEmbeddings,
        dataset: PairDataset,
        config: TrainConfig,
        *,
        device: torch.device | str = "cpu",
        objective: Objective | None = None,
        metadata: Mapping[str, Any] | None = None,
        processes: Processes | None = None,
        lpips: nn.Module | None = None,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.processes = Processes(device) if processes is None else processes
        self.device = self.processes.device
        shows_references = any(pair.references for pair in dataset.pairs)
        if shows_references and not network.config.reference_attention and self.processes.is_main:
            logger.warning(NO_REFERENCE_ATTENTION)
        knew_references = bool((metadata or {}).get("uses_reference", False))
        self.metadata = {
            **(metadata or {}),
            "uses_reference": network.config.reference_attention and (shows_references or knew_references),
            "timestep": config.timestep,
        }
        self.text_embeddings = {
            prompt: embedding.detach().reshape(embedding.shape[-2:]).to(self.device, torch.float32)
            for prompt, embedding in embeddings_by_prompt(text_embedding, dataset.prompts).items()
        }
        self.objective = (Objective(config.loss) if objective is None else objective).to(self.device)
        self.lpips = self.objective.lpips if lpips is None else lpips.to(self.device)
        self.network = network.to(self.device, torch.float32)
        self.trained = trainable_parameters(network, config.trainable)
        self._check()
        freeze_all_but(network, self.trained)
        if config.gradient_checkpointing:
            network.unet.enable_gradient_checkpointing()
            network.vae.gradient_checkpointing = True
        self._forward = self.processes.shared_out(network)
        # Sharing out may have put other parameters in the place of those before.
        self.trained = trainable_parameters(network, config.trainable)
        self.optimizer = make_optimizer(self.trained, config.optimizer)
        self.average = WeightAverage(self.trained, config.ema_decay) if config.ema_decay else None
        self.step = 0
        self.history: list[StepRecord] = []
        self._means = RunningMeans()
        sampler = PairSampler(dataset, config.batch_size * self.processes.world_size, config.seed)
        self._batches = BatchStream(dataset, sampler, config.data.num_workers, part=self.processes.own_part)
        self._generator = torch.Generator().manual_seed(config.seed + 1)

    @property
    def prompt(self) -> str:
        """The prompt whose embedding checkpoints carry."""
        return next(iter(self.text_embeddings))

    @property
    def seconds_waiting_for_data(self) -> float:
        """Time that steps waited for images since the trainer was made."""
        return self._batches.seconds_waited

    def train_until(self, step: int) -> None:
        """Train until ``step`` optimizer steps are finished; in how many calls makes no difference.

        Raises:
            NonFiniteLossError: Loss or gradient is NaN or infinite; names the samples. The weights are those before
                the step.
        """
        self.network.train()
        while self.step < step:
            self._train_step()
        self.network.eval()

    @torch.no_grad()
    def validate(
        self, dataset: PairDataset, *, max_samples: int | None = None, modes: tuple[str, ...] = REFERENCE_MODES
    ) -> PairEvaluation:
        """Evaluate the weights that a checkpoint would hold for use on other pairs; consumes no random numbers.

        Of several processes every one must call; all get the result.
        """
        self.network.eval()
        self._exchange_average()
        evaluation = None
        try:
            # A network in shards needs every process for every image.
            if self.processes.is_main or self.processes.sharded:
                evaluation = evaluate_pairs(
                    self._fix,
                    dataset,
                    max_samples=self.config.validation_samples if max_samples is None else max_samples,
                    modes=modes,
                    lpips=self.lpips,
                    device=self.device,
                )
        finally:
            self._exchange_average()
        return self.processes.from_main(evaluation)

    @torch.no_grad()
    def examples(self, dataset: PairDataset, indices: list[int]) -> list[Example]:
        """Fix some held-out pairs to look at: what a checkpoint would give, each with its own reference.

        Args:
            dataset: Held-out pairs.
            indices: Which of them.
        """
        self.network.eval()
        self._exchange_average()
        try:
            if not (self.processes.is_main or self.processes.sharded):
                return []
            return [fixed_example(self._fix, dataset, index, self.device) for index in indices]
        finally:
            self._exchange_average()

    def save(self, folder: Path) -> None:
        """Write everything needed to use the network and to continue: ``folder/model`` opens in DifixPipeline.

        The folder appears complete or not at all.
        """
        self._exchange_average()
        try:
            state = EngineState(
                step=self.step,
                config=self.config,
                sampler=self._batches.state(),
                sums=self._means.sums,
                generator=self._generator.get_state(),
                # While the network holds the average, the average's place holds the weights in training.
                raw_parameters=self._whole(self.average.averages if self.average else {}),
                text_embeddings=self.text_embeddings,
                metadata=self.metadata,
                world_size=self.processes.world_size,
            )
            network, moments = self._whole_network(), optimizer_tensors(self.optimizer, list(self.trained))
            if self.processes.is_main:
                write_state(folder, state, network, moments)
            self.processes.wait()
        finally:
            self._exchange_average()

    def save_model(self, folder: Path) -> None:
        """Write only the network for use."""
        self._exchange_average()
        try:
            network = self._whole_network()
            if self.processes.is_main:
                save_checkpoint(
                    folder,
                    network,
                    text_embedding=self.text_embeddings[self.prompt],
                    prompt=self.prompt,
                    metadata=model_metadata(self.metadata, self.step),
                )
            self.processes.wait()
        finally:
            self._exchange_average()

    @classmethod
    def load(
        cls,
        folder: Path,
        dataset: PairDataset,
        config: TrainConfig,
        *,
        device: torch.device | str = "cpu",
        objective: Objective | None = None,
        processes: Processes | None = None,
        lpips: nn.Module | None = None,
    ) -> DifixTrainer:
        """Continue from what :meth:`save` wrote; on a CPU the further steps are bitwise the same.

        Args:
            folder: The checkpoint.
            dataset: The same training pairs.
            config: The same configuration; intervals, workers and ``max_steps`` may differ.
            device: Where to compute.
            objective: Loss; built from ``config.loss`` by default.
            processes: As many as before.
            lpips: Perceptual distance for validations.

        Raises:
            InputError: The checkpoint is incomplete, damaged or from another configuration or dataset.
        """
        network, state, moments = read_state(folder, config)
        trainer = cls(
            network,
            state.text_embeddings,
            dataset,
            config,
            device=device,
            objective=objective,
            metadata=state.metadata,
            processes=processes,
            lpips=lpips,
        )
        if state.world_size != trainer.processes.world_size:
            raise InputError(
                f"{folder} was written by {state.world_size} processes and there are now "
                f"{trainer.processes.world_size}: their batches would be others, continue with as many"
            )
        trainer._restore(state, moments)
        return trainer

    def _train_step(self) -> None:
        config = self.config
        rate = learning_rate_at(self.step, config.max_steps, config.optimizer)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        ids: list[str] = []
        losses: dict[str, float] = {"loss": 0.0}
        for number in range(1, config.gradient_accumulation + 1):
            batch = self._batches.next()
            ids += batch.ids
            with without_exchange(self._forward, enabled=number < config.gradient_accumulation):
                values = self._accumulate_gradients(batch, ids)
            for name, value in values.items():
                losses[name] = losses.get(name, 0.0) + value / config.gradient_accumulation
        norm = whole(torch.nn.utils.clip_grad_norm_(list(self.trained.values()), config.optimizer.max_grad_norm))
        self._require_finite(float(norm), "gradient", ids)
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            self.average.update(self.trained, self.step)
        self._means.add(losses | {"grad_norm": float(norm)})
        if self.step % config.log_every == 0:
            self.history.append(self._means.record(step=self.step, learning_rate=rate))

    def _accumulate_gradients(self, batch: Batch, ids: list[str]) -> dict[str, float]:
        x, x_target = batch.x.to(self.device), batch.x_target.to(self.device)
        only_target = self.config.loss.views == "target"
        with self._autocast():
            x_pred = self._forward(
                x,
                text_embedding=self._embedding(batch.prompts),
                timestep=self.config.timestep,
                posterior_noise=self._posterior_noise(x),
                decode="target" if only_target else "all",
                clamp=False,
            )
        if only_target:
            x_target = x_target[:, RENDERED_VIEW : RENDERED_VIEW + 1]
        terms = self.objective(x_pred, x_target, step=self.step, generator=self._generator)
        values = {"loss": float(terms.total.detach()), **{name: float(term) for name, term in terms.weighted.items()}}
        values = self.processes.means(values)
        self._require_finite(values["loss"], "loss", ids)
        (terms.total / self.config.gradient_accumulation).backward()
        return values

    def _posterior_noise(self, x: Float[Tensor, "b v c=3 h w"]) -> Float[Tensor, "bv c2 h2 w2"] | None:
        if not self.config.posterior_noise:
            return None
        vae = self.network.config.vae
        factor = vae.downscale_factor
        num_images = self.processes.world_size * x.shape[0] * x.shape[1]
        shape = (num_images, vae.latent_channels, x.shape[-2] // factor, x.shape[-1] // factor)
        # Drawn on the CPU, for all processes, so that every device sees the same noise.
        return self.processes.own_part(torch.randn(shape, generator=self._generator)).to(self.device)

    def _fix(self, x: Float[Tensor, "1 v c=3 h w"], prompt: str) -> Float[Tensor, "1 1 c=3 h w"]:
        with self._autocast():
            return self.network(
                x, text_embedding=self._embedding((prompt,)), timestep=self.config.timestep, decode="target"
            )

    def _embedding(self, prompts: tuple[str, ...]) -> Float[Tensor, "*b n d"]:
        if len(set(prompts)) == 1:
            return self.text_embeddings[prompts[0]]
        return torch.stack([self.text_embeddings[prompt] for prompt in prompts])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16", cache_enabled=False
        )

    def _exchange_average(self) -> None:
        if self.average is not None:
            self.average.exchange(self.trained)

    def _require_finite(self, value: float, what: str, ids: list[str]) -> None:
        if not math.isfinite(value):
            ids = self.processes.all_of(ids)
            raise NonFiniteLossError(
                f"the {what} became {value} at step {self.step + 1} on the samples {', '.join(ids)}: "
                "look at these images, or lower the learning rate",
                step=self.step + 1,
                ids=tuple(ids),
            )

    def _whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: whole(tensor) for name, tensor in tensors.items()}

    def _whole_network(self) -> DifixNetwork:
        """The network with whole parameters; where it is in shards, a copy on the CPU."""
        if not self.processes.sharded:
            return self.network
        state = {name: whole(tensor).cpu() for name, tensor in self.network.state_dict().items()}
        network = empty_network(self.network.config)
        load_strictly(network, state, source="memory")
        return network

    def _restore(self, state: EngineState, optimizer_tensors: Mapping[str, Tensor]) -> None:
        self.step = state.step
        self._means = RunningMeans(dict(state.sums))
        self._generator.set_state(state.generator)
        try:
            self._batches.load_state(state.sampler)
        except ValueError as error:
            raise InputError(str(error)) from error
        load_optimizer_tensors(self.optimizer, list(self.trained), optimizer_tensors)
        if self.average is not None:
            # The saved network holds the average; the weights in training stand beside it.
            self.average = WeightAverage(self.trained, self.config.ema_decay)
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(placed_like(state.raw_parameters[name], parameter))

    def _check(self) -> None:
        factor = self.network.config.vae.downscale_factor
        data = self.config.data
        if data.height % factor or data.width % factor:
            raise InputError(f"height and width must be multiples of {factor} for this network")
        if not self.trained:
            raise InputError(
                f"the network has no parameter in the set '{self.config.trainable}': choose another `trainable`"
            )
        if self.config.data != self.dataset.config:
            raise ValueError("config.data and the dataset's configuration must be the same")
