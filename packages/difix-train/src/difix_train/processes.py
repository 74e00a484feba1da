"""The processes of a run, as `accelerate launch` starts them: who am I, wait, average, share the network out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from difix_model.network import DifixNetwork

SHARDED_VARIABLE = "ACCELERATE_USE_FSDP"
"""Set by `accelerate launch` with an FSDP configuration: the network is then shared out instead of copied."""


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

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """The means over the processes of numbers that all have under the same names; not finite if one is not."""
        if self.world_size == 1:
            return dict(values)
        summed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return dict(zip(values, (summed / self.world_size).tolist(), strict=True))

    def largest(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.world_size == 1:
            return value
        shared = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
        return int(shared)

    def all_of(self, names: list[str]) -> list[str]:
        """The names of every process, in the processes' order."""
        if self.world_size == 1:
            return names
        gathered: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(gathered, names)
        return [name for part in gathered for name in part]

    def from_main(self, value: Any) -> Any:
        """What the main process has, for all."""
        if self.world_size == 1:
            return value
        shared = [value]
        torch.distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    def own_part(self, items: Any) -> Any:
        """This process's share of a sequence or tensor that all processes have, in equal parts."""
        count = len(items) // self.world_size
        return items[self.rank * count : (self.rank + 1) * count]

    def shared_out(self, network: DifixNetwork) -> nn.Module:
        """What to call for a forward pass whose gradients are averaged over the processes.

        Every process gets the first one's parameters. Where the launch asks for it, the network's own parameters
        become shards (`DTensor`) in place; otherwise they stay as they are.
        """
        if self.world_size == 1:
            return network
        _copy_from_first(network)
        if not self.sharded:
            device_ids = [self.device] if self.device.type == "cuda" else None
            return nn.parallel.DistributedDataParallel(network, device_ids=device_ids, broadcast_buffers=False)
        from torch.distributed.fsdp import fully_shard

        # What the network returns is never changed in place here, which the warning is about.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for module in _shard_units(network):
            fully_shard(module, mesh=mesh)
        fully_shard(network, mesh=mesh)
        return network

    def close(self) -> None:
        """Leave the group of processes, at the end of a program."""
        if self.world_size > 1:
            from accelerate import PartialState

            PartialState().destroy_process_group()


@contextmanager
def without_exchange(module: nn.Module, *, enabled: bool) -> Iterator[None]:
    """Let gradients pile up in each process without averaging them yet."""
    if enabled and isinstance(module, nn.parallel.DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        # Shards are averaged at every backward pass: the sum of averages is the average of sums.
        yield


def whole(tensor: Tensor) -> Tensor:
    """A tensor as one process alone would have it; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed_like(value: Tensor, like: Tensor) -> Tensor:
    """A copy of a whole tensor with the device, type and sharding of another."""
    if isinstance(like, DTensor):
        local = value.to(like.device, like.dtype)
        return distribute_tensor(local, like.device_mesh, like.placements)
    return value.to(like, copy=True)


def _copy_from_first(network: nn.Module) -> None:
    with torch.no_grad():
        for tensor in network.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)


def _shard_units(network: DifixNetwork) -> list[nn.Module]:
    """The blocks that are gathered, used and let go one after the other."""
    unet = network.unet
    blocks = [*unet.down_blocks, *unet.up_blocks]
    if unet.mid_block is not None:
        blocks.append(unet.mid_block)
    return blocks
