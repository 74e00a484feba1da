"""Adam over the parameters of Gaussians, whose number changes during training."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from splat_recon.config import LearningRates
from splat_render.gaussians import Gaussians
from splat_render.gsplat_backend import selective_adam

RATE_NAMES = {
    "means": "means",
    "log_scales": "scales",
    "quats_wxyz": "quats",
    "logit_opacities": "opacities",
    "sh0": "sh0",
    "sh_rest": "sh_rest",
}
"""Field of `Gaussians` to field of `LearningRates`."""

EPS = 1e-15
"""Adam's epsilon, gsplat's: gradients of single Gaussians are tiny."""

NEW = -1
"""Source index of a Gaussian without a history: its moments start at zero."""


class GaussianOptimizer:
    """The trained Gaussians with Adam's moments, one parameter group per field.

    Args:
        gaussians: Where to start; copied.
        rates: Learning rates. The one of the centers is multiplied by the extent.
        extent: Size of the scene in scene units.
        max_steps: Steps over which the rate of the centers decays to `rates.means_final_ratio` of itself.
        batch_size: Photos per step: rates grow with its square root, and moments forget as fast per photo as with one.
        kind: "dense" is Adam; "visible" is gsplat's SelectiveAdam and "sparse" torch's SparseAdam, both on CUDA.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        rates: LearningRates,
        *,
        extent: float,
        max_steps: int,
        batch_size: int = 1,
        kind: Literal["dense", "sparse", "visible"] = "dense",
    ) -> None:
        self._gaussians = gaussians.mapped(lambda tensor: tensor.detach().clone().requires_grad_())
        factor = math.sqrt(batch_size)
        self._means_rate = rates.means * extent * factor
        self._decay = rates.means_final_ratio ** (1.0 / max_steps)
        self._kind = kind
        groups = []
        for name, parameter in self._gaussians.parameters().items():
            rate = self._means_rate if name == "means" else getattr(rates, RATE_NAMES[name]) * factor
            groups.append({"params": [parameter], "lr": rate, "name": name})
        self._adam = _make_adam(groups, kind, betas=batch_betas(batch_size), eps=EPS / factor)
        self.stopped: Bool[Tensor, ""] | None = None
        """Where this is true on the device, a step changes nothing; None always takes it."""

    @property
    def gaussians(self) -> Gaussians:
        """The trained parameters; leaf tensors that require gradients."""
        return self._gaussians

    def means_rate(self, step: int) -> float:
        """Learning rate of the centers at a step, in scene units."""
        return self._means_rate * self._decay**step

    def groups(self) -> list[dict[str, Any]]:
        """Settings of each parameter group: name, lr, betas, eps."""
        return [{key: group[key] for key in ("name", "lr", "betas", "eps")} for group in self._adam.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self._adam.zero_grad(set_to_none=True)

    def has_finite_gradients(self) -> bool:
        """Whether all gradients are numbers that Adam can use."""
        return _finite(parameter.grad for parameter in self._gaussians.parameters().values())

    def gradient_sum(self) -> Float[Tensor, ""]:
        """The sum of all gradients in float64 on their device: finite where all of them are."""
        gradients = [parameter.grad for parameter in self._gaussians.parameters().values()]
        return torch.stack([_sum64(gradient) for gradient in gradients if gradient is not None]).sum()

    def has_finite_parameters(self) -> bool:
        """Whether all Gaussians are made of finite numbers."""
        return _finite(parameter.detach() for parameter in self._gaussians.parameters().values())

    def step(self, step: int, visible: Bool[Tensor, " n"] | None = None) -> None:
        """One step of Adam; `step` counts from 0 and sets the rate of the centers.

        Args:
            visible: The Gaussians that some photo of the step shows; only the kinds other than "dense" look at it.
        """
        for group in self._adam.param_groups:
            if group["name"] == "means":
                group["lr"] = self.means_rate(step)
        if self._kind == "visible":
            if self.stopped is not None and visible is not None:
                visible = visible & ~self.stopped
            self._adam.step(visible)  # pyright: ignore[reportCallIssue, reportArgumentType]
            return
        if self._kind == "sparse" and visible is not None:
            if self.stopped is not None:
                visible = visible & ~self.stopped
            self._keep_visible_gradients(torch.nonzero(visible).flatten())
        if self._kind == "dense":
            # torch's own name for what its gradient scaler hands to a fused optimizer: 1 skips the step.
            self._adam.found_inf = None if self.stopped is None else self.stopped.float()  # pyright: ignore[reportAttributeAccessIssue]
        self._adam.step()

    def _plain_step(self, key: str) -> bool:
        return self._kind == "sparse" and key == "step"

    def _keep_visible_gradients(self, visible_idx: Int64[Tensor, " m"]) -> None:
        for parameter in self._gaussians.parameters().values():
            if parameter.grad is not None and not parameter.grad.is_sparse:
                parameter.grad = torch.sparse_coo_tensor(
                    visible_idx[None],
                    parameter.grad[visible_idx],
                    parameter.shape,
                    check_invariants=False,
                    is_coalesced=True,
                )

    @torch.no_grad()
    def replace(self, gaussians: Gaussians, source_idx: Int64[Tensor, " n"]) -> None:
        """Put other Gaussians in the place of the current ones; each inherits the moments of its source.

        Args:
            gaussians: The new parameters; detached and copied if they share memory with the current ones.
            source_idx: Index among the current Gaussians whose moments each new one takes over, or `NEW`.
        """
        is_new = source_idx == NEW
        source_idx = source_idx.clamp_min(0)
        self._gaussians = gaussians.mapped(lambda tensor: tensor.detach().clone().requires_grad_())
        for group in self._adam.param_groups:
            parameter = self._gaussians.parameters()[group["name"]]
            state = self._adam.state.pop(group["params"][0], {})
            for key in ("exp_avg", "exp_avg_sq"):
                if key in state:
                    moment = state[key][source_idx]
                    moment[is_new] = 0
                    state[key] = moment
            group["params"] = [parameter]
            if state:
                self._adam.state[parameter] = state

    @torch.no_grad()
    def set_opacities(self, logit_opacities: Tensor) -> None:
        """Overwrite the logit opacities and forget their moments."""
        self._gaussians.logit_opacities.copy_(logit_opacities)
        state = self._adam.state.get(self._gaussians.logit_opacities, {})
        for key in ("exp_avg", "exp_avg_sq"):
            if key in state:
                state[key].zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and moments by name, for a checkpoint."""
        found: dict[str, Tensor] = {}
        for name, parameter in self._gaussians.parameters().items():
            found[f"gaussians.{name}"] = parameter.detach()
            for key, value in self._adam.state.get(parameter, {}).items():
                # SparseAdam counts its steps in a plain number.
                found[f"adam.{key}.{name}"] = torch.as_tensor(value)
        return found

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `tensors` gave; parameters must have been given to the constructor."""
        for group in self._adam.param_groups:
            parameter: Tensor = group["params"][0]
            state: dict[str, Any] = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors.get(f"adam.{key}.{group['name']}")
                if value is not None:
                    state[key] = int(value) if self._plain_step(key) else value.to(parameter.device, copy=True)
            if state:
                self._adam.state[parameter] = state


def batch_betas(batch_size: int) -> tuple[float, float]:
    """Adam's decay rates for several photos per step: 0.9 and 0.999 for one, for more as if they came one by one.

    gsplat's rule, 1 - batch_size (1 - beta), which is bounded below by 0: from ten photos on, the first moment is the
    gradient itself.
    """
    if batch_size == 1:
        return 0.9, 0.999
    return max(0.0, 1 - batch_size * (1 - 0.9)), max(0.0, 1 - batch_size * (1 - 0.999))


def _make_adam(
    groups: list[dict[str, Any]], kind: str, *, betas: tuple[float, float], eps: float
) -> torch.optim.Optimizer:
    if kind == "sparse":
        return torch.optim.SparseAdam(groups, betas=betas, eps=eps)
    if kind == "visible":
        return selective_adam(groups, betas=betas, eps=eps)
    return torch.optim.Adam(groups, betas=betas, eps=eps, fused=True)


def _sum64(tensor: Tensor) -> Float[Tensor, ""]:
    return (tensor.coalesce().values() if tensor.is_sparse else tensor).sum(dtype=torch.float64)


def _finite(tensors: Iterable[Tensor | None]) -> bool:
    # A sum is finite only where all its terms are. In float64 also the reverse holds, but on a CPU that is ten times
    # slower, so it is for the rare case that float32 overflows. It costs one pass and no memory.
    dense = [tensor.coalesce().values() if tensor.is_sparse else tensor for tensor in tensors if tensor is not None]
    quick = sum((tensor.sum() for tensor in dense), start=0.0)
    if math.isfinite(float(quick)):
        return True
    return math.isfinite(float(sum((tensor.sum(dtype=torch.float64) for tensor in dense), start=0.0)))
