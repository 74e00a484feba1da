"""Compiling gsplat's CUDA code: with which compiler, by which process, where it is kept.

gsplat compiles itself when it is first used, with whatever nvcc it finds, ten files at a time, and removes what another
process is compiling. Here one process compiles while the others wait, with the compiler that fits torch, and only as
many files at a time as memory allows. What gsplat prints meanwhile goes to standard error: commands print the path of
their result to standard output.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from splat_render.errors import InputError

logger = logging.getLogger(__name__)

EXTRA = "`uv sync --extra cuda`, or `pip install 'splat-render[cuda]'`"
"""How to get a compiler without installing a CUDA toolkit."""

NAME = "gsplat_cuda"
"""gsplat's name for its compiled code."""

STAMP = "built_for.txt"
"""File beside the compiled code that says what it was compiled for; it is written last."""

GB_PER_JOB = 3
"""Memory that compiling one file takes, in GB, rounded up (2.3 GB were measured)."""


def ensure_compiled() -> None:
    """Compile gsplat's CUDA code if that has not been done; the log says so first, since it takes some minutes.

    Raises:
        InputError: There is no compiler for it, or one of another CUDA version than torch's.
        Exception: Whatever goes wrong in gsplat's build.
    """
    if _is_prebuilt() or "gsplat.cuda._backend" in sys.modules:
        return
    folder = build_folder()
    with _one_process(folder.with_name(f"{folder.name}.building")), contextlib.redirect_stdout(sys.stderr):
        if _is_current(folder):
            _load(folder)
            return
        home = cuda_home()
        jobs = int(os.environ.get("MAX_JOBS") or num_jobs(_free_gb()))
        logger.warning(
            "compiling gsplat's CUDA code, once, with %s and %d file(s) at a time: this takes some minutes; "
            "the result is kept in %s",
            home / "bin" / "nvcc", jobs, folder,
        )  # fmt: skip
        (folder / STAMP).unlink(missing_ok=True)
        _library(folder).unlink(missing_ok=True)
        with _environment(home, folder, jobs):
            from gsplat.cuda import _backend  # noqa: F401
        (folder / STAMP).write_text(_versions(), encoding="utf-8")


def build_folder() -> Path:
    """Where torch keeps gsplat's compiled code; the environment variable TORCH_EXTENSIONS_DIR moves it."""
    from torch.utils.cpp_extension import _get_build_directory

    return Path(_get_build_directory(NAME, verbose=False))


def cuda_home() -> Path:
    """The CUDA toolkit to compile with: CUDA_HOME's, else the extra's, else the one that torch finds.

    Raises:
        InputError: There is none, or its version and torch's do not go together.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    packaged = packaged_home()
    if named is None and packaged is not None:
        home = packaged
    else:
        home = Path(named) if named else _found_home()
    if home is None:
        raise InputError(f"there is no CUDA compiler (nvcc): get one by {EXTRA}")
    found, wanted = nvcc_version(home / "bin" / "nvcc"), torch.version.cuda
    if wanted is not None and found.split(".")[0] != wanted.split(".")[0]:
        raise InputError(
            f"{home / 'bin' / 'nvcc'} is of CUDA {found} and torch is built for CUDA {wanted}: "
            f"get a compiler that fits by {EXTRA}, and leave CUDA_HOME unset"
        )
    if shutil.which(os.environ.get("CXX", "c++")) is None and shutil.which("g++") is None:
        raise InputError("there is no C++ compiler (g++): install one, on Ubuntu by `sudo apt install g++`")
    return home


def packaged_home() -> Path | None:
    """The toolkit that the extra `cuda` installs into the Python environment, of torch's own CUDA version."""
    spec, version = importlib.util.find_spec("nvidia"), torch.version.cuda
    if spec is None or version is None:
        return None
    homes = [Path(folder) / f"cu{version.split('.')[0]}" for folder in spec.submodule_search_locations or ()]
    return next((home for home in homes if (home / "bin" / "nvcc").is_file()), None)


def _found_home() -> Path | None:
    nvcc = shutil.which("nvcc")
    candidates = [Path(nvcc).resolve().parents[1]] if nvcc else []
    for home in [*candidates, Path("/usr/local/cuda")]:
        if (home / "bin" / "nvcc").is_file():
            return home
    return None


def nvcc_version(nvcc: Path) -> str:
    """Major and minor version of a compiler, as in 13.2."""
    try:
        done = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"{nvcc} does not run ({error}): get a compiler by {EXTRA}") from error
    found = re.search(r"release (\d+\.\d+)", done.stdout)
    if found is None:
        raise InputError(f"{nvcc} does not say its version: get a compiler by {EXTRA}")
    return found.group(1)


def num_jobs(free_gb: float) -> int:
    """How many files to compile at a time on this machine's cores, with so much memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(free_gb // GB_PER_JOB)))


def _free_gb() -> float:
    """Memory that is free, where the system says; otherwise enough for one file."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (line,) = [line for line in lines if line.startswith("MemAvailable:")]
        free = float(line.split()[1]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max")
        if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()) != "max":
            free = min(free, float(text))
    except (OSError, ValueError):
        return GB_PER_JOB
    return free / 1e9


def _is_prebuilt() -> bool:
    """Whether gsplat was installed with its CUDA code compiled."""
    return importlib.util.find_spec("gsplat.csrc") is not None


def _library(folder: Path) -> Path:
    return folder / f"{NAME}{'.pyd' if sys.platform == 'win32' else '.so'}"


def _versions() -> str:
    """What compiled code depends on."""
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if architectures is None and torch.cuda.is_available():
        # What torch compiles for where nothing is said: the GPUs that are here.
        found = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
        architectures = ";".join(f"{major}.{minor}" for major, minor in sorted(found))
    versions = f"gsplat {importlib.metadata.version('gsplat')}, torch {torch.__version__}"
    return f"{versions}, for {architectures or 'no GPU'}"


def _is_current(folder: Path) -> bool:
    """Whether the code was compiled, as a whole, for what is installed now."""
    stamp = folder / STAMP
    return _library(folder).is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == _versions()


def _load(folder: Path) -> None:
    """Load what was compiled before under the name of gsplat's prebuilt code: that needs no compiler any more."""
    import gsplat
    from torch.utils.cpp_extension import _import_module_from_library

    module: Any = _import_module_from_library(NAME, str(folder), True)
    sys.modules["gsplat.csrc"] = module
    gsplat.csrc = module  # pyright: ignore[reportAttributeAccessIssue]


@contextlib.contextmanager
def _one_process(lock: Path) -> Iterator[None]:
    """While this lasts no other process of this user compiles; it ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:
        yield  # Windows has no such locks, and no extra either.
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _environment(home: Path, folder: Path, jobs: int) -> Iterator[None]:
    """What the build reads: the toolkit, where the linker finds CUDA's runtime, and how many files at a time."""
    from torch.utils import cpp_extension

    libraries = os.environ.get("LIBRARY_PATH")
    changed = {
        "CUDA_HOME": str(home),
        "MAX_JOBS": str(jobs),
        "LIBRARY_PATH": os.pathsep.join([str(_runtime_link(home, folder)), *([libraries] if libraries else [])]),
    }
    before = {name: os.environ.get(name) for name in changed}
    home_before = cpp_extension.CUDA_HOME
    os.environ |= changed
    cpp_extension.CUDA_HOME = str(home)
    try:
        yield
    finally:
        cpp_extension.CUDA_HOME = home_before
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _runtime_link(home: Path, folder: Path) -> Path:
    """A folder with CUDA's runtime under the name that linkers look for; wheels hold it with its version only."""
    for place in (home / "lib64", home / "lib"):
        if (place / "libcudart.so").exists():
            return place
        versions = sorted(place.glob("libcudart.so.*"))
        if versions:
            links = folder.with_name(f"{folder.name}.libraries")
            links.mkdir(exist_ok=True)
            link = links / "libcudart.so"
            link.unlink(missing_ok=True)
            link.symlink_to(versions[-1])
            return links
    return home / "lib"
