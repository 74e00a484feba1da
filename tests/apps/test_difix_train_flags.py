"""The table of the released trainer's flags names flags that exist, and has a row for every released one."""

import re
from pathlib import Path

import pytest

from difix_train_app.__main__ import main

README = Path(__file__).resolve().parents[2] / "packages" / "difix-train" / "README.md"


def test_every_flag_in_the_table_is_understood(capsys) -> None:
    section = README.read_text(encoding="utf-8").split("## Coming from the released trainer")[1]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `--")]
    assert len(rows) > 25
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    known = set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))
    ours = [flag for _, right in rows for flag in re.findall(r"`(--[a-z0-9-]+)`", right)]
    assert not [flag for flag in ours if flag not in known]
    assert len(ours) > 30
