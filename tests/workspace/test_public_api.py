"""Package roots are light, export what they say, and say what they export."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

LIBRARIES = [
    "output_files",
    "commands",
    "media_files",
    "train_runs",
    "splat_render",
    "difix_model",
    "difix_train",
    "splat_recon",
    "difix3d",
    "diffsplat",
    "sparsefusion",
]


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_public_name_resolves(library: str):
    module = importlib.import_module(library)
    assert module.__all__, f"{library} exports nothing"
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_unknown_name_is_an_attribute_error(library: str):
    module = importlib.import_module(library)
    with pytest.raises(AttributeError):
        _ = module.no_such_name


def test_package_roots_and_configs_import_no_torch():
    code = (
        "import sys, importlib.util\n"
        f"for library in {LIBRARIES!r}:\n"
        "    importlib.import_module(library)\n"
        "    for part in ('config', 'errors'):\n"
        "        if importlib.util.find_spec(library + '.' + part):\n"
        "            importlib.import_module(library + '.' + part)\n"
        "heavy = sorted({'torch', 'numba', 'diffusers', 'transformers', 'pycolmap'} & set(sys.modules))\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
