"""The command difix3d-enhance with the weights that come with the project."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from difix3d_enhance_app.__main__ import main
from splat_recon import SyntheticConfig, generate_scene, write_scene
from splat_render import write_ply
from support.splat_scenes import make_gaussians


def test_it_writes_a_film_and_both_halves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scene(tmp_path / "scene", generate_scene(3, SyntheticConfig(width=40, height=32, num_views=5)))
    write_ply(tmp_path / "splat.ply", make_gaussians(100, degree=0))
    film, both = tmp_path / "film.mp4", tmp_path / "both.mp4"
    arguments = ["--splat", str(tmp_path / "splat.ply"), "--scene", str(tmp_path / "scene"), "--frames", "3"]
    assert main([*arguments, "--out", str(film), "--side-by-side", str(both), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(both), str(film)]
    assert "3 frames" in printed.err
    assert film.stat().st_size
    assert both.stat().st_size


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--splat", str(tmp_path / "nothing.ply"), "--out", str(tmp_path / "film.mp4")]) == 2
    assert capsys.readouterr().err.startswith("error: there is no ")
    with pytest.raises(SystemExit) as stop:
        main(["--input", "a", "--out", "b", "--strength", "3"])
    assert stop.value.code == 2
    capsys.readouterr()
    for both in ([], ["--input", "a", "--splat", "b"]):
        with pytest.raises(SystemExit) as stop:
            main(["--out", "c", *both])
        assert stop.value.code == 2
        assert "(--splat)" in capsys.readouterr().err
    text = tmp_path / "README.txt"
    text.write_text("No film at all.\n" * 100)
    assert main(["--input", str(text), "--out", str(tmp_path / "film.mp4")]) == 2
    assert "text" in capsys.readouterr().err
    assert not (tmp_path / "film.mp4").exists()


def test_a_page_without_its_extra_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ply(tmp_path / "splat.ply", make_gaussians(20, degree=0))
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main(["view", "--splat", str(tmp_path / "splat.ply"), "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "error: the viewer is not installed" in printed.err
    assert "--extra viewer" in printed.err


def test_a_page_of_nothing_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("viser", reason="the extra viewer is not installed")
    assert main(["view", "--splat", str(tmp_path / "nothing.ply")]) == 2
    assert "error: there is no " in capsys.readouterr().err
    (tmp_path / "film.mp4").touch()
    assert main(["view", "--splat", str(tmp_path / "film.mp4")]) == 2
    assert "the name of a splat file ends in" in capsys.readouterr().err
