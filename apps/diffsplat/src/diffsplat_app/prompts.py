"""Lists of prompts, as files hold them."""

from pathlib import Path

from diffsplat import InputError


def read_prompts(path: Path) -> list[str]:
    """Read a prompt per line; empty lines and those that begin with # count as none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a list of prompts: {error}") from error
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise InputError(f"{path} holds no prompt: write one per line")
    return prompts
