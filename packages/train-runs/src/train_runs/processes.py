"""The processes of a run, as `accelerate launch` and `torchrun` start them: copies of a model, or shards of it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

SHARDED_VARIABLE = "ACCELERATE_USE_FSDP"
"""Set by `accelerate launch` with an FSDP configuration: models are then sharded instead of copied."""


class Processes:
    """This process among those of a run. Alone, everything here does nothing.

    Args:
        device: "cpu" or "cuda"; of several processes each takes a GPU of its own.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = 0
        self.device: torch.device = torch.device(device)
        self.sharded = False
        self._replicated: list[nn.parallel.DistributedDataParallel] = []
        if self.world_size > 1:
            from accelerate import PartialState

            state = PartialState(cpu=self.device.type == "cpu")
            self.rank, self.device = state.process_index, torch.device(str(state.device))
            self.sharded = os.environ.get(SHARDED_VARIABLE, "false").lower() == "true"

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files and talks to people."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def all_reduce_mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The means over the processes of numbers that all have under the same names; not finite if one is not."""
        if self.world_size == 1:
            return dict(values)
        summed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return dict(zip(values, (summed / self.world_size).tolist(), strict=True))

    def all_reduce_max(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.world_size == 1:
            return value
        shared = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
        return int(shared)

    def all_gather(self, names: Sequence[str]) -> list[str]:
        """The names that the processes have, in the processes' order."""
        if self.world_size == 1:
            return list(names)
        gathered: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(gathered, list(names))
        return [name for part in gathered for name in part]

    def broadcast(self, value: Any) -> Any:
        """What the main process has, for all."""
        if self.world_size == 1:
            return value
        shared = [value]
        torch.distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    def shard(self, items: Any) -> Any:
        """This process's part of a sequence or tensor that all processes have, in equal parts."""
        count = len(items) // self.world_size
        return items[self.rank * count : (self.rank + 1) * count]

    def wrap_model(self, model: nn.Module, *, shard_units: Sequence[nn.Module] = ()) -> nn.Module:
        """What to call for a forward pass whose gradients are averaged over the processes.

        Every process gets the first one's parameters. Where the launch asks for it, the model's own parameters become
        shards (`DTensor`) in place; otherwise they stay as they are. Ask for parameters after this call.

        Args:
            shard_units: Modules whose parameters are gathered, used and freed one after the other.
        """
        if self.world_size == 1:
            return model
        with torch.no_grad():
            for tensor in model.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)
        if not self.sharded:
            device_ids = [self.device] if self.device.type == "cuda" else None
            wrapped = nn.parallel.DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)
            self._replicated.append(wrapped)
            return wrapped
        from torch.distributed.fsdp import fully_shard

        # What models return is not changed in place here, which the warning is about.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for module in (*shard_units, model):
            fully_shard(module, mesh=mesh)
        return model

    @contextmanager
    def no_sync(self, *, enabled: bool) -> Iterator[None]:
        """Accumulate gradients in each process without averaging them yet."""
        with contextlib.ExitStack() as stack:
            # Shards are averaged at every backward pass: the sum of averages is the average of sums.
            for model in self._replicated if enabled else ():
                stack.enter_context(model.no_sync())
            yield

    def close(self) -> None:
        """Leave the group of processes, at the end of a program."""
        if self.world_size > 1:
            from accelerate import PartialState

            PartialState().destroy_process_group()


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor as one process alone would have it; every process must call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def reshard_like(value: Tensor, like: Tensor) -> Tensor:
    """A copy of a full tensor with the device, type and sharding of another."""
    if isinstance(like, DTensor):
        local = value.to(like.device, like.dtype)
        return distribute_tensor(local, like.device_mesh, like.placements)
    return value.to(like, copy=True)
