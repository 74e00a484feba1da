"""A small task of the tests: a line fitted to noisy points, with everything a task may have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from train_runs import OptimizerConfig, ParameterGroup, Processes, TaskState, full_tensor, reshard_like


@dataclass(frozen=True)
class Points:
    """A batch."""

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]


class Line(nn.Module):
    """Two layers, dropout between them, and a buffer that every step changes."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 1)
        self.dropout = nn.Dropout(dropout)
        self.num_seen: Tensor
        self.register_buffer("num_seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(torch.tanh(self.first(x))))


class LineTask:
    """Fits the network to a plane; batches come from a generator of its own.

    Args:
        batch_size: Of each process.
        config: Of the first layer; the last one has ten times its learning rate.
        optimizers: Names of the optimizers of the two layers.
        dropout: Probability.
        processes: Those that train together.
    """

    def __init__(
        self,
        batch_size: int = 4,
        *,
        config: OptimizerConfig | None = None,
        optimizers: tuple[str, str] = ("main", "main"),
        dropout: float = 0.0,
        processes: Processes | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.config = OptimizerConfig(learning_rate=1e-2, eps=1e-4) if config is None else config
        self.optimizers = optimizers
        self.processes = Processes() if processes is None else processes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.model = Line(dropout)
        self.forward = self.processes.wrap_model(self.model, shard_units=[self.model.first])
        self.sampler = torch.Generator().manual_seed(9)
        self.spoil = False
        """Give a batch that is not finite."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        return [
            ParameterGroup(
                name=name,
                parameters={f"{name}.{key}": value for key, value in layer.named_parameters()},
                config=self.config,
                optimizer=optimizer,
                learning_rate=rate,
            )
            for name, layer, optimizer, rate in (
                ("first", self.model.first, self.optimizers[0], None),
                ("last", self.model.last, self.optimizers[1], lambda step: 1e-3 / (1 + step)),
            )
        ]

    def next_batch(self) -> Points:
        drawn = torch.randn(self.processes.world_size * self.batch_size, 2, generator=self.sampler)
        x = self.processes.shard(drawn)
        if self.spoil:
            x = x * float("nan")
        return Points(x=x, y=x @ torch.tensor([[0.5], [-1.0]]) + 0.2, ids=tuple(f"{float(row[0]):.3f}" for row in x))

    def losses(self, batch: Points, *, step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        self.model.num_seen += len(batch.x)
        # The same noise in every process, like images that are divided among them.
        shape = (self.processes.world_size * len(batch.x), 1)
        noise = self.processes.shard(0.1 * torch.randn(shape, generator=generator))
        error = self.forward(batch.x) - batch.y - noise
        terms = {"l2": error.square().mean()}
        return terms if step < 2 else terms | {"l1": 0.1 * error.abs().mean()}

    def state(self) -> TaskState:
        return TaskState(
            values={"batch_size": self.batch_size},
            tensors={"sampler": self.sampler.get_state(), "num_seen": self.model.num_seen},
        )

    def load_state(self, state: TaskState) -> None:
        if state.values["batch_size"] != self.batch_size:
            raise ValueError(f"batch_size was {state.values['batch_size']}")
        self.sampler.set_state(state.tensors["sampler"])
        self.model.num_seen.copy_(state.tensors["num_seen"])

    def weights(self) -> dict[str, Tensor]:
        """A copy of everything in the model, whole."""
        return {name: full_tensor(value).detach().clone() for name, value in self.model.state_dict().items()}


class LineModelTask(LineTask):
    """The same with a model for use, in files of its own."""

    def model_writer(self) -> Callable[[Path], None]:
        weights = self.weights()

        def write(folder: Path) -> None:
            save_file(weights, folder / "weights.safetensors")
            (folder / "config.json").write_text(json.dumps({"layers": 2}))

        return write

    @torch.no_grad()
    def read_model(self, folder: Path) -> None:
        found = load_file(folder / "weights.safetensors")
        for name, value in self.model.state_dict().items():
            value.copy_(reshard_like(found[name], value))
