"""What commands share: exit codes, signals, one sentence on bad input, help, and how they end."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from commands import (
    BAD_INPUT,
    DONE,
    FAILED,
    DeviceFlags,
    as_flags,
    collected,
    ended,
    outcome_of,
    parameters_of,
    parse,
    raised,
    run_command,
    verb_of,
)
from commands.help import flags_of, help_text
from output_files import InputError

DISTRIBUTION = "commands"


class BrokeDownError(RuntimeError):
    """A run that broke down."""


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Nested."""

    weight: float = 0.5
    """How much
    it counts."""


@dataclass(frozen=True, kw_only=True)
class Example(DeviceFlags):
    """Do something.

    More about it.
    """

    out: Path
    """Where it goes."""

    kind: Literal["one", "two"] = "one"
    """Which one."""

    max_size: int | None = None
    """Pixels at most."""

    steady: bool = True
    """Steady the change."""

    inner: Inner = field(default_factory=lambda: Inner(weight=0.25))
    """Nested."""

    def __post_init__(self) -> None:
        if self.max_size is not None and self.max_size < 1:
            raise ValueError(f"max_size must be at least 1, got {self.max_size}")


GROUPS = {"what matters": ("out", "kind"), "more": ("max_size",)}


def parsed(*arguments: str) -> Example:
    return parse(Example, arguments, prog="example", distribution=DISTRIBUTION, groups=GROUPS)


def failing(error: BaseException):
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("max_size is odd"), BAD_INPUT, "error: --max-size is odd"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), BAD_INPUT, "error: a.png: No such file"),
        (OSError("a sentence"), BAD_INPUT, "error: a sentence"),
        (BrokeDownError("NaN"), FAILED, "error: NaN"),
        (KeyboardInterrupt(signal.SIGTERM), 128 + signal.SIGTERM, "Stopped."),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_an_ending_is_a_code_and_a_sentence(error, code, said, capsys):
    assert outcome_of(failing(error), failed=BrokeDownError, parameters={"max_size": "--max-size"}) == code
    assert capsys.readouterr().err.startswith(said)


def test_a_defect_keeps_its_trace():
    with pytest.raises(ValueError, match="defect"):
        outcome_of(failing(ValueError("defect")))


def test_a_reader_that_went_away_is_no_error(monkeypatch, tmp_path, capsys):
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert outcome_of(failing(BrokenPipeError(32, "Broken pipe"))) == 141
    assert not capsys.readouterr().err


def test_a_signal_ends_a_command_with_its_number(capsys):
    def run() -> int:
        signal.raise_signal(signal.SIGTERM)
        return DONE

    before = signal.getsignal(signal.SIGTERM)
    assert outcome_of(run, stopped="gone") == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "gone\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals")
@pytest.mark.parametrize(("name", "heard"), [("SIGHUP", False), ("SIGINT", True)])
def test_what_nohup_ignores_stays_ignored_but_not_what_a_script_ignores(name: str, heard: bool):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with raised(), collected() as received:
            signal.raise_signal(number)
            assert received == ([number] if heard else [])
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_second_signal_interrupts_at_once():
    with collected() as received:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_parameters_become_flags():
    names = {"max_size": "--max-size", "max_size_of": "--outer.max-size-of", "seed": "--seed"}
    assert as_flags("max_size must be 1, not max_size_of; the seed of it", names) == (
        "--max-size must be 1, not --outer.max-size-of; the seed of it"
    )
    assert as_flags("seed must be at least 0", names) == "--seed must be at least 0"
    assert as_flags("there is no /data/max_size/a.png and no --max-size", names) == (
        "there is no /data/max_size/a.png and no --max-size"
    )


def test_values_out_of_range_are_one_sentence_with_the_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--out", "o", "--max-size", "0")
    assert stop.value.code == BAD_INPUT
    assert capsys.readouterr().err == "error: --max-size must be at least 1, got 0\n"


def test_arguments_are_parsed(capsys):
    given = parsed("--out", "o", "--no-steady", "--inner.weight", "1", "--device", "cpu")
    assert (given.out, given.steady, given.inner.weight, given.device) == (Path("o"), False, 1.0, "cpu")
    for arguments, word in ((("--out", "o", "--nonsense"), "--nonsense"), ((), "--out")):
        with pytest.raises(SystemExit) as stop:
            parsed(*arguments)
        assert stop.value.code == BAD_INPUT
        assert word in capsys.readouterr().err


def test_help_is_short_first_and_all_on_demand(capsys):
    shown = {}
    for arguments in (("--help",), ("--help", "all"), ("--version",)):
        with pytest.raises(SystemExit) as stop:
            parsed(*arguments)
        assert not stop.value.code
        shown[arguments[-1]] = capsys.readouterr().out
    assert "--kind one|two" in shown["--help"]
    assert "--max-size" not in shown["--help"]
    assert "--help all shows all 6 options" in shown["--help"]
    for words in (
        "--max-size N",
        "--no-steady",
        "Switches off: steady the change.",
        "--inner.weight X",
        "0.25",
        "--device",
    ):
        assert words in shown["all"]
    assert shown["--version"].split()[0] == "example"


def test_a_group_of_options_that_are_none_is_a_mistake():
    with pytest.raises(ValueError, match="nothing"):
        help_text(Example, "example", {"what matters": ("nothing",)})


def test_flat_flags_have_no_prefix():
    assert [flag.flag for flag in flags_of(Example, flat=True)][-1] == "--weight"
    assert parameters_of(Example)["weight"] == "--inner.weight"
    assert parameters_of(Example, flat=True)["weight"] == "--weight"


def test_a_command_is_its_flags_and_a_function(capsys):
    def run(given: Example) -> int:
        if given.inner.weight > 1:
            raise InputError("weight must be at most 1")
        return FAILED

    def code(*given: str) -> int:
        return run_command(Example, run, ["--out", "o", *given], prog="example", distribution=DISTRIBUTION)

    assert code() == FAILED
    assert code("--inner.weight", "2") == BAD_INPUT
    assert capsys.readouterr().err == "error: --inner.weight must be at most 1\n"


def test_a_nested_dataclass_without_a_name_is_checked_like_any_other(capsys):
    @dataclass(frozen=True, kw_only=True)
    class Outer:
        """Do it."""

        own: Annotated[Example, tyro.conf.arg(name="")]
        """All of the flags."""

    given = parse(Outer, ["--out", "o", "--inner.weight", "0.75"], prog="outer", distribution=DISTRIBUTION)
    assert given.own.inner.weight == 0.75
    with pytest.raises(SystemExit) as stop:
        parse(Outer, ["--out", "o", "--max-size", "0"], prog="outer", distribution=DISTRIBUTION)
    assert stop.value.code == BAD_INPUT
    assert capsys.readouterr().err == "error: --max-size must be at least 1, got 0\n"


def test_verbs(capsys):
    verbs = {"do": Example, "leave": "Leave it."}

    def chosen(*arguments: str, default: str | None = None):
        return verb_of(verbs, arguments, prog="x", distribution=DISTRIBUTION, description="About.", default=default)

    assert chosen("do", "--out", "o") == ("do", ["--out", "o"])
    assert chosen("--out", default="do") == ("do", ["--out"])
    for arguments, code, word in (
        (("--help",), 0, "Do something."),
        (("fly",), 2, "'fly' is no verb"),
        ((), 2, "About"),
    ):
        with pytest.raises(SystemExit) as stop:
            chosen(*arguments)
        assert (stop.value.code or 0) == code
        said = capsys.readouterr()
        assert word in said.out + said.err


def test_a_command_ends_with_what_it_made_and_a_line_to_paste(capsys):
    ended(Path("my runs/report.html"), "difix-fix", "--input", Path("my runs"), extra="serve")
    said = capsys.readouterr()
    assert said.out == "my runs/report.html\n"
    assert said.err == "Next: uv run --extra serve difix-fix --input 'my runs'\n"
    ended("x")
    assert not capsys.readouterr().err
