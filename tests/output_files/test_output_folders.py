"""Links, inputs and whole files: what is not asked for keeps its bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from output_files import (
    InputError,
    check_inputs_kept,
    check_links,
    check_writable,
    output_place,
    unshared,
    written_whole,
)
from output_files import write_text_whole as write_text


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "photo.png").write_text("a photo")
    return folder


def test_a_link_that_leads_out_is_refused(tmp_path: Path, elsewhere: Path):
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    check_links(out)
    (out / "deep" / "images").symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"deep/images leads to .*elsewhere, out of .*out: remove it"):
        check_links(out)
    with pytest.raises(InputError, match="leads to"):
        output_place(out, "deep/images/photo.png")
    with pytest.raises(InputError, match="leads to"):
        output_place(out, "../elsewhere/photo.png")


def test_links_inside_and_the_folder_itself_are_the_users_business(tmp_path: Path, elsewhere: Path):
    out = tmp_path / "out"
    out.symlink_to(elsewhere)
    (out / "pictures").mkdir()
    (out / "images").symlink_to(out / "pictures")
    check_links(out)
    assert output_place(out, "images/a.png") == out / "images" / "a.png"
    check_links(tmp_path / "not there yet")


def test_a_link_to_itself_is_refused(tmp_path: Path):
    (tmp_path / "images").symlink_to(tmp_path / "images")
    with pytest.raises(InputError):
        output_place(tmp_path, "images/a.png")


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_file_that_is_a_link_is_replaced_and_not_written_through(tmp_path: Path, elsewhere: Path, kind: str):
    path, photo = tmp_path / "a.txt", elsewhere / "photo.png"
    if kind == "symbolic":
        path.symlink_to(photo)
        (tmp_path / f".a.partial-{os.getpid()}.txt").symlink_to(photo)
    else:
        path.hardlink_to(photo)
    write_text(path, "new")
    assert (path.read_text(), photo.read_text()) == ("new", "a photo")
    assert not path.is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.txt", "elsewhere"]


@pytest.mark.parametrize("kind", ["symbolic", "hard", "dangling", "plain", "absent"])
def test_what_is_appended_to_is_nobody_elses(tmp_path: Path, elsewhere: Path, kind: str):
    path, photo = tmp_path / "log.txt", elsewhere / "photo.png"
    if kind == "symbolic":
        path.symlink_to(photo)
    elif kind == "hard":
        path.hardlink_to(photo)
    elif kind == "dangling":
        path.symlink_to(elsewhere / "new")
    elif kind == "plain":
        path.write_text("a photo")
    before = "" if kind in ("dangling", "absent") else "a photo"
    with unshared(path).open("a") as file:
        file.write("!")
    assert path.read_text() == f"{before}!"
    assert [each.name for each in elsewhere.iterdir()] == ["photo.png"]
    assert photo.read_text() == "a photo"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "new folder" / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with written_whole(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]


def test_a_folder_is_tried_and_one_that_cannot_be_is_refused(tmp_path: Path):
    check_writable(tmp_path / "kept" / "below")
    check_writable(tmp_path / "gone" / "below", keep=False)
    (tmp_path / "file").touch()
    for name in ("x" * 300, f"gone/{'x' * 300}/below", "file/below"):
        with pytest.raises(InputError, match=r"cannot write to .*; choose another folder"):
            check_writable(tmp_path / name, other="folder", keep=False)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {"file", "kept", "kept/below"}


def test_outputs_that_are_inputs_are_refused(tmp_path: Path, elsewhere: Path):
    photo, link = elsewhere / "photo.png", tmp_path / "link"
    link.symlink_to(elsewhere)
    check_inputs_kept([tmp_path / "out.png", elsewhere / "new.png"], [photo, tmp_path / "absent"])
    with pytest.raises(InputError, match=r"photo.png is read, and would be replaced by .*: choose another --out"):
        check_inputs_kept([tmp_path / "out.png", link / "photo.png"], [photo])
    with pytest.raises(InputError, match=r"would be written into .*elsewhere, which is read"):
        check_inputs_kept([link / "deep" / "new.png"], [elsewhere])
    check_inputs_kept([tmp_path / "elsewhere2" / "new.png"], [elsewhere])
