"""Fixtures of the whole suite: one thread, no network, reference data and real scenes by environment variable."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

# These must be set before torch, numba or huggingface_hub are imported by any test.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest

from support.shape_checks import check_shapes

# Bytecode is kept, or each of the many processes of these tests would compile all of torch again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What is written is flushed to the disk, which shows in power cuts only and takes milliseconds for each of thousands of
# files. `support.faults` counts these calls all the same, and processes that tests kill wait for the disk.
os.fsync = lambda fd: None

REPOSITORY = Path(__file__).resolve().parents[1]


check_shapes(REPOSITORY / "packages")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--one-of-each-file", action="store_true", help="run the first test of every file only")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker for each core, eight at most, as each loads torch; none where only files or single tests are named."""
    if config.args and all(".py" in argument for argument in config.args):
        return 0
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "gpu" in item.keywords:
            # On a machine with a GPU, libraries may warn of things that no test has seen here: shown, but no error.
            item.add_marker(pytest.mark.filterwarnings("default"))
    if config.getoption("--one-of-each-file"):
        first = {item.path: item for item in reversed(items)}
        config.hook.pytest_deselected(items=[item for item in items if first[item.path] is not item])
        items[:] = [item for item in items if first[item.path] is item]
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    # media_files is tested in an environment without torch.
    with suppress(ImportError):
        import torch

        torch.set_num_threads(1)


def _folder_from(variable: str, default: Path, what: str) -> Path:
    folder = Path(os.environ.get(variable, default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"{what} is absent: set {variable} to its folder (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Outputs of the released code on tiny random weights; tests that use it carry the marker `reference`."""
    return _folder_from("DIFIX_REFERENCE_DATA", REPOSITORY.parent / "shared" / "golden", "the reference data")


@pytest.fixture(scope="session")
def scenes() -> Path:
    """Real scenes in COLMAP layout; tests that use it carry the marker `scenes`."""
    return _folder_from("DIFIX_SCENES", REPOSITORY.parent / "shared" / "scenes", "the folder of real scenes")
