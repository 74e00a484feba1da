"""What a training run is made of besides its configuration: pairs, folder, starting point, device. No torch import."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from difix_model.errors import first_problems
from difix_model.pairs import PairRecord, read_pairs
from difix_train.config import SIZE_MULTIPLE, DataConfig, LossConfig, OptimizerConfig, TrainConfig
from difix_train.errors import InputError
from difix_train.presets import preset
from output_files import check_writable
from train_runs.run_folder import RunFolder
from train_runs.trackers import TrackerName

END_MARKS = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}
"""What a complete image file has near its end."""

END_LENGTH = 65_536
"""How near, in bytes: some cameras append data of their own."""

DECODER_LORA_RANK = 4
"""Rank of the decoder's adapters when training from SD-Turbo, that of the released code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """One training run."""

    pairs: Path
    """JSON file of pairs: {"train"|"test": {id: {"image", "target_image", "ref_image" (optional), "prompt"}}}."""

    out: Path
    """Run folder; everything is written there."""

    model: str | None = None
    """Weights to continue from: default (those that come with difix-model), a checkpoint folder, a folder or hub id in
    the published layout, or a published trainer's .pkl (with --base). None: default, unless base or preset is given."""

    base: str | None = None
    """Folder or hub id of SD-Turbo. Alone: train Difix from it, as published; with a .pkl: what completes it."""

    preset: str | None = None
    """Train a fresh network of this architecture: embedded, tiny or sd-turbo."""

    lora_rank: int | None = None
    """Rank of the decoder's adapters; only when training from --base alone, by default 4. Released code: 4."""

    reference_attention: bool | None = None
    """Whether views attend to each other; with --base (by default yes) or with --model in a published form (by default
    what the weights say). Released code: no unless asked for."""

    unet_lora_rank: int = 0
    """Train adapters of this rank on the UNet instead of the UNet itself, with --trainable lora; 0 for none. They are
    merged wherever the model is used. Released code: none."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    trackers: tuple[TrackerName, ...] = ()
    """Where curves and pictures go besides the run folder: tensorboard, wandb, or both."""

    project: str = "difix"
    """Project name for Weights & Biases."""

    stop_at: int | None = None
    """Stop with a checkpoint after this step, to continue later with --resume."""

    resume: bool = False
    """Continue the run in the folder from its latest checkpoint; give the same settings again."""

    config: TrainConfig = field(default_factory=TrainConfig)
    """What decides the result."""

    def check(self) -> list[PairRecord]:
        """Check all that can be checked without torch.

        Returns:
            The pairs.

        Raises:
            InputError: Anything is wrong; nothing heavy was done.
        """
        self._check_start()
        self._check_adapters()
        records = read_pairs(self.pairs)
        if not any(record.split == "train" for record in records):
            raise InputError(f'{self.pairs} has no pairs in "train"')
        _check_whole(records)
        if self.stop_at is not None and self.stop_at < 1:
            raise InputError(f"stop_at must be at least 1, got {self.stop_at}")
        RunFolder(self.out).open(resume=self.resume)
        return records

    def _check_adapters(self) -> None:
        if self.unet_lora_rank < 0:
            raise InputError(f"unet_lora_rank must be 0 or more, got {self.unet_lora_rank}")
        if self.unet_lora_rank and self.config.trainable != "lora":
            raise InputError(
                f"adapters on the UNet are trained with --trainable lora, not with {self.config.trainable}: "
                "change one of the two"
            )

    def _check_start(self) -> None:
        if self.preset is not None:
            preset(self.preset)
            if self.model is not None or self.base is not None:
                raise InputError("a preset trains a fresh network: leave --model and --base out")
        if self.model is not None and self.base is not None and not self.model.endswith(".pkl"):
            raise InputError("--base goes with a .pkl or stands alone: leave --model or --base out")
        if self.lora_rank is not None and (self.base is None or self.model is not None):
            raise InputError(
                "--lora-rank takes effect only with --base alone: leave it out, the weights or the preset have a rank "
                "of their own (adapters on the UNet: --unet-lora-rank)"
            )
        if self.reference_attention is not None and self.preset is not None:
            raise InputError(
                "a preset says itself whether views attend to each other: leave the setting of reference attention out"
            )


def lora_config() -> TrainConfig:
    """What fine-tuning by adapters begins with: bfloat16, recomputed activations, images decoded ahead of time."""
    return TrainConfig(
        trainable="lora",
        precision="bfloat16",
        gradient_checkpointing=True,
        gradient_accumulation=4,
        data=DataConfig(num_workers=2),
        loss=LossConfig(views="rendered"),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=100),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSettings(RunSettings):
    """One training run of adapters; the fields of a run with other defaults."""

    unet_lora_rank: int = 16
    """Rank of the adapters on the UNet. They are merged wherever the model is used."""

    config: TrainConfig = field(default_factory=lora_config)
    """What decides the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings:
    """One measurement of a network on pairs, without the gate that its checkpoint may ask pipelines to apply."""

    pairs: Path
    """JSON file of pairs."""

    model: str = "default"
    """Weights: a checkpoint folder, a folder or hub id in the published layout, a published trainer's .pkl (with
    --base), or "default" for those that come with difix-model."""

    base: str | None = None
    """Folder or hub id of SD-Turbo; only for a .pkl."""

    split: Literal["train", "test"] = "test"
    """Which pairs."""

    size: tuple[int, int] | None = None
    """Height and width that all images are resized to (published: 576 1024); by default frames keep their size."""

    max_samples: int | None = None
    """At most this many pairs, evenly spread."""

    vgg16: Path | None = None
    """File with VGG16's weights for LPIPS; without them there is no LPIPS column."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    out: Path | None = None
    """JSON file for the result."""

    def check(self) -> list[PairRecord]:
        """Check all that can be checked without torch.

        Returns:
            The pairs of the split.
        """
        records = [record for record in read_pairs(self.pairs) if record.split == self.split]
        if not records:
            raise InputError(f'{self.pairs} has no pairs in "{self.split}"')
        _check_whole(records)
        if self.max_samples is not None and self.max_samples < 1:
            raise InputError(f"max_samples must be at least 1, got {self.max_samples}")
        if self.size is not None:
            try:
                _ = self.data
            except ValueError as error:
                raise InputError(f"--size: {error}") from error
        if self.out is not None:
            if self.out.is_dir():
                raise InputError(f"{self.out} is a folder: name a JSON file in it")
            check_writable(self.out.parent, other="folder")
        return records

    @property
    def data(self) -> DataConfig:
        """How images are read."""
        if self.size is None:
            return DataConfig(height=SIZE_MULTIPLE, width=SIZE_MULTIPLE, framing="crop")
        return DataConfig(height=self.size[0], width=self.size[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSettings:
    """A trained network in a form that others open."""

    run: Path
    """Run folder, whose finished network or latest valid checkpoint is taken, or a model folder."""

    to: Literal["safetensors", "diffusers", "pkl"]
    """Form: our checkpoint folder (safetensors), the published (diffusers) layout, or the released trainer's file."""

    out: Path
    """Folder to write, or for a .pkl the file; must not exist yet."""

    base: str | None = None
    """Only for the published layout: folder or hub id (SD-Turbo, or published weights) that tokenizer and text encoder
    come from."""


def _check_whole(records: list[PairRecord]) -> None:
    """Find image files that were cut short by a look at their ends: a run must not meet them after hours."""
    paths = dict.fromkeys(path for record in records for path in record.paths())
    cut = [str(path) for path in paths if not _ends_well(path)]
    if cut:
        raise InputError(f"these images are cut short, copy or make them again: {first_problems(cut)}")


def _ends_well(path: Path) -> bool:
    mark = END_MARKS.get(path.suffix.lower())
    if mark is None:
        return True
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - END_LENGTH))
            return mark in file.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
