"""One name for one thing: docs/flags.md is what the commands understand, and documents use what there is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from commands.help import flags_of
from diffsplat_app.download import DownloadSettings
from diffsplat_app.eval import KINDS as DIFFSPLAT_EVAL
from diffsplat_app.generate import GenerateSettings
from diffsplat_app.serve import ServeSettings as DiffSplatServe
from diffsplat_app.training_runs import KINDS as DIFFSPLAT
from difix3d.enhance.config import EnhanceConfig
from difix3d.viewer.config import LiveConfig
from difix3d_eval_app.cli import VERBS as EVAL
from difix3d_pairs_app.cli import MergeCommand, PairsCommand
from difix3d_train_app.cli import TrainCommand
from difix_fix.cli import FixSettings
from difix_fix.convert import ConvertSettings
from difix_fix.serve import ServeSettings
from difix_train_app.cli import KINDS as TRAIN
from sparsefusion_app.cli import ReconstructSettings
from splat_recon_app.__main__ import VERBS as SPLATS

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = REPOSITORY / "docs" / "flags.md"

FLAT = ("difix-fix", "difix-train", "difix3d-enhance", "difix3d-pairs")
"""Commands whose nested fields go without the outer field's name."""

COMMANDS: dict[str, Any] = {
    "difix-fix": FixSettings,
    "difix-fix convert": ConvertSettings,
    "difix-fix serve": ServeSettings,
    **{f"difix-train {verb}": kind for verb, kind in TRAIN.items()},
    **{f"splat-recon {verb}": kind for verb, kind in SPLATS.items()},
    "difix3d-train": TrainCommand,
    "difix3d-enhance": EnhanceConfig,
    "difix3d-enhance view": LiveConfig,
    **{f"difix3d-eval {verb}": kind for verb, kind in EVAL.items()},
    "difix3d-pairs": PairsCommand,
    "difix3d-pairs merge": MergeCommand,
    "diffsplat generate": GenerateSettings,
    "diffsplat download": DownloadSettings,
    "diffsplat serve": DiffSplatServe,
    **{f"diffsplat eval {kind}": settings for kind, settings in DIFFSPLAT_EVAL.items()},
    **{f"diffsplat train {part}": kind for part, kind in DIFFSPLAT.items()},
    "sparsefusion reconstruct": ReconstructSettings,
}

SAME_VALUES = ("--device", "--gate", "--which")
"""Flags whose choices are the same wherever they are."""

OTHER_MEANINGS = {("--split", "difix-train eval")}
"""Names that mean another thing in one command, as the table says below itself."""

DOCUMENTS = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("apps/*/README.md"), *REPOSITORY.glob("docs/*.md")])


MAINS = {
    "difix-fix": "difix_fix",
    **{name: f"{name.replace('-', '_')}_app" for name in ("difix-train", "splat-recon", "diffsplat", "sparsefusion")},
    **{name: f"{name.replace('-', '_')}_app" for name in ("difix3d-train", "difix3d-enhance", "difix3d-eval")},
    "difix3d-pairs": "difix3d_pairs_app",
}
"""Modules of the commands."""

MOST_SHOWN = 16
"""Options that `--help` shows at most; `--help all` shows the rest."""


@cache
def flags(command: str) -> dict[str, str]:
    """Every spelling of a command's flags, with the values that follow."""
    found = flags_of(COMMANDS[command], flat=command.startswith(FLAT))
    return {name: flag.values for flag in found for name in flag.flag.split(", ")}


def rows() -> dict[str, set[str]]:
    """Flags and commands of the table."""
    found = re.findall(r"^\| `(--[\w-]+)` \|[^|]*\| ([^|]*) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    return {flag: set(re.findall(r"`([^`]+)`", commands)) for flag, commands in found}


def test_the_table_says_which_commands_have_which_flag() -> None:
    table = rows()
    assert len(table) > 10
    for flag, commands in table.items():
        having = {command for command in COMMANDS if flag in flags(command)}
        assert commands == {command for command in having if (flag, command) not in OTHER_MEANINGS}, flag


def test_what_means_another_thing_is_said() -> None:
    below = TABLE.read_text(encoding="utf-8").rpartition("\n\n")[2]
    for flag, command in OTHER_MEANINGS:
        assert flag in flags(command)
        assert f"`{flag}` of `{command}`" in below


@pytest.mark.parametrize("flag", SAME_VALUES)
def test_a_flag_has_the_same_choices_everywhere(flag: str) -> None:
    having = [command for command in COMMANDS if flag in flags(command) and (flag, command) not in OTHER_MEANINGS]
    values = {command: flags(command)[flag] for command in having}
    # The trainings of diffsplat choose a device themselves, and not for the user.
    chosen = {value for command, value in values.items() if not command.startswith("diffsplat train")}
    assert len(chosen) == 1, values


def commands_in(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Commands of this project in a document's code, and the flags that they are given."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"`+([^`\n]+)`|^((?:uv run |)[a-z][\w-]+ [^\n`|]*)$", text, re.MULTILINE):
        code = (line[0] or line[1]).partition(" #")[0]
        try:
            words = shlex.split(code)
        except ValueError:
            continue
        if words[:2] == ["uv", "run"]:
            words = words[2:]
            while words and words[0].startswith("--"):
                words = words[2:] if words[0] in ("--extra", "--group", "--package") else words[1:]
        for length in (3, 2, 1):
            name = " ".join(words[:length])
            if name in COMMANDS:
                yield name, [word.partition("=")[0] for word in words[length:] if word.startswith("--")]
                break


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_documents_use_flags_that_there_are(document: Path) -> None:
    always = {"--help", "--version", "--tyro-print-completion"}
    unknown = [
        (name, flag)
        for name, given in commands_in(document)
        for flag in given
        if flag not in flags(name) and flag not in always
    ]
    assert not unknown


def test_the_readme_shows_commands_with_their_flags() -> None:
    found = list(commands_in(REPOSITORY / "README.md"))
    assert len(found) > 15
    assert sum(bool(given) for _, given in found) > 12


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_short(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *verbs = command.split()
    with pytest.raises(SystemExit) as stop:
        import_module(f"{MAINS[name]}.__main__").main([*verbs, "--help"])
    assert stop.value.code == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    assert 0 < len(shown) <= MOST_SHOWN, shown
