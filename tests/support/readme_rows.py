"""The README's rows and the commands of the guides, with small inputs, and flags that make them short.

Outputs go where `--out` and `--to` say; every other word in capitals is an input, made here of what needs no data.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

SERVERS = (("difix-fix", "serve"), ("splat-recon", "view"), ("difix3d-enhance", "view"))
"""Commands that stay until they are stopped."""

PAGES = ("index.md", "faq.md", "weights.md")
"""Pages beside the guides whose commands are run."""

SIZE = 40
"""Longer side of pictures, in pixels."""

TRAINED = ["--max-steps", "4", "--max-size", str(SIZE)]
COMPARED = [*TRAINED, "--num-novel", "2", "--stereo", "off", "--split", "every:3"]
NETWORK = ["--max-steps", "1", "--height", "32", "--width", "32", "--lpips-weight", "0", "--gram-weight", "0"]

SHORT: dict[tuple[str, ...], list[str]] = {
    ("difix3d-train",): COMPARED,
    ("splat-recon", "train"): [*TRAINED, "--stereo", "off"],
    ("splat-recon", "render"): ["--frames", "2", "--max-size", str(SIZE)],
    ("difix3d-enhance",): ["--frames", "2", "--max-size", str(SIZE)],
    ("difix3d-eval", "ablation"): [*COMPARED, "--frames", "0"],
    ("difix3d-pairs",): ["--max-steps", "10", "--max-size", "64", "--num-views", "8", "--strategies", "sparse"],
    ("difix-train", "run"): NETWORK,
    ("difix-train", "lora"): NETWORK,
    ("sparsefusion", "reconstruct"): [
        *("--max-steps", "2", "--render-size", "16", "--samples", "8"),
        *("--circle-frames", "2", "--splat-resolution", "12"),
    ],
    ("diffsplat", "generate"): ["--num-steps", "2", "--num-frames", "3", "--size", "24", "--turntable", "gif"],
}
"""What makes a command short, by its name and verb."""

INSTEAD = {"--generated 100": "--generated 1"}
"""Numbers of the README that are too large for a test."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row."""

    want: str
    """What it is for."""

    command: str
    """As printed."""

    @property
    def words(self) -> list[str]:
        """The command without uv's part."""
        words = shlex.split(self.command)[2:]
        while words[0].startswith("--"):
            words = words[2:]
        return words

    @property
    def extra(self) -> str | None:
        """The optional part of the project that it needs."""
        found = re.search(r"--extra (\S+)", self.command)
        return found[1] if found else None

    @property
    def kind(self) -> tuple[str, ...]:
        """Name and verb."""
        return tuple(self.words[:2]) if not self.words[1:2] or not self.words[1].startswith("-") else (self.words[0],)

    @property
    def serves(self) -> bool:
        """Whether it stays until it is stopped."""
        return self.kind in SERVERS

    def run_in(self, inputs: dict[str, str], out: Path) -> list[str]:
        """The words to run: short, with inputs that there are, and outputs under a folder that is not there yet."""
        words = shlex.split(self._shortened())
        while words[0] != self.words[0]:
            words = words[1:]
        for index, word in enumerate(words[1:], start=1):
            if words[index - 1] in ("--out", "--to") and word.split(".")[0].isupper():
                words[index] = str(out / word.lower())
            elif word in inputs:
                words[index] = inputs[word]
        return words + _without(SHORT.get(self.kind, []), words)

    def _shortened(self) -> str:
        command = self.command
        for printed, small in INSTEAD.items():
            command = command.replace(printed, small)
        return command


def _without(flags: list[str], given: list[str]) -> list[str]:
    """Flags and their values, but for those that are given already."""
    kept: list[str] = []
    keep = True
    for word in flags:
        keep = word not in given if word.startswith("--") else keep
        kept += [word] if keep else []
    return kept


def documented() -> Iterator[Row]:
    """Commands of the guides that are not in the README's table, once each."""
    known = {row.command for row in rows()}
    pages = [*sorted(REPOSITORY.glob("docs/guides/*.md")), *(REPOSITORY / "docs" / name for name in PAGES)]
    for page in pages:
        for block in re.findall(r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                command = line.partition("  #")[0].strip()
                if command not in known:
                    known.add(command)
                    yield Row(want=page.name, command=command)


def rows() -> Iterator[Row]:
    """All rows of the README's table of commands, in order."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for have, want, command in re.findall(r"^\| ([^|]*) \| ([^|]*) \| `(uv run [^`]*)` \|$", readme, re.MULTILINE):
        yield Row(want=f"{have}: {want}", command=command)


def write_inputs(folder: Path) -> dict[str, str]:
    """Make what the rows read; the place of each, by its word in the README."""
    from PIL import Image, ImageFilter

    from difix_model import convert_checkpoint
    from splat_recon import SyntheticConfig, generate_scene, write_scene
    from splat_recon_app.__main__ import main as splat_recon
    from support.drawn_photos import write_corner
    from support.noise_pairs import write_noise_pairs

    folder.mkdir(parents=True, exist_ok=True)
    write_corner(folder / "photos")
    (folder / "renders").mkdir()
    for path in sorted((folder / "photos").iterdir())[:2]:
        Image.open(path).resize((64, 48)).filter(ImageFilter.GaussianBlur(2)).save(folder / "renders" / path.name)
    scene = folder / "scenes" / "table"
    config = SyntheticConfig(layout="table", num_views=6, width=SIZE, height=32, num_points=200, samples_per_axis=1)
    write_scene(scene, generate_scene(5, config))
    (scene / "masks").mkdir()
    for path in (scene / "images").iterdir():
        with Image.open(path) as photo:
            mask = Image.new("L", photo.size)
            mask.paste(255, (photo.width // 4, photo.height // 4, 3 * photo.width // 4, 3 * photo.height // 4))
        mask.save(scene / "masks" / path.with_suffix(".png").name)
    code = splat_recon(["train", "--scene", str(scene), "--out", str(folder / "run"), *SHORT["splat-recon", "train"]])
    assert code == 0
    shutil.copy(folder / "run" / "point_cloud.ply", folder / "splat.ply")
    renders = folder / "benchmark" / "table"
    shutil.copytree(scene / "images", renders)
    protocol = {"name": "own", "version": 1, "origin": "", "missing": "", "scenes": []}
    protocol |= {"photos": "images", "half_size_photos": "images"}
    (folder / "protocol.json").write_text(json.dumps(protocol), encoding="utf-8")
    (folder / "pairs").mkdir()
    write_noise_pairs(folder / "pairs", side=32, prompt="remove degradation", num_train=2, num_test=1)
    convert_checkpoint("default", folder / "weights", to="safetensors")
    places = {
        "PHOTOS": "photos",
        "RENDERS": "renders",
        "SCENE": "scenes/table",
        "SCENES": "scenes",
        "SPLAT": "run",
        "SPLAT.ply": "splat.ply",
        "BENCHMARK": "benchmark",
        "PROTOCOL.json": "protocol.json",
        "PAIRS/pairs.json": "pairs/pairs.json",
        "WEIGHTS": "weights",
    }
    return {"TEXT": "a red ball"} | {word: str(folder / place) for word, place in places.items()}
