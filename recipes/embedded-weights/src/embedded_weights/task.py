"""Only the UNet of a network that starts at the identity is trained, on its latents alone.

Such a network's latent holds the image averaged over 8 x 8 pixels, how much detail there is, and a correction that is
added to the image (`difix_model.identity`). So what the UNet learns, how colors should change at that scale, can be
learned without encoding or decoding anything: a step costs a hundredth of one on whole images, and many thousand steps
fit into an hour of one CPU thread. The error that no coarse correction can undo is known for every pair and is part of
the loss, so that the loss is the logarithm of the mean squared error of the whole image: the best mean PSNR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from difix_model import DifixNetwork
from difix_model.images import on_device, pinned
from embedded_weights.batches import CoarseBatch, batch_at
from embedded_weights.coarse_pairs import RGB, CoarsePairs
from embedded_weights.config import StageConfig
from embedded_weights.prediction import predict
from train_runs import BatchStream, ParameterGroup, TaskState

FLOOR = 1e-3
"""Mean squared error that is added in the logarithm of the loss: above 30 dB, what is left counts less and less."""

WEIGHTS_FILE = "unet.safetensors"


NUM_WORKERS = 2
"""Threads that make batches ahead for a GPU."""


class _Steps:
    """Numbers of steps, from 0: what a batch is made of."""

    def __init__(self) -> None:
        self._next_step = 0

    def next_batch(self) -> int:
        self._next_step += 1
        return self._next_step - 1

    def state(self) -> dict[str, Any]:
        return {"next_step": self._next_step}

    def load_state(self, state: dict[str, Any]) -> None:
        self._next_step = state["next_step"]


class CoarseTask:
    """The UNet of a network at the identity, trained on coarse pairs; a task of :class:`train_runs.Loop`.

    Args:
        network: Initialized at the identity; its autoencoder is not touched.
        pairs: By the size of their images.
        config: The stage.
        text_embedding: Embedding of the prompt.
        device: Where to compute; the network stays there.
    """

    def __init__(
        self,
        network: DifixNetwork,
        pairs: Sequence[CoarsePairs],
        config: StageConfig,
        *,
        text_embedding: Float[Tensor, "t d"],
        device: str = "cpu",
    ) -> None:
        self.network = network.to(device)
        self.pairs = pairs
        self.config = config
        self.text_embedding = text_embedding.to(device)
        self.device = torch.device(device)
        # A GPU is quicker than the CPU makes batches, so some are made ahead; on a CPU that gains nothing.
        num_workers = NUM_WORKERS if self.device.type == "cuda" else 0
        self._batches = BatchStream(_Steps(), self._load, num_workers)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Everything in the UNet."""
        parameters = dict(self.network.unet.named_parameters())
        return [ParameterGroup(parameters=parameters, config=self.config.optimizer, learning_rate=self._learning_rate)]

    def next_batch(self) -> CoarseBatch:
        """The batch of the next step."""
        return self._batches.next()

    def _load(self, step: int) -> CoarseBatch:
        batch = batch_at(self.pairs, self.config, step)
        return batch.mapped(lambda tensor: pinned(tensor, self.device))

    def losses(self, batch: CoarseBatch, *, step: int, generator: torch.Generator) -> Mapping[str, Float[Tensor, ""]]:
        """Log-MSE of the whole image; images that come out worse than they went in count more."""
        del step, generator
        batch = batch.mapped(lambda tensor: on_device(tensor, self.device))
        views = [batch.rendered] if batch.references is None else [batch.rendered, batch.references]
        shown = torch.stack(views, dim=1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            fixed = predict(self.network, shown, text_embedding=self.text_embedding)
        photo = batch.photo[:, RGB]
        least = batch.irreducible_mse + FLOOR
        after = torch.log((fixed.float() - photo).square().mean(dim=(1, 2, 3)) + least)
        before = torch.log((batch.rendered[:, RGB] - photo).square().mean(dim=(1, 2, 3)) + least)
        regression = (after - before).clamp(min=0)
        return {"log_mse": (after + self.config.regression_weight * regression).mean()}

    def state(self) -> TaskState:
        """Which batch comes next."""
        return TaskState(values=self._batches.state())

    def load_state(self, state: TaskState) -> None:
        """Continue with that batch."""
        self._batches.load_state(state.values)

    def model_writer(self) -> Callable[[Path], None]:
        """What writes the UNet's weights."""
        weights = {name: value.detach().cpu().clone() for name, value in self.network.unet.state_dict().items()}
        return lambda folder: save_file(weights, folder / WEIGHTS_FILE)

    def read_model(self, folder: Path) -> None:
        """Take over the UNet's weights."""
        self.network.unet.load_state_dict(load_file(folder / WEIGHTS_FILE))

    def _learning_rate(self, step: int) -> float:
        config = self.config.optimizer
        warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
        final = config.final_lr_fraction
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.config.max_steps))
        return config.learning_rate * (warmup * (final + (1 - final) * cosine))
