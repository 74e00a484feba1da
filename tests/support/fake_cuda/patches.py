"""What is replaced in torch and gsplat while the fake device is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # Before anything is replaced: it keeps lists of torch.cuda's functions.
from torch.utils import checkpoint

from support.fake_cuda.marks import CUDA, is_marked, is_pinned, pinned, tensors_in
from support.fake_cuda.rules import DeviceMismatchError

OURS = ("splat_render", "splat_recon", "difix_model", "difix_train", "difix3d", "train_runs", "diffsplat")
"""Packages whose own backward passes are watched."""

_CpuGenerator = torch.Generator
_Autocast = torch.autocast


class _EveryGenerator(type(_CpuGenerator)):
    def __instancecheck__(cls, instance: Any) -> bool:
        return type(instance) in (_CpuGenerator, FakeGenerator)


class FakeGenerator(_CpuGenerator, metaclass=_EveryGenerator):
    """A generator that may be on the fake device; its numbers are those of the CPU's."""

    _place: torch.device

    def __new__(cls, device: Any = "cpu") -> FakeGenerator:
        made = super().__new__(cls)
        made._place = CUDA if torch.device(device).type == "cuda" else torch.device("cpu")
        return made

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:
        """Where it says that it is."""
        return self._place


class _EveryAutocast(type):
    # A module that is first imported under the fake has the fake in its annotations, and is used without it later.
    def __instancecheck__(cls, instance: Any) -> bool:
        return type(instance) in (_Autocast, FakeAutocast)


class FakeAutocast(_Autocast, metaclass=_EveryAutocast):
    """Autocast of the CPU under CUDA's name."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def torch_cuda(waited: Callable[[], None]) -> dict[str, Any]:
    """Functions of torch.cuda as a machine with one GPU has them."""
    memory = 80 * 2**30
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "_lazy_init": lambda: None,
        "is_bf16_supported": lambda *_, **__: True,
        "is_current_stream_capturing": lambda: False,
        "synchronize": lambda *_: waited(),
        "empty_cache": lambda: None,
        "get_device_name": lambda *_: "a fake CUDA device",
        "get_device_capability": lambda *_: (9, 0),
        "mem_get_info": lambda *_: (memory, memory),
        "memory_allocated": lambda *_: 0,
        "max_memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "manual_seed": lambda *_: None,
        "manual_seed_all": lambda *_: None,
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
    }


@contextlib.contextmanager
def replaced(
    *,
    waited: Callable[[], None],
    kernel: Callable[[str], Callable[..., Any]],
    watched_backward: Callable[[Any, bool], Callable[..., Any]],
    watched_engine: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Iterator[None]:
    """All replacements, for as long as this lasts.

    Args:
        waited: Called where code waits for the device on purpose.
        kernel: From the name of a compiled function of gsplat's to what stands in for it.
        watched_backward: From a differentiable function, and whether it is gsplat's, to its backward pass.
        watched_engine: From torch's call of its C++ autograd engine to the one that is watched.
    """
    with contextlib.ExitStack() as stack:

        def replace(owner: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(owner, name, value))

        for name, function in torch_cuda(waited).items():
            replace(torch.cuda, name, function)
        # In this way they are also seen in threads, where calls are not.
        replace(torch.Tensor, "pin_memory", _pin_memory)
        replace(torch.Tensor, "is_pinned", lambda tensor, *_: is_pinned(tensor))
        replace(torch, "Generator", FakeGenerator)
        replace(torch, "autocast", FakeAutocast)
        # Optimizers ask the device through it whether a graph is being captured.
        replace(torch.accelerator, "current_accelerator", lambda *_, **__: None)
        replace(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(_grouped))
        replace(torch.nn.utils.clip_grad, "_group_tensors_by_device_and_dtype", _grouped)
        for module in (torch.autograd, torch.autograd.graph):
            if hasattr(module, "_engine_run_backward"):
                replace(module, "_engine_run_backward", watched_engine(module._engine_run_backward))
        # Recomputed tensors that only C++ has seen bear no mark, so devices are not compared.
        metadata = {"default": lambda tensor: {"shape": tensor.shape, "dtype": tensor.dtype}}
        stack.enter_context(mock.patch.dict(checkpoint._allowed_determinism_checks_to_fns, metadata))
        if find_spec("gsplat") is not None:
            from gsplat.cuda import _wrapper

            replace(_wrapper, "_make_lazy_cuda_func", kernel)
            replace(_wrapper, "_make_lazy_cuda_obj", lambda name: name)
        # The folder of the tests of that name is found too.
        if (found := find_spec("splat_render")) is not None and found.origin is not None:
            from splat_render import gsplat_backend, gsplat_build

            replace(gsplat_build, "ensure_compiled", lambda: None)
            gsplat_backend._probe.cache_clear()
            stack.callback(gsplat_backend._probe.cache_clear)
        if (found := find_spec("splat_recon")) is not None and found.origin is not None:
            from splat_recon import losses

            # Triton's kernels read memory, where no tensor says that it is on the device.
            replace(losses, "fused_comparison", lambda device: None)
        for function in _subclasses(torch.autograd.Function):
            package = function.__module__.split(".")[0]
            if package in ("gsplat", *OURS) and "backward" in vars(function):
                replace(function, "backward", staticmethod(watched_backward(function, package == "gsplat")))
        yield


_cpp_grouped = torch.optim.Optimizer._group_tensors_by_device_and_dtype


def _grouped(tensors: list[list[Any]], with_indices: bool = False) -> dict[Any, Any]:
    """Optimizers group parameters by device in C++, which sees the CPU."""
    place = CUDA if any(map(is_marked, tensors_in(tensors))) else torch.device("cpu")
    groups = _cpp_grouped(tensors, with_indices)
    return {(key if key is None else (place, key[1])): group for key, group in groups.items()}


def _pin_memory(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    if is_marked(tensor):
        raise DeviceMismatchError("only tensors on the CPU can be pinned")
    return pinned(tensor.clone())


def _subclasses(cls: type) -> Iterator[Any]:
    for sub in list(cls.__subclasses__()):
        yield sub
        yield from _subclasses(sub)
