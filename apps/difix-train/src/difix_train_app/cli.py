"""What `difix-train` understands."""

from __future__ import annotations

from typing import Any

from commands import Groups
from difix_train import EvalSettings, ExportSettings, RunSettings
from difix_train.settings import LoraSettings

DISTRIBUTION = "difix-train-app"

DESCRIPTION = "Train a Difix network from pairs of degraded and clean images, measure it, and write it for others."

VERBS = {
    "run": "Train a Difix network from pairs of degraded and clean images.",
    "lora": "Fine-tune by adapters, in bfloat16 with recomputed activations: for one 24 GB GPU.",
    "eval": "Measure a network on pairs: before, and after with the right, a wrong and no reference.",
    "export": "Write a run's network as our folder, in the published layout or as .pkl.",
}
"""What each verb does."""

KINDS: dict[str, Any] = {"run": RunSettings, "lora": LoraSettings, "eval": EvalSettings, "export": ExportSettings}
"""The flags of each verb."""

TRAINING_GROUPS: Groups = {
    "what matters": ("pairs", "out", "model", "max_steps", "batch_size", "height", "width", "learning_rate", "resume"),
    "what is trained": (
        "base",
        "preset",
        "lora_rank",
        "reference_attention",
        "unet_lora_rank",
        "trainable",
        "timestep",
        "posterior_noise",
    ),
    "images": (
        "framing",
        "horizontal_flip_prob",
        "vertical_flip_prob",
        "drop_reference_prob",
        "wrong_reference_prob",
        "cache",
        "num_workers",
    ),
    "loss": (
        "l2_weight",
        "l1_weight",
        "lpips_weight",
        "gram_weight",
        "gram_warmup_steps",
        "gram_crop",
        "gram_across_batch",
        "views",
        "clamp_before_loss",
        "vgg16",
        "missing_backbone",
    ),
}
"""What `difix-train run --help` shows, and what `--help all` adds; the rest is about optimizer, run and hardware."""
