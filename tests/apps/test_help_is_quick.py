"""Every command answers --help without importing torch, names its verbs, and exits 0."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = {
    "difix_fix": ["--input", "--out", "--reference", "--model", "convert", "serve", "--help all"],
    "difix_train_app": ["run"],
    "splat_recon_app": ["train", "eval", "render", "export", "sfm", "convert"],
    "difix3d_train_app": ["--scene", "--out", "--model", "--max-steps", "--resume", "--help all"],
    "difix3d_pairs_app": ["--out"],
    "difix3d_eval_app": ["score", "compare", "ablation"],
    "diffsplat_app": ["generate", "download", "train", "serve", "eval"],
    "sparsefusion_app": ["reconstruct"],
    "difix3d_enhance_app": ["--input", "--scene", "--out", "--resume", "view"],
}


@pytest.mark.parametrize("module", sorted(COMMANDS))
def test_help_needs_no_torch(module: str):
    code = (
        "import sys\n"
        f"from {module}.__main__ import main\n"
        "sys.argv = ['command', '--help']\n"
        "code = 0\n"
        "try:\n"
        "    code = main()\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        "heavy = {'torch', 'numba', 'diffusers', 'transformers', 'pycolmap'} & set(sys.modules)\n"
        "assert not heavy, f'imported before the arguments were parsed: {sorted(heavy)}'\n"
        "assert not code, code\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in COMMANDS[module]:
        assert word in done.stdout
