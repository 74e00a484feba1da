"""Models as COLMAP, other programs and scripts write them: read with all their photos, or refused in a sentence."""

import logging
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from colmap_models import (
    InputError,
    ModelCamera,
    ModelImage,
    find_images,
    find_model,
    has_model,
    has_parts,
    read_images,
    read_model,
)
from support.colmap_files import change, photo_lines, write_images

CAMERAS = {
    1: ModelCamera(model="PINHOLE", width=16, height=12, params=(20.0, 21.5, 8.0, 6.0)),
    2: ModelCamera(model="SIMPLE_RADIAL", width=12, height=16, params=(19.0, 6.0, 8.0, -0.125)),
}
IMAGES = [
    ModelImage(
        image_id=number,
        name=f"photo_{number}.png",
        camera_id=1 + number % 2,
        quat_wxyz=(0.5, 0.5, -0.5, 0.5) if number % 2 else (0.6, 0.0, 0.0, 0.8),
        translation=(float(number), -1.5, 1 / number),
    )
    for number in range(1, 7)
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    write_images(tmp_path / "text" / "images.txt", IMAGES)
    (tmp_path / "text" / "cameras.txt").write_text("1 PINHOLE 16 12 20 21.5 8 6\n2 simple_radial 12 16 19 6 8 -0.125\n")
    (tmp_path / "text" / "points3D.txt").write_text("9 4 5 6.5 70 80 90 0.5\n3 1 2 3 10 20 300 0.5 2 0 5 1 2 4\n")
    return tmp_path / "text"


RECORDS = {
    "cameras": [
        struct.pack("<IiQQ4d", 1, 1, 16, 12, 20, 21.5, 8, 6),
        struct.pack("<IiQQ4d", 2, 2, 12, 16, 19, 6, 8, -0.125),
    ],
    "points3D": [
        struct.pack("<Q3d3BdQ", 9, 4, 5, 6.5, 70, 80, 90, 0.5, 0),
        struct.pack("<Q3d3BdQ6I", 3, 1, 2, 3, 10, 20, 255, 0.5, 3, 2, 0, 5, 1, 2, 4),
    ],
    # A rig of two cameras, and a frame of two photos.
    "rigs": [struct.pack("<IIiIiIB7d", 1, 2, 0, 1, 0, 2, 1, 1, 0, 0, 0, 0, 0, 0)],
    "frames": [struct.pack("<II7dIiIQiIQ", 1, 1, 1, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1, 0, 2, 2)],
}


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    write_images(tmp_path / "binary" / "images.bin", IMAGES)
    for name, records in RECORDS.items():
        (tmp_path / "binary" / f"{name}.bin").write_bytes(struct.pack("<Q", len(records)) + b"".join(records))
    return tmp_path / "binary"


def is_the_model(folder: Path) -> bool:
    """Every photo with its own pose, and nothing else."""
    found = read_model(folder)
    assert found.cameras == CAMERAS
    assert [(one.image_id, one.name, one.camera_id) for one in found.images] == [
        (one.image_id, one.name, one.camera_id) for one in IMAGES
    ]
    np.testing.assert_allclose([pose(one) for one in found.images], [pose(one) for one in IMAGES], atol=1e-12)
    assert found.points.p_world.tolist() == [[1, 2, 3], [4, 5, 6.5]]
    assert found.points.rgb_u8.tolist() == [[10, 20, 255], [70, 80, 90]]
    assert found.points.image_ids == ((2, 5), ())
    return True


def pose(image: ModelImage) -> np.ndarray:
    assert image.T_world_cam is not None
    return image.T_world_cam


def test_both_kinds_of_models_are_read(text: Path, binary: Path):
    assert is_the_model(text)
    assert is_the_model(binary)


def test_a_pose_is_from_the_camera_to_the_world():
    turned = replace(IMAGES[0], quat_wxyz=(2**0.5, 0.0, 0.0, 2**0.5), translation=(1.0, 2.0, 3.0))
    # World to camera turns by 90 degrees about z: x becomes y.
    np.testing.assert_allclose(np.linalg.inv(pose(turned)) @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)


WRITERS: dict[str, Callable[[str], str]] = {
    "no lines of keypoints": lambda text: "\n".join(photo_lines(text)) + "\n",
    "nor a last line end": lambda text: "\n".join(photo_lines(text)),
    "empty lines of keypoints": lambda text: "\n\n".join(photo_lines(text)) + "\n\n",
    "empty lines everywhere": lambda text: "\n\n\n" + "\n\n\n".join(photo_lines(text)) + "\n\n\n\n",
    "some lines of keypoints": lambda text: "".join(
        f"{line}\n" + ("1.5 2.5 -1 3.5 4.5 7\n" if index % 2 else "") for index, line in enumerate(photo_lines(text))
    ),
    # These could be a photo with the camera 1: what stands between whose lines they are tells.
    "keypoints like a photo": lambda text: "".join(
        f"{line}\n10 20 3 30 40 4 50 60 1 70 80 5\n" for line in photo_lines(text)
    ),
    "comments in between": lambda text: "".join(f"# photo\n{line}\n\n# done\n" for line in photo_lines(text)),
    "Windows' line ends": lambda text: "\r\n\r\n".join(photo_lines(text)) + "\r\n\r\n",
    "tabs": lambda text: "\n\n".join("\t".join(line.split()) for line in photo_lines(text)) + "\n\n",
    "spaces at both ends": lambda text: "\n\n".join(f"  {line}  " for line in photo_lines(text)) + "\n\n",
    "a byte order mark": lambda text: f"\ufeff{text}",
    "whole numbers with a point": lambda text: "\n\n".join(
        " ".join([f"{line.split()[0]}.0", *line.split()[1:]]) for line in photo_lines(text)
    ),
    "quaternions of length three": lambda text: "\n\n".join(
        " ".join([w[0], *(str(3 * float(q)) for q in w[1:5]), *w[5:]]) for w in map(str.split, photo_lines(text))
    ),
    "photos in another order": lambda text: "\n\n".join(reversed(photo_lines(text))) + "\n\n",
}


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_all_photos_of_a_text_model_are_read_whatever_its_lines_look_like(text: Path, kind: str):
    change(text / "images.txt", WRITERS[kind])
    assert is_the_model(text)


def test_utf16_as_windows_shells_write_it_is_read(text: Path):
    for path in text.iterdir():
        path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    assert is_the_model(text)


@pytest.mark.parametrize("ending", [".bin", ".txt"])
@pytest.mark.parametrize(
    "name", ["A-DJI plan ({}).png", "12 34 {}.png", "#{}.png", "\u3042 \u0301{}.png", "a\u00a0b{}.png", "\udcfc{}.png"]
)
def test_a_photos_name_is_the_rest_of_its_line(tmp_path: Path, name: str, ending: str):
    images = [replace(one, name=name.format(one.image_id)) for one in IMAGES]
    write_images(tmp_path / f"images{ending}", images)
    assert read_images(tmp_path / f"images{ending}") == images


def test_a_photo_that_stands_twice_counts_once_or_is_refused(text: Path, caplog: pytest.LogCaptureFixture):
    first = photo_lines((text / "images.txt").read_text())[0].split()
    change(text / "images.txt", lambda content: content + " ".join(["77", *first[1:]]) + "\n")
    assert is_the_model(text)
    assert "1 photos stand in the model twice" in caplog.text
    change(text / "images.txt", lambda content: content + " ".join(["78", *first[1:5], "9", *first[6:]]) + "\n")
    with pytest.raises(InputError, match=rf"photo {first[9]} stands twice, as images \d+ and 78 with different poses"):
        read_model(text)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("images", "7 1 0 0 0 0 0 0 1", r"images\.txt, line \d+ is neither a photo .* nor the keypoints"),
        ("images", "hello", r"images\.txt, line \d+ is neither a photo"),
        ("cameras", "hello", r"cameras\.txt, line \d+ is not a camera \(CAMERA_ID MODEL WIDTH HEIGHT PARAMS\): hello"),
        ("cameras", "1 PINHOLE 5 5 1 1 1 1", r"cameras\.txt has two cameras 1"),
        ("points3D", "1 2 3", r"points3D\.txt, line \d+ is not a point"),
    ],
)
def test_lines_that_say_nothing_are_named(text: Path, name: str, line: str, message: str):
    change(text / f"{name}.txt", lambda content: f"{content.rstrip()}\n\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_model(text)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin", "rigs.bin", "frames.bin"])
@pytest.mark.parametrize("how", ["short", "empty", "long", "foreign", "huge count"])
def test_broken_model_files_are_refused_before_they_hang_the_reader(binary: Path, name: str, how: str):
    content = (binary / name).read_bytes()
    (binary / name).write_bytes(
        {
            "short": content[:-3],
            "empty": b"",
            "long": content + b"x",
            "foreign": b"<html>not found</html>" * 20,
            "huge count": (2**40).to_bytes(8, "little") + content[8:],
        }[how]
    )
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read_model(binary)


@pytest.mark.parametrize(("left_out", "there"), [("frames", "rigs"), ("rigs", "frames")])
def test_rigs_and_frames_belong_together(binary: Path, left_out: str, there: str):
    (binary / f"{left_out}.bin").unlink()
    with pytest.raises(InputError, match=rf"has {there}\.bin but lacks {left_out}\.bin"):
        read_model(binary)
    (binary / f"{there}.bin").unlink()
    assert is_the_model(binary)


def test_a_camera_is_checked_when_a_photo_has_it(text: Path):
    change(text / "cameras.txt", lambda content: content + "3 NO_LENS 5 5\n4 PINHOLE 5 5 1 2 3\n")
    model = read_model(text)
    for number, message in (
        (3, "camera 3: the model NO_LENS is none of COLMAP's"),
        (4, "camera 4: the model PINHOLE is of 4 parameters, not 3"),
        (5, "camera 5, which photo photo_1.png has, is not in the model"),
    ):
        with pytest.raises(InputError, match=message):
            model.camera_of(replace(IMAGES[0], camera_id=number))
    assert model.camera_of(IMAGES[0]) == CAMERAS[2]


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_of_several_models_the_one_with_the_most_photos_is_read(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
):
    for name, count in (("0", 4), ("1", 6), ("2", 5)):
        shutil.copytree(request.getfixturevalue(kind), tmp_path / "sparse" / name)
        (images,) = (tmp_path / "sparse" / name).glob("images.*")
        write_images(images, IMAGES[:count])
        if kind == "text":
            change(images, WRITERS["no lines of keypoints"])
    with caplog.at_level(logging.WARNING):
        assert find_model(tmp_path) == tmp_path / "sparse" / "1"
    assert "0 (4 photos), 1 (6 photos), 2 (5 photos): 1 is read" in caplog.text
    assert find_images(tmp_path) == tmp_path / "sparse" / "1" / images.name
    assert find_model(tmp_path, "2") == find_model(tmp_path, "sparse/2") == tmp_path / "sparse" / "2"
    with pytest.raises(InputError, match="there is no model 7; it has sparse/0, sparse/1, sparse/2"):
        find_model(tmp_path, "7")


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "."])
def test_photos_are_found_where_other_parts_are_missing(tmp_path: Path, binary: Path, place: str):
    scene = tmp_path / "scene"
    shutil.copytree(binary, scene / place)
    assert find_model(scene) == scene / place
    assert has_model(scene)
    (scene / place / "cameras.bin").unlink()
    assert find_images(scene) == scene / place / "images.bin"
    assert not has_model(scene)
    assert has_parts(scene) == (place != ".")
    with pytest.raises(InputError, match=r"lacks cameras\.bin" if place != "." else "there is no model"):
        find_model(scene)
    assert find_images(tmp_path / "nowhere") is None
