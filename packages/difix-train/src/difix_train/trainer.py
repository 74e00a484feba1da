"""The training engine: it owns the loop, returns when asked, and continues bitwise after a save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from difix_model.checkpoint import save_checkpoint
from difix_model.config import RENDERED_VIEW
from difix_model.network import DifixNetwork
from difix_train.batches import BatchStream
from difix_train.config import TrainConfig
from difix_train.dataset import Batch, PairDataset
from difix_train.errors import InputError, NonFiniteLossError, first_problems
from difix_train.evaluate import REFERENCE_MODES, PairEvaluation, evaluate_pairs
from difix_train.losses.objective import Objective
from difix_train.optim import WeightAverage, learning_rate_at, load_optimizer_tensors, make_optimizer
from difix_train.sampler import PairSampler
from difix_train.state import EngineState, model_metadata, read_state, write_state
from difix_train.trainable import freeze_all_but, trainable_parameters

TextEmbeddings = Mapping[str, Float[Tensor, "n d"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What happened in the steps since the previous record."""

    step: int
    """Finished optimizer steps."""

    loss: float
    """Mean total loss."""

    terms: dict[str, float]
    """Mean of each weighted loss term over the steps in which it was active."""

    grad_norm: float
    """Mean gradient norm before clipping."""

    learning_rate: float
    """Learning rate of the last step."""


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
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.device = torch.device(device)
        shows_references = any(pair.references for pair in dataset.pairs)
        knew_references = bool((metadata or {}).get("uses_reference", False))
        self.metadata = {
            **(metadata or {}),
            "uses_reference": network.config.reference_attention and (shows_references or knew_references),
            "timestep": config.timestep,
        }
        self.text_embeddings = self._embeddings_by_prompt(text_embedding)
        self.objective = (Objective(config.loss) if objective is None else objective).to(self.device)
        self.network = network.to(self.device, torch.float32)
        self.trained = trainable_parameters(network, config.trainable)
        self._check()
        freeze_all_but(network, self.trained)
        if config.gradient_checkpointing:
            network.unet.enable_gradient_checkpointing()
        self.optimizer = make_optimizer(self.trained, config.optimizer)
        self.average = WeightAverage(self.trained, config.ema_decay) if config.ema_decay else None
        self.step = 0
        self.history: list[StepRecord] = []
        self._sums: dict[str, tuple[float, int]] = {}
        self._batches = BatchStream(
            dataset, PairSampler(dataset, config.batch_size, config.seed), config.data.num_workers
        )
        self._generator = torch.Generator().manual_seed(config.seed + 1)

    @property
    def prompt(self) -> str:
        """The prompt whose embedding checkpoints carry."""
        return next(iter(self.text_embeddings))

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
        """Evaluate the weights that a checkpoint would hold for use on other pairs; consumes no random numbers."""
        self.network.eval()
        self._exchange_average()
        try:
            return evaluate_pairs(
                self._fix,
                dataset,
                max_samples=self.config.validation_samples if max_samples is None else max_samples,
                modes=modes,
                lpips=self.objective.lpips,
                device=self.device,
            )
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
                sums=self._sums,
                generator=self._generator.get_state(),
                # While the network holds the average, the average's place holds the weights in training.
                raw_parameters=self.average.averages if self.average else {},
                text_embeddings=self.text_embeddings,
                metadata=self.metadata,
            )
            write_state(folder, state, self.network, self.optimizer, list(self.trained))
        finally:
            self._exchange_average()

    def save_model(self, folder: Path) -> None:
        """Write only the network for use."""
        self._exchange_average()
        try:
            save_checkpoint(
                folder,
                self.network,
                text_embedding=self.text_embeddings[self.prompt],
                prompt=self.prompt,
                metadata=model_metadata(self.metadata, self.step),
            )
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
    ) -> DifixTrainer:
        """Continue from what :meth:`save` wrote; on a CPU the further steps are bitwise the same.

        Args:
            folder: The checkpoint.
            dataset: The same training pairs.
            config: The same configuration; intervals, workers and ``max_steps`` may differ.
            device: Where to compute.
            objective: Loss; built from ``config.loss`` by default.

        Raises:
            InputError: The checkpoint is incomplete, damaged or from another configuration or dataset.
        """
        network, state, optimizer_tensors = read_state(folder, config)
        trainer = cls(
            network,
            state.text_embeddings,
            dataset,
            config,
            device=device,
            objective=objective,
            metadata=state.metadata,
        )
        trainer._restore(state, optimizer_tensors)
        return trainer

    def _train_step(self) -> None:
        config = self.config
        rate = learning_rate_at(self.step, config.max_steps, config.optimizer)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        ids: list[str] = []
        losses: dict[str, float] = {"loss": 0.0}
        for _ in range(config.gradient_accumulation):
            batch = self._batches.next()
            ids += batch.ids
            for name, value in self._accumulate_gradients(batch, ids).items():
                losses[name] = losses.get(name, 0.0) + value / config.gradient_accumulation
        norm = torch.nn.utils.clip_grad_norm_(list(self.trained.values()), config.optimizer.max_grad_norm)
        self._require_finite(norm, "gradient", ids)
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            self.average.update(self.trained, self.step)
        self._record(losses | {"grad_norm": float(norm)}, rate)

    def _accumulate_gradients(self, batch: Batch, ids: list[str]) -> dict[str, float]:
        x, x_target = batch.x.to(self.device), batch.x_target.to(self.device)
        only_target = self.config.loss.views == "target"
        with self._autocast():
            x_pred = self.network(
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
        self._require_finite(terms.total, "loss", ids)
        (terms.total / self.config.gradient_accumulation).backward()
        return {"loss": float(terms.total.detach()), **{name: float(term) for name, term in terms.weighted.items()}}

    def _posterior_noise(self, x: Float[Tensor, "b v c=3 h w"]) -> Float[Tensor, "bv c2 h2 w2"] | None:
        if not self.config.posterior_noise:
            return None
        vae = self.network.config.vae
        factor = vae.downscale_factor
        shape = (x.shape[0] * x.shape[1], vae.latent_channels, x.shape[-2] // factor, x.shape[-1] // factor)
        # Drawn on the CPU so that every device sees the same noise.
        return torch.randn(shape, generator=self._generator).to(self.device)

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

    def _record(self, values: dict[str, float], rate: float) -> None:
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        if self.step % self.config.log_every:
            return
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        loss, grad_norm = means.pop("loss"), means.pop("grad_norm")
        self.history.append(StepRecord(step=self.step, loss=loss, terms=means, grad_norm=grad_norm, learning_rate=rate))

    def _require_finite(self, value: Tensor, what: str, ids: list[str]) -> None:
        if not bool(torch.isfinite(value)):
            raise NonFiniteLossError(
                f"the {what} became {value.item()} at step {self.step + 1} on the samples {', '.join(ids)}: "
                "look at these images, or lower the learning rate"
            )

    def _restore(self, state: EngineState, optimizer_tensors: Mapping[str, Tensor]) -> None:
        self.step = state.step
        self._sums = dict(state.sums)
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
                    parameter.copy_(state.raw_parameters[name])

    def _embeddings_by_prompt(self, given: Tensor | TextEmbeddings) -> dict[str, Tensor]:
        prompts = self.dataset.prompts
        if isinstance(given, Tensor):
            if len(prompts) > 1:
                raise InputError(f"the pairs have {len(prompts)} prompts and there is one text embedding: {prompts}")
            given = dict.fromkeys(prompts, given)
        missing = [f'"{prompt}"' for prompt in prompts if prompt not in given]
        if missing:
            known = ", ".join(f'"{prompt}"' for prompt in given)
            raise InputError(
                f"there is no text embedding for the prompt {first_problems(missing)}: "
                f"write the pairs with the model's own prompt ({known})"
            )
        return {
            prompt: embedding.detach().reshape(embedding.shape[-2:]).to(self.device, torch.float32)
            for prompt, embedding in given.items()
        }

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
