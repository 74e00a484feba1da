"""nerfstudio's checkpoints: read without pickle, and refused in a sentence where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from difix3d_nerfstudio.errors import InputError

MODEL_PREFIX = "_model."

PER_METRIC = ("lpips.", "psnr.", "ssim.")
"""Parts of a model that only measure: a checkpoint may have them or not."""


def allow_numpy_scalars() -> None:
    """Let torch's safe loading read learning rates, which nerfstudio saves as numpy scalars.

    Without this, torch 2.6 and later refuse every checkpoint of nerfstudio 1.1.5. Nothing else is let in: loading stays
    free of pickled code. It holds for all methods, since nerfstudio imports its plugins first.
    """
    scalar = np._core.multiarray.scalar
    allowed: list[Any] = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype]
    allowed += [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4")]
    torch.serialization.add_safe_globals(allowed)


def check_model_state(state: Mapping[str, Any], model: torch.nn.Module, *, method: str) -> None:
    """Refuse a checkpoint whose parameters are not the model's.

    nerfstudio loads what fits and leaves the rest as it was initialized, without a word.

    Args:
        state: A checkpoint's "pipeline" entry.
    """
    stored = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        if key.startswith(MODEL_PREFIX):
            stored[key.removeprefix(MODEL_PREFIX).removeprefix("module.")] = value
    own = model.state_dict()
    stored = {key: value for key, value in stored.items() if not key.startswith(PER_METRIC)}
    own = {key: value for key, value in own.items() if not key.startswith(PER_METRIC)}
    missing, left_over = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    is_splat, wants_splat = "gauss_params.means" in stored, "gauss_params.means" in own
    if is_splat != wants_splat:
        right = "difix3d-splat" if is_splat else "difix3d"
        found = "splatfacto" if is_splat else "nerfacto"
        raise InputError(f"this is a checkpoint of {found}, and {method} cannot begin with it: use {right}")
    if any(key.startswith("camera_optimizer.") for key in (*missing, *left_over)):
        flag = "off" if missing else "SO3xR3"
        raise InputError(
            "the checkpoint was trained " + ("without" if missing else "with") + " pose correction and this run is "
            f"not: give --pipeline.model.camera-optimizer.mode {flag}, as the checkpoint was trained (its field lives "
            "in the corrected poses, so nothing else is right)"
        )
    appearance = [key for key in (*missing, *left_over) if "embedding_appearance" in key]
    shapes = {} if is_splat else {key: (value.shape, own[key].shape) for key, value in stored.items() if key in own}
    wrong = {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}
    if appearance or any("mlp_head" in key or "embedding_appearance" in key for key in wrong):
        raise InputError(
            "the checkpoint has appearance embeddings of another size than this run, or for another number of photos: "
            "give --pipeline.model.appearance-embed-dim as the checkpoint was trained (nerfacto's default is 32), and "
            "the same photos"
        )
    if any("tcnn" in key or key.endswith(".params") for key in left_over):
        raise InputError(
            "the checkpoint was trained with tinycudann, which is not installed here: install it, or train again with "
            "--pipeline.model.implementation torch"
        )
    if any("tcnn" in key or key.endswith(".params") for key in missing):
        raise InputError("the checkpoint was trained without tinycudann: give --pipeline.model.implementation torch")
    if missing or left_over or wrong:
        parts = [f"lacks {missing[0]} ({len(missing)} in all)"] if missing else []
        parts += [f"has {left_over[0]}, which this model has not ({len(left_over)} in all)"] if left_over else []
        parts += [
            f"has {key} of shape {tuple(pair[0])} where this model has {tuple(pair[1])}"
            for key, pair in sorted(wrong.items())[:1]
        ]
        raise InputError(
            f"the checkpoint does not fit {method}: it {', and '.join(parts)}; give the --pipeline.model flags that it "
            "was trained with"
        )


def relink_splat_optimizers(model: Any, optimizers: Any) -> None:
    """Let the optimizers step the Gaussians that were loaded.

    splatfacto 1.1.5 makes new parameters when it loads a checkpoint, after its optimizers were built on the old ones:
    nothing would ever learn, and the first refinement would bring the old ones back.

    Args:
        optimizers: nerfstudio's `Optimizers`.
    """
    for name, (new,) in model.get_gaussian_param_groups().items():
        optimizer = optimizers.optimizers[name]
        old = optimizer.param_groups[0]["params"][0]
        if old is new:
            continue
        if old in optimizer.state:
            optimizer.state[new] = optimizer.state.pop(old)
        optimizer.param_groups[0]["params"] = [new]
        optimizers.parameters[name] = [new]
