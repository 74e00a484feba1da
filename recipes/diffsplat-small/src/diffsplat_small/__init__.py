"""The recipe of a small DiffSplat: from generated objects to a folder that `diffsplat generate --model` takes."""
