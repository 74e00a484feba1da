"""Compiling gsplat's CUDA code: which compiler, which process, how many files at a time, and what is said."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from splat_render import InputError, chosen_device, gsplat_build


def toolkit(folder: Path, version: str) -> Path:
    """A folder with a program that says its version as nvcc does."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.88'\n")
    nvcc.chmod(0o755)
    return folder


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No toolkit is named or packaged, torch is built for CUDA 13.2."""
    for name in ("CUDA_HOME", "CUDA_PATH", "MAX_JOBS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gsplat_build, "packaged_home", lambda: None)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    return monkeypatch


def test_the_packaged_compiler_wins_over_one_on_the_path(clean: pytest.MonkeyPatch, tmp_path: Path):
    on_path, packaged = toolkit(tmp_path / "usr", "12.4"), toolkit(tmp_path / "cu13", "13.2")
    clean.setenv("PATH", f"{on_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(InputError, match=r"CUDA 12\.4 and torch is built for CUDA 13\.2: .*--extra cuda"):
        gsplat_build.cuda_home()
    clean.setattr(gsplat_build, "packaged_home", lambda: packaged)
    assert gsplat_build.cuda_home() == packaged
    clean.setenv("CUDA_HOME", str(toolkit(tmp_path / "mine", "13.0")))
    assert gsplat_build.cuda_home() == tmp_path / "mine"


def test_the_extra_is_found_where_torch_keeps_its_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "nvidia").mkdir()
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert gsplat_build.packaged_home() is None
    toolkit(tmp_path / "nvidia" / "cu13", "13.2")
    assert gsplat_build.packaged_home() == tmp_path / "nvidia" / "cu13"


def test_without_a_compiler_one_sentence_names_the_extra(clean: pytest.MonkeyPatch):
    clean.setattr(gsplat_build, "_found_home", lambda: None)
    with pytest.raises(InputError, match=r"no CUDA compiler .*uv sync --extra cuda"):
        gsplat_build.cuda_home()


def test_without_a_cpp_compiler_that_is_said(clean: pytest.MonkeyPatch, tmp_path: Path):
    clean.setenv("CUDA_HOME", str(toolkit(tmp_path, "13.2")))
    clean.setattr(gsplat_build.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"no C\+\+ compiler"):
        gsplat_build.cuda_home()


@pytest.mark.parametrize(("free_gb", "jobs"), [(0.5, 1), (7, 2), (16, 5), (500, 8)])
def test_files_at_a_time_fit_into_memory_and_cores(free_gb: float, jobs: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert gsplat_build.num_jobs(free_gb) == jobs
    assert gsplat_build._free_gb() > 0


def test_the_linker_finds_the_runtime_of_a_wheel(tmp_path: Path):
    home, folder = tmp_path / "cu13", tmp_path / "gsplat_cuda"
    (home / "lib").mkdir(parents=True)
    (home / "lib" / "libcudart.so.13").write_text("the runtime")
    before = dict(os.environ)
    with gsplat_build._environment(home, folder, 3):
        assert os.environ["MAX_JOBS"] == "3"
        assert os.environ["CUDA_HOME"] == str(home)
        links = Path(os.environ["LIBRARY_PATH"].split(os.pathsep)[0])
        assert (links / "libcudart.so").read_text() == "the runtime"
    assert dict(os.environ) == before


PROGRAM = """
import sys, types
from pathlib import Path
from splat_render import gsplat_build

home = Path(sys.argv[1])
gsplat_build.cuda_home = lambda: home
gsplat_build._load = lambda folder: print("loaded", file=sys.stderr)
sys.path.insert(0, sys.argv[2])
gsplat_build.ensure_compiled()
print("done")
"""
"""Compiles with a gsplat that only pretends to."""

BACKEND = """
import time
from splat_render.gsplat_build import _library, build_folder
print("gsplat: Setting up CUDA")
with (build_folder().parent / "builds.txt").open("a") as file:
    file.write("one\\n")
time.sleep(1)
_library(build_folder()).write_text("code")
"""


def test_one_process_compiles_and_the_others_wait_for_it(tmp_path: Path):
    package = tmp_path / "packages" / "gsplat" / "cuda"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "_backend.py").write_text(BACKEND)
    home = toolkit(tmp_path / "cu13", "13.2")
    command = [sys.executable, "-c", PROGRAM, str(home), str(package.parents[1])]
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert (tmp_path / "extensions" / "builds.txt").read_text() == "one\n"
    assert [stdout for stdout, _ in outputs] == ["done\n", "done\n"], "standard output is for results"
    (builder,) = [stderr for _, stderr in outputs if "loaded" not in stderr]
    first, second = [line for line in builder.splitlines() if "gsplat" in line]
    assert "some minutes" in first
    assert str(tmp_path / "extensions" / "gsplat_cuda") in first
    assert second == "gsplat: Setting up CUDA"


def test_code_of_another_gsplat_or_torch_is_compiled_again(tmp_path: Path):
    assert not gsplat_build._is_current(tmp_path)
    gsplat_build._library(tmp_path).touch()
    assert not gsplat_build._is_current(tmp_path), "a build that did not end has no stamp"
    (tmp_path / gsplat_build.STAMP).write_text(gsplat_build._versions())
    assert gsplat_build._is_current(tmp_path)
    (tmp_path / gsplat_build.STAMP).write_text("gsplat 1.4.0, torch 2.7.0")
    assert not gsplat_build._is_current(tmp_path)


def test_a_driver_that_is_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr("splat_render.device.NVIDIA_DRIVER", tmp_path / "version")
    with caplog.at_level(logging.WARNING):
        assert chosen_device("auto") == "cpu"
        assert not caplog.records, "a machine without a GPU has nothing to say"
        (tmp_path / "version").touch()
        assert chosen_device("auto") == "cpu"
    assert "driver 580" in caplog.text
