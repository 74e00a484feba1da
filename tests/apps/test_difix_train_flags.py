"""The table of the released trainer's flags names fields and flags that exist, and has a row for every released one."""

import dataclasses
import re
from pathlib import Path

import pytest

from difix_train import RunSettings
from difix_train_app.__main__ import main

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "packages" / "difix-train" / "README.md"
NONE = "none, by decision"

RELEASED: dict[str, tuple[str, ...]] = {
    "lambda_lpips": ("config.loss.lpips_weight",),
    "lambda_l2": ("config.loss.l2_weight",),
    "lambda_gram": ("config.loss.gram_weight",),
    "gram_loss_warmup_steps": ("config.loss.gram_warmup_steps",),
    "dataset_path": ("pairs",),
    "train_image_prep": ("config.data.framing",),
    "test_image_prep": ("config.data.framing",),
    "prompt": (),
    "eval_freq": ("config.validate_every",),
    "num_samples_eval": ("config.validation_samples",),
    "viz_freq": ("config.validate_every", "config.grid_samples"),
    "tracker_project_name": ("project",),
    "tracker_run_name": (),
    "pretrained_model_name_or_path": ("base", "model"),
    "revision": (),
    "variant": (),
    "tokenizer_name": (),
    "cache_dir": (),
    "lora_rank_vae": ("lora_rank",),
    "timestep": ("config.timestep",),
    "mv_unet": ("reference_attention",),
    "output_dir": ("out",),
    "seed": ("config.seed",),
    "resolution": ("config.data.height", "config.data.width"),
    "train_batch_size": ("config.batch_size",),
    "num_training_epochs": (),
    "max_train_steps": ("config.max_steps",),
    "checkpointing_steps": ("config.checkpoint_every",),
    "gradient_accumulation_steps": ("config.gradient_accumulation",),
    "gradient_checkpointing": ("config.gradient_checkpointing",),
    "learning_rate": ("config.optimizer.learning_rate",),
    "lr_scheduler": ("config.optimizer.schedule",),
    "lr_warmup_steps": ("config.optimizer.warmup_steps",),
    "lr_num_cycles": (),
    "lr_power": (),
    "dataloader_num_workers": ("config.data.num_workers",),
    "adam_beta1": ("config.optimizer.beta1",),
    "adam_beta2": ("config.optimizer.beta2",),
    "adam_weight_decay": ("config.optimizer.weight_decay",),
    "adam_epsilon": ("config.optimizer.eps",),
    "max_grad_norm": ("config.optimizer.max_grad_norm",),
    "allow_tf32": (),
    "report_to": ("trackers",),
    "mixed_precision": ("config.precision",),
    "enable_xformers_memory_efficient_attention": (),
    "set_grads_to_none": (),
    "resume": ("resume",),
}
"""All flags of the released trainer, with the fields of ours that do what they do; none where that was decided."""


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A row of the table: released flags, what stands for them here, and the remark."""

    released: tuple[str, ...]
    here: str
    remark: str

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(re.findall(r"`(--[a-z0-9-]+)`", self.here))


@pytest.fixture(scope="module")
def rows() -> list[TableRow]:
    section = README.read_text(encoding="utf-8").split("## Coming from the released trainer")[1]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `--")]
    return [
        TableRow(tuple(re.findall(r"`--([a-z0-9_]+)`", left)), here.strip(), remark.strip())
        for left, here, remark in cells
    ]


def value_at(settings: object, field: str) -> object:
    """The value of a field by its dotted name; fails where there is no such field."""
    for name in field.split("."):
        assert dataclasses.is_dataclass(settings)
        assert name in {known.name for known in dataclasses.fields(settings)}, field
        settings = getattr(settings, name)
    return settings


def test_every_released_flag_has_one_row_that_names_our_fields(rows: list[TableRow]) -> None:
    assert len(RELEASED) == 47
    assert sorted(flag for row in rows for flag in row.released) == sorted(RELEASED)
    settings = RunSettings(pairs=Path("pairs.json"), out=Path("out"))
    for row in rows:
        fields = [field for flag in row.released for field in RELEASED[flag]]
        for field in fields:
            value_at(settings, field)
        expected = {"--" + field.rpartition(".")[2].replace("_", "-") for field in fields}
        assert set(row.flags) == expected, row


def test_what_we_do_not_have_is_a_decision_with_a_reason(rows: list[TableRow]) -> None:
    without = [row for row in rows if not any(RELEASED[flag] for flag in row.released)]
    assert without
    for row in without:
        assert row.here == NONE
        assert len(row.remark.split()) >= 3, row
    assert not [row for row in rows if row not in without and NONE in row.here]


def test_every_flag_in_the_table_is_understood(rows: list[TableRow], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help", "all"])
    known = set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))
    in_remarks = [flag for row in rows for flag in re.findall(r"`(--[a-z0-9-]+)`", row.remark)]
    ours = [flag for row in rows for flag in row.flags] + in_remarks
    assert not [flag for flag in ours if flag not in known]


def test_there_is_no_second_table_of_flags() -> None:
    text = (REPOSITORY / "docs" / "deviations.md").read_text(encoding="utf-8")
    assert "packages/difix-train/README.md" in text
    assert not [flag for flag in ("num_samples_eval", "lora_rank_vae", "dataloader_num_workers") if flag in text]
