"""Training on several GPUs, one process each, as `torchrun` starts them.

gsplat's distributed mode (Zhao et al. 2024, arXiv:2406.18533): each process owns a shard of the Gaussians and renders
its own photo of every step. A process projects its Gaussians for the cameras of all, and the projected ones are
exchanged; on the way back each process gets the gradients of its own Gaussians from the photos of all.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from splat_recon.config import TrainConfig
from splat_recon.errors import InputError
from splat_render.device import chosen_device
from splat_render.gaussians import Gaussians


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The processes that train together, and which of them this one is."""

    rank: int = 0
    """Number of this process, from 0."""

    size: int = 1
    """Number of processes."""

    local_rank: int = 0
    """Number of this process on its machine, which is that of its GPU."""

    @classmethod
    def from_environment(cls) -> "World":
        """As `torchrun` says; one process alone where it does not."""
        names = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}
        return cls(**{field: int(os.environ[name]) for field, name in names.items() if name in os.environ})

    @contextmanager
    def joined(self, backend: str) -> Iterator[None]:
        """While this lasts, the processes can talk to each other: "nccl" between GPUs, "gloo" between CPUs."""
        if self.size == 1:
            yield
            return
        if backend == "nccl":
            torch.cuda.set_device(self.local_rank)
        dist.init_process_group(backend, rank=self.rank, world_size=self.size)
        try:
            yield
        finally:
            dist.destroy_process_group()

    def own_gpu(self, wanted: str) -> str:
        """The CUDA device of this process.

        Args:
            wanted: "auto", "cpu" or "cuda", as the user asked.

        Raises:
            InputError: There is none for it, or it must not be used, or gsplat cannot use it.
        """
        count = torch.cuda.device_count()
        if wanted == "cpu" or self.local_rank >= count:
            raise InputError(
                f"torchrun started {self.size} processes, and each needs a GPU of its own (there are {count}): "
                "start as many as there are GPUs, or leave torchrun out"
            )
        torch.cuda.set_device(self.local_rank)
        chosen_device("cuda")
        return f"cuda:{self.local_rank}"

    def total(self, value: float) -> float:
        """The sum of a number over all processes; each must ask."""
        if self.size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        summed = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(summed)
        return float(summed)

    def largest(self, value: int) -> int:
        """The largest of a number over all processes; each must ask."""
        return max(int(found["value"]) for found in self.collected({"value": torch.tensor(value)}))

    def shard(self, gaussians: Gaussians) -> Gaussians:
        """This process's part of Gaussians that all have: every `size`-th."""
        return gaussians if self.size == 1 else gaussians.mapped(lambda tensor: tensor[self.rank :: self.size])

    def collected(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The tensors of all processes, on the CPU, in the order of the processes; each must ask."""
        own = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        if self.size == 1:
            return [own]
        found: list[dict[str, Tensor]] = [{} for _ in range(self.size)]
        dist.all_gather_object(found, own)
        return found


ALONE = World()
"""One process."""


def check_world(config: TrainConfig, world: World, sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse what several processes cannot do together.

    Args:
        sizes: Width and height of every training image.

    Raises:
        InputError: One sentence per thing that does not go.
    """
    if world.size == 1:
        return
    problems = []
    if getattr(config.strategy, "absgrad", False):
        problems.append("gsplat has no absolute gradients there: choose another preset")
    if config.pose is not None or config.appearance is not None:
        problems.append("poses and exposures are learned in one process only: leave them out")
    if config.packed or config.sparse_grad or config.visible_adam:
        problems.append("packed, sparse_grad and visible_adam are for one process: leave them out")
    if len(set(sizes)) > 1:
        problems.append(f"all photos must have one size, found {len(set(sizes))}: undistort or crop them")
    if problems:
        raise InputError.from_problems(f"training on {world.size} GPUs", problems)


PER_GAUSSIAN = ("gaussians.", "adam.exp_avg", "density.", "average.sum.")
"""Prefixes of a checkpoint's tensors that have a row per Gaussian."""


def joined_tensors(shards: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all processes as those of one training: rows of Gaussians one after the other.

    What else differs is only the generator of density control, which is kept for each process.
    """
    joined = dict(shards[0])
    for name in joined:
        if name.startswith(PER_GAUSSIAN):
            joined[name] = torch.cat([shard[name] for shard in shards])
    for rank, shard in enumerate(shards[1:], start=1):
        joined[f"generator.density@{rank}"] = shard["generator.density"]
    return joined


def shared_tensors(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """One process's part of what `joined_tensors` made, for however many processes."""
    shared = {name: tensor for name, tensor in tensors.items() if "@" not in name}
    if world.size == 1:
        return shared
    for name, tensor in shared.items():
        if name.startswith(PER_GAUSSIAN):
            shared[name] = tensor[world.rank :: world.size]
    own = tensors.get(f"generator.density@{world.rank}")
    return shared if own is None else shared | {"generator.density": own}
