"""Names of files for names of anything: the right ones by hand, the promises by names that a machine thinks of."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from output_files import output_names
from output_files.names import MAX_NAME_BYTES, MAX_PART_BYTES

PIECES = st.one_of(
    st.sampled_from(
        [
            "a", "A", "b.jpg", "b.png", "B.JPG", "..", ".", "", "/", "\\", "C:", "con", "NUL.txt", "com1", "lpt\u00b9",
            " ", ". ", "a.", "...", "\0", "\n", "\u202e", "\udcff", "o\u0308", "\u00f6", "\u017f", "\u212a", "~", "-",
            "$HOME", '*?<>|:"', "x" * 260, "\U0001f600" * 90, ".sfm", "images", "1305.125", ".png", "\u200b",
        ]
    ),
    st.text(max_size=8),
)  # fmt: skip
NAMES = st.lists(st.sampled_from(["/", "\\", "", "."]).flatmap(lambda s: st.lists(PIECES, max_size=5).map(s.join)))


def same_for_some_disk(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


@given(NAMES, st.booleans(), st.sampled_from([(), (".jpg", ".png")]))
@settings(max_examples=400, deadline=None)
def test_every_name_gets_a_file_of_its_own_inside_the_folder(names: list[str], flat: bool, kept: tuple[str, ...]):
    found = output_names(names, flat=flat, kept=kept)
    assert set(found) == set(names)
    files = {same_for_some_disk(path) for path in found.values()}
    assert len(files) == len(found)
    assert not files & {parent.as_posix() for path in files for parent in PurePosixPath(path).parents}
    for path in found.values():
        assert path.isprintable() or any(unicodedata.category(c) in ("Zs", "Co", "Cn") for c in path)
        assert not set(path) & set('<>:"|?*\\')
        assert len(path.encode()) <= MAX_NAME_BYTES
        parts = path.split("/")
        assert not flat or len(parts) == 1
        assert not any(re.match(r"(con|prn|aux|nul|com\d|lpt[\d\u00b9])( *\.|$)", part, re.I) for part in parts)
        assert Path("/out", path).resolve() == Path("/out", path)
        assert path.lower().endswith((".png", *kept))
        for part in parts:
            assert 0 < len(part.encode()) <= MAX_PART_BYTES
            assert part.strip(" ") == part
            assert not part.startswith(".")
            assert not part.endswith(".")


@given(NAMES)
@settings(max_examples=100, deadline=None)
def test_order_does_not_matter_and_names_of_files_stay(names: list[str]):
    found = output_names(names)
    assert output_names(reversed(names)) == found
    assert output_names(found.values()) == {path: path for path in found.values()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v000.jpg", "v000.png"),
        ("left/0001.JPEG", "left/0001.png"),
        ("A-DJI plan (3).tiff", "A-DJI plan (3).png"),
        ("no_ending", "no_ending.png"),
        ("1305.125", "1305.125.png"),
        ("frame.0001", "frame.0001.png"),
        ("/albums/june/photos/a.jpg", "albums/june/photos/a.png"),
        ("../../a.jpg", "a.png"),
        ("a/../../b.jpg", "a/b.png"),
        ("C:\\photos\\a.jpg", "photos/a.png"),
        ("\\\\server\\share\\a.jpg", "server/share/a.png"),
        ("C:a.jpg", "C_a.png"),
        (".thumbnails/a.jpg", "_thumbnails/a.png"),
        ("con.jpg", "con_.png"),
        ("Aux.left.jpg", "Aux_.left.png"),
        ("nul/a.jpg", "nul_/a.png"),
        ("tab\there\0.jpg", "tab_here_.png"),
        ("o\u0308.jpg", "\u00f6.png"),
        ("trailing. /a.jpg", "trailing_/a.png"),
        ("", "_.png"),
        ("/", "_.png"),
        (".png", "_png.png"),
    ],
)
def test_what_becomes_of_a_name(name: str, expected: str):
    assert output_names([name]) == {name: expected}


def test_names_that_would_be_one_file_are_told_apart():
    assert output_names(["v.jpg", "v.png", "w.png"]) == {"v.jpg": "v.jpg.png", "v.png": "v.png.png", "w.png": "w.png"}
    cased = output_names(["a.jpg", "A.jpg"])
    assert sorted(path.rsplit("-")[0] for path in cased.values()) == ["A", "a"]
    assert len({path.lower() for path in cased.values()}) == 2
    assert output_names(["a", "a.png/b.jpg"])["a.png/b.jpg"] == "a.png/b.png"
    assert output_names(["a", "a.png/b.jpg"])["a"].startswith("a-")


def test_a_kept_ending_is_kept_and_another_one_gets_a_new_one():
    found = output_names(["a.jpg", "b.PNG", "c.heic", "d"], kept=(".jpg", ".png"))
    assert found == {"a.jpg": "a.jpg", "b.PNG": "b.PNG", "c.heic": "c.png", "d": "d.png"}


def test_flat_names_of_different_folders_do_not_meet():
    found = output_names(["left/1.jpg", "left_1.jpg", "right/1.jpg"], flat=True)
    assert found["right/1.jpg"] == "right_1.png"
    assert len(set(found.values())) == 3


def test_long_names_are_cut_and_stay_different():
    long = ["x" * 300 + "1.jpg", "x" * 300 + "2.jpg", "/".join(["folder"] * 400) + "/a.jpg"]
    found = output_names(long)
    assert len(set(found.values())) == 3
    assert found[long[2]].startswith("a-")
