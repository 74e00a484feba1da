"""The fake device itself: it sees every call of torch's Python functions while it is there."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from support.fake_cuda import gsplat_kernels, patches
from support.fake_cuda.marks import CUDA, is_marked, is_pinned, marked, names_cuda, tensors_in
from support.fake_cuda.rules import WAITING, DeviceMismatchError, check, index_traffic
from support.fake_cuda.traffic import Traffic


class FakeCuda(TorchFunctionMode):
    """A context in which torch finds one CUDA device; see the package's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()
        self._stack = contextlib.ExitStack()
        self._special: dict[str, Callable[..., Any]] = {
            "to": self._to,
            "cuda": self._to,
            "cpu": self._to,
            "__get__": self._get,
            "__set__": self._set,
            "numpy": self._numpy,
            "__array__": self._numpy,
            "register_hook": self._register_hook,
            "copy_": self._copy,
            "_parse_to": lambda function, name, args, kwargs: function(*args, **kwargs),
            "get_device": lambda function, name, args, kwargs: 0 if is_marked(args[0]) else -1,
        }

    def __enter__(self) -> FakeCuda:
        self._stack.enter_context(
            patches.replaced(
                waited=lambda: self.traffic.add("wait", "torch.cuda.synchronize"),
                kernel=self._kernel,
                watched_backward=self._watched_backward,
                watched_engine=self._watched_engine,
            )
        )
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every call of a torch function."""
        name = getattr(function, "__name__", str(function))
        return self._special.get(name, self._call)(function, name, tuple(args), dict(kwargs or {}))

    def _call(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call like any other: checked, counted, done, its results marked."""
        involved = any(map(is_marked, tensors_in([args, kwargs])))
        on_device = involved
        if kwargs.get("device") is not None:
            on_device = names_cuda(kwargs["device"])
            kwargs["device"] = "cpu" if on_device else kwargs["device"]
        generator = kwargs.get("generator")
        if generator is not None and (generator.device.type == "cuda") != on_device:
            raise DeviceMismatchError(f"{name} draws on {'cuda' if on_device else 'cpu'}, its generator is elsewhere")
        check(name, args, kwargs)
        if on_device and name in ("tensor", "as_tensor", "new_tensor", "asarray"):
            data = args[1] if name == "new_tensor" else args[0]
            if not is_marked(data):
                self.traffic.add("upload", name)
        if involved:
            self._count(name, args)
        result = function(*args, **kwargs)
        if name == "__iter__":
            return iter(marked(list(result), involved))
        if name == "__setitem__":
            return result
        return marked(result, on_device) if on_device or kwargs.get("device") is not None else result

    def _count(self, name: str, args: tuple[Any, ...]) -> None:
        # The length of a repetition is known unless it is asked of a tensor.
        if name in WAITING and not (name == "repeat_interleave" and isinstance(args[-1], int)):
            self.traffic.add("wait", name)
        if name in ("__getitem__", "__setitem__", "index_put_") and is_marked(args[0]):
            for kind, call in index_traffic(name, args):
                self.traffic.add(kind, call)
            if name == "__setitem__" and isinstance(args[2], Tensor) and args[2].ndim and not is_marked(args[2]):
                self.traffic.add("upload", name, args[2].nbytes)

    def _get(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An attribute: `.device` and its like answer for the mark, `.grad` and `.data` inherit it."""
        attribute = getattr(function.__self__, "__name__", "")
        if attribute == "is_cuda":
            return is_marked(args[0])
        if not is_marked(args[0]):
            return function(*args, **kwargs)
        answers = {"device": CUDA, "is_cpu": False}
        return answers[attribute] if attribute in answers else marked(function(*args, **kwargs))

    def _set(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        attribute = getattr(function.__self__, "__name__", "")
        if attribute == "grad" and isinstance(args[1], Tensor) and is_marked(args[0]) != is_marked(args[1]):
            raise DeviceMismatchError("a gradient of another device is assigned")
        result = function(*args, **kwargs)
        if attribute == "data":
            marked(args[0], is_marked(args[1]))
        return result

    def _to(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A move: a copy where the device changes."""
        tensor, rest = args[0], list(args[1:])
        before = after = is_marked(tensor)
        if name != "to":
            after, rest = name == "cuda", []
            kwargs = {key: value for key, value in kwargs.items() if key == "non_blocking"}
        elif "device" in kwargs:
            device = kwargs.pop("device")
            after = before if device is None else names_cuda(device)
        elif rest and isinstance(rest[0], Tensor):
            after, rest[0] = is_marked(rest[0]), rest[0].dtype
        elif rest and (rest[0] is None or isinstance(rest[0], (str, int, torch.device))):
            device = rest.pop(0)
            after = before if device is None else names_cuda(device)
            rest = [tensor.dtype if one is None else one for one in rest] or ([] if kwargs else [tensor.dtype])
        if len(rest) > 1:
            kwargs["non_blocking"] = rest.pop(1)
        background = bool(kwargs.get("non_blocking")) and is_pinned(tensor)
        if name != "to":
            result = tensor if before == after else torch.Tensor.clone(tensor)
        else:
            if before != after:
                kwargs["copy"] = True
            result = function(tensor, *rest, **kwargs) if rest or kwargs else tensor
        if before != after:
            self._count_copy("cpu" if before else "cuda", name, tensor.nbytes, background=background)
        return marked(result, after) if before or after else result

    def _copy(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        target, source = args[0], args[1]
        if isinstance(source, Tensor) and is_marked(target) != is_marked(source):
            background = is_pinned(source) and bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            self._count_copy("cuda" if is_marked(target) else "cpu", name, source.nbytes, background=background)
        return function(*args, **kwargs)

    def _count_copy(self, target: str, name: str, num_bytes: int, *, background: bool) -> None:
        kind = "background" if background else "upload" if target == "cuda" else "download"
        self.traffic.add(kind, name, num_bytes)

    def _numpy(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_marked(args[0]):
            raise DeviceMismatchError(f"NumPy cannot read a tensor {list(args[0].shape)} on CUDA")
        return function(*args, **kwargs)

    def _register_hook(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensor, hook = args
        if not is_marked(tensor):
            return function(tensor, hook)
        return function(tensor, lambda gradient: hook(marked(gradient)))

    def _watched_engine(self, engine: Callable[..., Any]) -> Callable[..., Any]:
        """Backward passes are watched too: this mode is off while it handles the call of `backward`."""

        @functools.wraps(engine)
        def run(*args: Any, **kwargs: Any) -> Any:
            involved = any(map(is_marked, tensors_in(args)))
            if _is_watching():
                return marked(engine(*args, **kwargs), involved)
            TorchFunctionMode.__enter__(self)
            try:
                return marked(engine(*args, **kwargs), involved)
            finally:
                TorchFunctionMode.__exit__(self, None, None, None)

        return run

    def _watched_backward(self, function: Any, is_gsplat: bool) -> Callable[..., Any]:
        """The backward pass of a differentiable function, with its gradients marked."""
        original = function.backward

        def backward(ctx: Any, *gradients: Any) -> Any:
            if not (is_gsplat or any(map(is_marked, ctx.saved_tensors))):
                return original(ctx, *gradients)
            if not is_gsplat:
                return marked(original(ctx, *marked(gradients)))
            # What gsplat saves comes back without marks, so its own backward passes are not watched.
            with torch._C.DisableTorchFunction():
                return marked(original(ctx, *gradients))

        return backward

    def _kernel(self, name: str) -> Callable[..., Any]:
        """What stands in for a compiled function of gsplat's: it checks what kernels take for granted."""
        implementation = gsplat_kernels.KERNELS[name]

        def call(*args: Any) -> Any:
            for number, one in enumerate(args):
                if not isinstance(one, Tensor):
                    continue
                if _is_watching() and not is_marked(one):
                    raise DeviceMismatchError(f"gsplat's {name}: argument {number} is not on CUDA")
                if not one.is_contiguous():
                    raise DeviceMismatchError(f"gsplat's {name}: argument {number} is not contiguous")
            if name in gsplat_kernels.WAITING:
                self.traffic.add("wait", name)
            with torch._C.DisableTorchFunction():
                return marked(implementation(*args))

        return call


def _is_watching() -> bool:
    """Whether calls are seen at this point: not while one is being handled, nor where marks were switched off."""
    return torch._C._len_torch_function_stack() > 0 and not torch._C._is_torch_function_all_disabled()
