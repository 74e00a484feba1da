"""A generated scene as a folder."""

from pathlib import Path
from typing import Any

import pytest


def write_table(tmp_path_factory: pytest.TempPathFactory, **sizes: Any) -> Path:
    """A table that eight cameras or so look at, written as a COLMAP scene; sizes are fields of `SyntheticConfig`."""
    from splat_recon import SyntheticConfig, generate_scene, write_scene

    folder = tmp_path_factory.mktemp("scene") / "table"
    write_scene(folder, generate_scene(5, SyntheticConfig(layout="table", **sizes)))
    return folder
