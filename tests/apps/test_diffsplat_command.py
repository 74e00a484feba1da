"""`diffsplat` writes what it says, goes on where it stopped, and says what is wrong in a sentence."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import splat_render
from diffsplat_app.__main__ import main
from support.tiny_diffsplat import write_base, write_repository

QUICK = ["--num-steps", "2", "--num-frames", "3", "--size", "24", "--device", "cpu"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root, base = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("base") / "base"
    write_repository(root, "sd15")
    write_repository(root, "sd15", image=True)
    write_base(base, "sd15")
    return ["--model", str(root), "--base", str(base)]


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_a_prompt_becomes_files(weights, tmp_path, capsys):
    out = tmp_path / "out"
    kinds = ["--formats", "ply", "spz", "splat", "--turntable", "gif"]
    assert run("generate", "--prompt", "a red ball", "--out", out, *kinds, *QUICK, *weights) == 0
    (folder,) = out.iterdir()
    assert folder.name == "0000-a-red-ball"
    assert capsys.readouterr().out.strip() == str(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"splat.ply", "splat.spz", "splat.splat", "views.png", "turntable.gif", "parameters.json",
                     "transforms.json"}  # fmt: skip
    parameters = json.loads((folder / "parameters.json").read_text())
    assert parameters["prompt"] == "a red ball"
    assert parameters["generation"]["num_steps"] == 2
    with Image.open(folder / "views.png") as views:
        assert views.size == (4 * 24, 24)
    with Image.open(folder / "turntable.gif") as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
    for ending in ("ply", "spz", "splat"):
        gaussians = splat_render.read_splats(folder / f"splat.{ending}").gaussians
        assert len(gaussians) == parameters["num_gaussians"]
        assert 0.2 < float(gaussians.means.norm(dim=1).mean()) < 3


def means_of(folder: Path) -> np.ndarray:
    return splat_render.read_splats(folder / "splat.ply").gaussians.means.numpy()


def test_many_prompts_go_on_where_they_stopped(weights, tmp_path):
    listed = tmp_path / "prompts.txt"
    listed.write_text("# a list\na ball\n\na box\na cone\n")
    out = tmp_path / "out"
    command = [
        "generate",
        "--prompts",
        listed,
        "--out",
        out,
        "--batch-size",
        "2",
        "--turntable",
        "none",
        *QUICK,
        *weights,
    ]
    assert run(*command) == 0
    folders = sorted(out.iterdir())
    assert [folder.name for folder in folders] == ["0000-a-ball", "0001-a-box", "0002-a-cone"]
    assert [json.loads((folder / "parameters.json").read_text())["seed"] for folder in folders] == [0, 1, 2]
    before = {folder: means_of(folder) for folder in folders}
    (folders[1] / "parameters.json").unlink()
    (folders[1] / "splat.ply").write_bytes(b"half")
    stamp = (folders[0] / "splat.ply").stat().st_mtime_ns
    assert run(*command) == 0
    for folder in folders:
        # Made alone this time: the same up to rounding.
        np.testing.assert_allclose(means_of(folder), before[folder], rtol=1e-3, atol=1e-4)
    assert (folders[0] / "splat.ply").stat().st_mtime_ns == stamp
    # Other settings are other objects.
    assert run(*command, "--guidance", "2") == 0
    assert np.abs(means_of(folders[0]) - before[folders[0]]).max() > 1e-3


def test_an_image_becomes_a_splat_and_a_film(weights, tmp_path):
    image = np.full((40, 40, 3), 255, np.uint8)
    image[12:30, 10:25] = (200, 30, 30)
    path = tmp_path / "object.png"
    Image.fromarray(image).save(path)
    out = tmp_path / "out"
    more = ["--image", path, "--remove-background", "--estimate-elevation"]
    assert run("generate", "--out", out, *more, *QUICK, *weights) == 0
    assert (out / "0000-object" / "turntable.mp4").stat().st_size > 500
    parameters = json.loads((out / "0000-object" / "parameters.json").read_text())
    assert parameters["elevation_deg"] != 10


def test_a_control_map_is_followed(weights, tmp_path):
    path = tmp_path / "depth.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
    command = ["generate", "--prompt", "a ball", "--out", tmp_path / "out", "--turntable", "none", *QUICK, *weights]
    assert run(*command, "--control", "depth", "--control-image", path) == 0


def blank(path: Path, size=(16, 16), color=(255, 255, 255)) -> Path:
    Image.new("RGB", size, color).save(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (lambda tmp: [], "no prompt"),
        (lambda tmp: ["--prompt", "  "], "no prompt"),
        (lambda tmp: ["--prompts", tmp / "none.txt"], "cannot be read"),
        (lambda tmp: ["--prompt", "a", "--prompts", tmp / "none.txt"], "exclude each other"),
        (lambda tmp: ["--image", tmp / "none.png"], "no image or folder"),
        (lambda tmp: ["--image", blank(tmp / "white.png")], "shows no subject"),
        (lambda tmp: ["--image", blank(tmp / "wide.png", (20, 10), (0, 0, 0))], "must be square"),
        (lambda tmp: ["--prompt", "a", "--control", "depth"], "go together"),
        (lambda tmp: ["--prompt", "a", "--control", "depth", "--control-image", blank(tmp / "big.png", (32, 32))],
         "a control map must be 16x16"),
        (lambda tmp: ["--prompt", "a", "--guidance", "0.5"], "guidance must be at least 1"),
        (lambda tmp: ["--prompt", "a", "--model", tmp / "none"], "no folder"),
        (lambda tmp: ["--prompt", "a", "--model", "sd15"], "diffsplat download --model sd15"),
        (lambda tmp: ["--prompt", "a", "--remove-background"], "give --image"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(weights, tmp_path, capsys, arguments, said):
    given = arguments(tmp_path)
    more = [] if "--model" in given else weights
    code = 2
    try:
        code = run("generate", "--out", tmp_path / "out", *given, *QUICK, *more)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    captured = capsys.readouterr()
    text = " ".join((captured.err + captured.out).replace("│", " ").split())
    assert said in text
    assert "Traceback" not in text
    assert not list(tmp_path.glob("out/*/splat.ply"))


def test_downloads_are_named_before_they_are_fetched(capsys):
    assert run("download", "--model", "pas", "--image", "--elevest", "--list") == 0
    lines = capsys.readouterr().out.split()
    assert "chenguolin/DiffSplat/gsdiff_gobj83k_pas_fp16_image__render" in lines
    assert "chenguolin/DiffSplat/gsvae_gobj265k_sdxl_fp16" in lines
    assert "madebyollin/sdxl-vae-fp16-fix" in lines
    assert run("download", "--model", "sd15", "--list") == 0
    assert capsys.readouterr().err == "Next: uv run diffsplat download --model sd15\n"
    assert run("download", "--model", "pas", "--control", "depth") == 2
    assert run("download") == 2
    assert "cannot be had" in capsys.readouterr().err


def test_unknown_commands_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        run("paint")
    assert stop.value.code == 2
    assert "paint" in capsys.readouterr().err


def test_trainings_follow_each_other_and_go_on(weights, tmp_path, capsys):
    base = Path(weights[3])
    shared = ["--loop.max-steps", "2", "--objects.size", "16", "--objects.num-objects", "2", "--objects.num-extra", "0",
              "--train.batch-size", "1"]  # fmt: skip
    network = ["--train.network.dim", "8", "--train.network.num-blocks", "1", "--train.network.num-heads", "2"]
    assert run("train", "gsrecon", "--out", tmp_path / "recon", *shared, *network) == 0
    assert (tmp_path / "recon" / "model" / "model.safetensors").is_file()
    assert run("train", "gsrecon", "--out", tmp_path / "recon", *shared, *network) == 2
    assert "already holds a run" in capsys.readouterr().err
    longer = [*shared, *network, "--loop.max-steps", "3", "--resume"]
    assert run("train", "gsrecon", "--out", tmp_path / "recon", *longer) == 0
    vae = ["--vae-config", base / "vae" / "config.json", "--gsrecon", tmp_path / "recon"]
    image_vae = base / "vae" / "diffusion_pytorch_model.safetensors"
    assert run("train", "gsvae", "--out", tmp_path / "vae", *vae, "--image-vae", image_vae, *shared) == 0
    following = shlex.split(capsys.readouterr().err.splitlines()[-1].removeprefix("Next: uv run diffsplat "))
    small = [word for word in shared if word not in ("--objects.size", "16")]
    assert run(*following, *small) == 0
    assert (tmp_path / "vae-tiny" / "model" / "model.safetensors").is_file()
    root = Path(weights[1])
    (config,) = root.glob("gsdiff_gobj83k_sd15__render/checkpoints/*/unet_ema/config.json")
    parts = ["--gsrecon", tmp_path / "recon", "--gsvae", tmp_path / "vae", "--base", base, "--network-config", config]
    assert run("train", "denoiser", "--out", tmp_path / "denoiser", *parts, *shared) == 0
    assert (tmp_path / "denoiser" / "model" / "config.json").is_file()
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "denoiser" / "model")
    assert run("train", "denoiser", "--out", tmp_path / "other", *parts[2:], "--gsrecon", tmp_path, *shared) == 2
    assert "no run folder" in capsys.readouterr().err
    with_image = ["--image", "--train.prediction", "v_prediction"]
    assert run("train", "denoiser", "--out", tmp_path / "image", *parts, *shared, *with_image) == 0
    start = tmp_path / "denoiser" / "model" / "diffusion_pytorch_model.safetensors"
    assert run("train", "controlnet", "--out", tmp_path / "control", *parts, *shared, "--start", start) == 0
    assert (tmp_path / "control" / "model" / "config.json").is_file()
    assert run("train", "controlnet", "--out", tmp_path / "none", *parts, *shared) == 2
    assert "--start" in capsys.readouterr().err
    small = ["--train.network.embed-dim", "8", "--train.network.depth", "1", "--train.network.num-heads", "1"]
    assert run("train", "elevest", "--out", tmp_path / "elevest", *shared, *small) == 0


def test_the_other_commands_take_what_is_written(tmp_path, monkeypatch):
    from difix3d_enhance_app.__main__ import main as difix3d_enhance
    from difix_fix.__main__ import main as difix_fix
    from splat_recon_app.__main__ import main as splat_recon

    mains = {"diffsplat": main, "splat-recon": splat_recon, "difix-fix": difix_fix, "difix3d-enhance": difix3d_enhance}
    readme = Path(__file__).parents[2] / "apps" / "diffsplat" / "README.md"
    part = readme.read_text(encoding="utf-8").partition("## With the other commands")[2].partition("\n## ")[0]
    lines = re.findall(r"^uv run (\S+) (.*)$", part, re.MULTILINE)
    assert [name for name, _ in lines] == ["diffsplat", "splat-recon", "splat-recon", "difix-fix", "difix3d-enhance"]
    monkeypatch.chdir(tmp_path)
    for name, arguments in lines:
        small = ["--num-steps", "2", "--num-frames", "3", "--size", "32"] if name == "diffsplat" else []
        assert mains[name]([*shlex.split(arguments.partition(" #")[0]), *small]) == 0, name
    made = tmp_path / "ball" / "0000-a-red-ball-on-a-blue-box"
    same = len(splat_render.read_splats(made / "splat.ply").gaussians)
    assert len(splat_render.read_splats(tmp_path / "ball.spz").gaussians) == same
    with Image.open(tmp_path / "fixed.png") as image:
        assert image.size == (4 * 32, 32)
    assert (tmp_path / "ball.mp4").stat().st_size > 500
    assert (tmp_path / "fixed.mp4").stat().st_size > 500


def test_folders_of_objects_are_checked_before_training(tmp_path, capsys):
    command = ["train", "gsrecon", "--out", tmp_path / "run", "--objects.size", "16"]
    assert run(*command, "--gobjaverse", tmp_path / "none") == 2
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "objects").mkdir()
    assert run(*command, "--gobjaverse", tmp_path / "objects") == 2
    assert "none is given" in capsys.readouterr().err
