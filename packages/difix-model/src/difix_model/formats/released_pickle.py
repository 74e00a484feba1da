"""`model_<step>.pkl` of the released trainer, read and written; only tensors and plain values pass either way.

The released trainer stores the UNet and, of the autoencoder, the adapters and the skip convolutions only; the rest
comes from SD-Turbo. Files that are written here hold the whole autoencoder, which the released code takes as well, and
under a key of their own what it does not know: architecture, prompt, its embedding and metadata. They need no base.
"""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from difix_model.config import NetworkConfig
from difix_model.errors import InputError, first_problems
from difix_model.formats.checkpoint import Checkpoint, empty_network
from difix_model.formats.durable import write_whole
from difix_model.formats.hub import weights_folder
from difix_model.formats.metadata import WeightsMetadata
from difix_model.formats.published import published_parameters
from difix_model.formats.released import Released, assembled, base_vae, layout_config
from difix_model.text import TextEncoder

PICKLE_KEYS = ("rank_vae", "state_dict_unet", "state_dict_vae", "vae_lora_target_modules")
OWN_KEY = "difix_model"
SAFE_TORCH = "2.10"
"""Before this version, even torch's restricted unpickler can be made to corrupt memory (CVE-2026-24747)."""


def is_pickle(source: Path | str) -> bool:
    """Tell by its name whether a source is a trainer's file."""
    return str(source).endswith(".pkl")


def load_pickle(
    path: Path | str,
    *,
    base: Path | str,
    base_revision: str | None = None,
    reference_attention: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Released:
    """Load `model_<step>.pkl` of the released trainer over what it was trained from.

    Args:
        base: Folder or hub id of what it was trained from: SD-Turbo (as the trainer does) or published Difix weights.
        reference_attention: Whether self-attention runs across views. The file does not say; the released
            inference script does it whenever a reference is given, which is what True does.

    Raises:
        InputError: If the file cannot be read safely, or it and the base do not make a complete network.
    """
    content = read_pickle(path)
    folder = weights_folder(base, revision=base_revision)
    return network_over_base(content, path, folder, reference_attention=reference_attention, dtype=dtype)


def network_over_base(
    content: dict[str, Any], path: Path | str, folder: Path, *, reference_attention: bool, dtype: torch.dtype
) -> Released:
    """Complete what a trainer's file holds by a base.

    Args:
        content: From `read_pickle`.
        reference_attention: Whether self-attention runs across views.

    Raises:
        InputError: If the two do not make a complete network.
    """
    config = layout_config(folder, reference_attention=reference_attention, lora_rank=int(content["rank_vae"]))
    vae = base_vae(folder, config) | content["state_dict_vae"]
    targets = set(empty_network(config).vae.lora_targets())
    problems = [f"unexpected {name}" for name in sorted(set(content["vae_lora_target_modules"]) - targets)]
    problems += [f"missing {name}" for name in sorted(targets - set(content["vae_lora_target_modules"]))]
    if problems:
        raise InputError(f"the adapters of {path} do not fit the autoencoder of {folder}: {first_problems(problems)}")
    network = assembled(config, content["state_dict_unet"], vae, source=path, dtype=dtype)
    return Released(network=network, text_encoder=TextEncoder(folder), folder=folder)


def own_checkpoint(content: dict[str, Any], path: Path | str) -> Checkpoint | None:
    """Return what a file written by `save_pickle` holds, or None if another program wrote it.

    Args:
        content: From `read_pickle`.
    """
    own = content.get(OWN_KEY)
    if own is None:
        return None
    try:
        values, embedding = json.loads(own["description"]), own["text_embedding"]
        config = NetworkConfig.from_dict(values["network"])
        prompt, metadata = str(values["prompt"]), WeightsMetadata.from_dict(values["metadata"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: its description cannot be read ({error})") from error
    network = assembled(config, content["state_dict_unet"], content["state_dict_vae"], source=path, dtype=torch.float32)
    return Checkpoint(network=network, text_embedding=embedding.float(), prompt=prompt, metadata=metadata)


def save_pickle(path: Path | str, checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint as the released trainer does, for programs that read its files.

    There is no optimizer in it, so it serves inference, and the released trainer cannot resume from it.

    Args:
        path: The file, which must not exist; its name must end in .pkl.
        dtype: Floating-point type on disk; None keeps each parameter's own.

    Raises:
        InputError: If the file cannot be written, or the network is one that the form cannot express.
    """
    path = Path(path)
    if not is_pickle(path):
        raise InputError(f"the name of a trainer's file must end in .pkl, got {path}")
    parameters = published_parameters(checkpoint.network, dtype=dtype)
    vae = parameters.config.vae
    if vae.ignore_skip or vae.gamma != 1.0:
        raise InputError(
            f"a .pkl cannot say that skip connections are scaled by {vae.gamma} or ignored ({vae.ignore_skip}): "
            "convert to the published layout instead"
        )
    description = {
        "network": parameters.config.to_dict(),
        "prompt": checkpoint.prompt,
        "metadata": checkpoint.metadata.to_dict(),
    }
    embedding = checkpoint.text_embedding.detach().to("cpu", torch.float32)
    content = {
        "vae_lora_target_modules": parameters.lora_targets,
        "rank_vae": vae.lora_rank,
        "state_dict_unet": parameters.unet,
        "state_dict_vae": parameters.vae,
        OWN_KEY: {"description": json.dumps(description), "text_embedding": embedding.clone()},
    }
    write_whole(path, lambda partial: torch.save(content, partial))


def read_pickle(path: Path | str) -> dict[str, Any]:
    """Read a trainer's file to the CPU, with torch's restricted unpickler and no other.

    Raises:
        InputError: If it is absent, damaged, holds more than tensors and plain values, or lacks what it must hold, or
            if this version of torch does not read such files safely.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if TorchVersion(torch.__version__) < SAFE_TORCH:
        raise InputError(
            f"{path} is a pickle, which torch before {SAFE_TORCH} does not read safely (this is {torch.__version__}): "
            "update torch, or convert the file elsewhere"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # An error follows, or none.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged or holds more than tensors and plain values, so it is not read: {type(error).__name__}"
        ) from error
    missing = [name for name in PICKLE_KEYS if not isinstance(content, dict) or name not in content]
    if missing:
        raise InputError(f"{path} is not a checkpoint of the released trainer: it lacks {', '.join(missing)}")
    for name in ("state_dict_unet", "state_dict_vae"):
        values = content[name]
        if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
            raise InputError(f"{path} is not a checkpoint of the released trainer: its {name} holds no parameters")
    return content
