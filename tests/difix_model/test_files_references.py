"""Which reference: by pose from every known file of cameras, by looks, and as a file says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from colmap_models import ModelImage
from difix_model import InputError, ReferenceConfig, choose_references
from difix_model.references.camera_poses import find_poses, poses_extent, read_poses
from difix_model.references.choice import read_choice, write_choice
from difix_model.references.poses import pose_distances
from difix_model.references.similarity import similarities
from support.colmap_files import write_images

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def pose(angle: float, position: tuple[float, float, float]) -> np.ndarray:
    """Camera to world: turned about the vertical axis."""
    T_world_cam = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    T_world_cam[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    T_world_cam[:3, 3] = position
    return T_world_cam


POSES = {f"cam/{i}.png": pose(0.4 * i, (float(i), 0.5 * i, -0.2 * i)) for i in range(5)}


def write_colmap(path: Path) -> None:
    images = []
    for i, (name, T) in enumerate(POSES.items()):
        # The rotation of `pose`, the other way round.
        quat, (x, y, z) = (np.cos(0.2 * i), 0.0, -np.sin(0.2 * i), 0.0), np.linalg.inv(T)[:3, 3].tolist()
        images.append(ModelImage(image_id=i + 1, name=name, camera_id=1, quat_wxyz=quat, translation=(x, y, z)))
    write_images(path, images)


def write_transforms(path: Path, applied: bool) -> None:
    T_applied = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]) if applied else np.eye(4)
    frames = [{"file_path": name, "transform_matrix": (T_applied @ T @ OPENGL).tolist()} for name, T in POSES.items()]
    content = {"frames": frames} | ({"applied_transform": T_applied[:3].tolist()} if applied else {})
    path.write_text(json.dumps(content))


def write_inria(path: Path) -> None:
    entries = [
        {"img_name": name, "position": T[:3, 3].tolist(), "rotation": T[:3, :3].tolist()} for name, T in POSES.items()
    ]
    path.write_text(json.dumps(entries))


def write_listed(path: Path) -> None:
    entries = [{"image": name, "cam_from_world": np.linalg.inv(T)[:3].tolist()} for name, T in POSES.items()]
    path.write_text(json.dumps(entries))


def write_image(path: Path, color: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 16), (color, color, color)).save(path)
    return path


WRITERS = {
    "sparse/0/images.bin": write_colmap,
    "sparse/images.txt": write_colmap,
    "transforms.json": lambda path: write_transforms(path, applied=False),
    "cameras.json": write_inria,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_of_cameras_gives_the_same_poses(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    WRITERS[name](tmp_path / name)
    for found in (read_poses(tmp_path), read_poses(tmp_path / name), find_poses(tmp_path / "images")):
        assert found is not None
        assert set(found.T_world_cam) == set(POSES)
        for image, T_world_cam in POSES.items():
            np.testing.assert_allclose(found.T_world_cam[image], T_world_cam, atol=1e-9)


def test_an_applied_transform_is_undone_and_lists_are_read(tmp_path: Path) -> None:
    write_transforms(tmp_path / "t.json", applied=True)
    write_listed(tmp_path / "l.json")
    for name in ("t.json", "l.json"):
        for image, T_world_cam in read_poses(tmp_path / name).T_world_cam.items():
            np.testing.assert_allclose(T_world_cam, POSES[image], atol=1e-9)


def test_an_applied_scale_is_undone(tmp_path: Path) -> None:
    write_transforms(tmp_path / "t.json", applied=True)
    content = json.loads((tmp_path / "t.json").read_text())
    content["applied_scale"] = 0.25
    for frame in content["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] *= 0.25
    (tmp_path / "t.json").write_text(json.dumps(content))
    for image, T_world_cam in read_poses(tmp_path / "t.json").T_world_cam.items():
        np.testing.assert_allclose(T_world_cam, POSES[image], atol=1e-9)


def test_blenders_split_files_are_read_together(tmp_path: Path) -> None:
    for side, x in (("train", 1.0), ("test", 2.0)):
        T = np.eye(4)
        T[0, 3] = x
        frames = [{"file_path": f"./{side}/r_0", "transform_matrix": T.tolist()}]
        (tmp_path / f"transforms_{side}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    for side, x in (("train", 1.0), ("test", 2.0)):
        found = read_poses(tmp_path).of(tmp_path / side / "r_0.png")
        assert found is not None
        assert found[0, 3] == x
    # Which r_0 is meant cannot be told.
    assert read_poses(tmp_path).of(Path("renders/r_0.png")) is None


def test_images_are_looked_up_by_path_then_by_name_then_without_suffix(tmp_path: Path) -> None:
    write_inria(tmp_path / "cameras.json")
    poses = read_poses(tmp_path)
    for path in ("x/cam/3.png", "3.png", "renders/3.jpg"):
        np.testing.assert_array_equal(poses.of(Path(path)), poses.T_world_cam["cam/3.png"])
    assert poses.of(Path("7.png")) is None
    entries = json.loads((tmp_path / "cameras.json").read_text())
    (tmp_path / "cameras.json").write_text(json.dumps([*entries, entries[0] | {"img_name": "other/3.png"}]))
    assert read_poses(tmp_path).of(Path("3.png")) is None


def test_damaged_cameras_are_one_sentence(tmp_path: Path) -> None:
    write_colmap(tmp_path / "images.bin")
    whole = (tmp_path / "images.bin").read_bytes()
    rng = np.random.default_rng(0)
    for end in rng.integers(0, len(whole), 40):
        (tmp_path / "images.bin").write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"images\.bin"):
            read_poses(tmp_path)
    wrong = '[{"img_name": "a", "position": [0], "rotation": 1}]'
    for text in ("", "[]", "{}", '{"frames": [1]}', "[[]]", wrong, "[" * 9000):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=r"x\.json"):
            read_poses(tmp_path / "x.json")
    stretched = [{"image": "a.png", "cam_from_world": (2 * np.eye(4)).tolist()}]
    (tmp_path / "x.json").write_text(json.dumps(stretched))
    with pytest.raises(InputError, match=r"pose of a\.png is no rotation"):
        read_poses(tmp_path / "x.json")
    with pytest.raises(InputError, match="holds no cameras"):
        read_poses(tmp_path / "..")
    with pytest.raises(InputError, match="do not exist"):
        read_poses(tmp_path / "absent")


@settings(max_examples=30, deadline=None)
@given(angle=st.floats(0, 3.1), offset=st.floats(0, 10), extent=st.floats(0.1, 10), scale=st.floats(0.1, 10))
def test_the_distance_of_poses(angle: float, offset: float, extent: float, scale: float) -> None:
    here, there = pose(0.3, (1, 2, 3)), pose(0.3 + angle, (1 + offset, 2, 3))
    found = pose_distances(here[None], np.stack([here, there]), extent=extent)[0]
    np.testing.assert_allclose(found, [0, offset / extent + angle], atol=1e-6)
    # The world's scale does not count.
    scaled = np.stack([here, there])
    scaled[:, :3, 3] *= scale
    again = pose_distances(scaled[:1], scaled[1:], extent=extent * scale)[0, 0]
    assert again == pytest.approx(found[1], abs=1e-6)


def test_the_extent_of_cameras_in_one_place_is_one() -> None:
    assert poses_extent(np.stack([pose(0.1, (5, 5, 5)), pose(0.2, (5, 5, 5))])) == 1.0
    assert poses_extent(np.stack([pose(0, (0, 0, 0)), pose(0, (4, 0, 0))])) == 2.0


def test_references_go_by_pose_nearest_first(tmp_path: Path) -> None:
    photos = [write_image(tmp_path / "scene" / "images" / f"{i}.png") for i in range(5) if i != 2]
    write_image(tmp_path / "scene" / "images" / "unposed.png")
    write_colmap(tmp_path / "scene" / "sparse" / "0" / "images.bin")
    image = write_image(tmp_path / "renders" / "2.png")
    # The image is listed beside the photos.
    chosen = choose_references([image], tmp_path / "scene", ReferenceConfig(num_references=3))
    assert chosen.method == "pose"
    assert set(chosen.references[0][:2]) == {photos[1], photos[2]}
    assert chosen.scores is not None
    assert list(chosen.scores[0]) == sorted(chosen.scores[0])
    # Cameras of its own go first, whatever its name.
    cameras = tmp_path / "path.json"
    cameras.write_text(json.dumps([{"image": "2.png", "cam_from_world": np.linalg.inv(POSES["cam/4.png"]).tolist()}]))
    chosen = choose_references([image], tmp_path / "scene" / "images", ReferenceConfig(cameras=cameras))
    assert chosen.references == ((photos[3],),)
    assert chosen.scores == ((pytest.approx(0.0, abs=1e-6),),)
    with pytest.raises(InputError, match=r"no camera for other\.png"):
        choose_references(
            [write_image(tmp_path / "renders" / "other.png")], tmp_path / "scene", ReferenceConfig(by="pose")
        )


def test_nothing_known_goes_by_looks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blocks = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(4)]
    pictures = [np.asarray(small.resize((128, 96), Image.Resampling.BICUBIC)) for small in blocks]
    for i, picture in enumerate(pictures):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "photos" / f"p{i}.png")
    images = []
    (tmp_path / "in").mkdir()
    for i in (2, 0):
        # Seen from a little aside, darker, of another size, and noisy.
        seen = np.roll(pictures[i], 12, axis=1) * 0.6 + rng.normal(0, 12, pictures[i].shape)
        image = Image.fromarray(seen.clip(0, 255).astype(np.uint8)).resize((200, 150))
        image.save(tmp_path / "in" / f"r{i}.png")
        images.append(tmp_path / "in" / f"r{i}.png")
    chosen = choose_references(images, tmp_path / "photos")
    assert chosen.method == "similarity"
    assert [path.name for (path,) in chosen.references] == ["p2.png", "p0.png"]
    assert chosen.scores is not None
    assert all(0.7 < score <= 1 for (score,) in chosen.scores)
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "link.png").symlink_to(images[0])
    with pytest.raises(InputError, match="the image itself"):
        choose_references([images[0]], tmp_path / "only", ReferenceConfig(by="similarity"))


def test_images_without_structure_have_no_likeness(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / "a.png", 0), write_image(tmp_path / "b.png", 255)]
    assert np.abs(similarities(paths, paths)).max() < 1e-3


def test_a_choice_is_written_and_given_back(tmp_path: Path) -> None:
    photos = [write_image(tmp_path / "photos" / f"{i}.png", 40 * i) for i in range(3)]
    images = [write_image(tmp_path / "in" / f"{i}.png") for i in range(3)]
    chosen = choose_references(images, tmp_path / "photos", ReferenceConfig(by="name"))
    path = tmp_path / "out" / "references.json"
    write_choice(path, chosen)
    content = json.loads(path.read_text())
    assert content["images"][1] == {"image": "../in/1.png", "references": ["../photos/1.png"], "method": "name"}
    back = choose_references(images, path)
    assert back.method == "file"
    assert [[p.resolve() for p in several] for several in back.references] == [[p.resolve()] for p in photos]
    # Images that were moved are found by their names.
    moved = write_image(tmp_path / "elsewhere" / "2.png")
    assert read_choice(path, [moved]).references[0][0].resolve() == photos[2].resolve()
    photos[0].unlink()
    with pytest.raises(InputError, match=r"0\.png's reference .* is absent; 9\.png is listed nowhere"):
        read_choice(path, [images[0], tmp_path / "in" / "9.png"])


def test_a_choice_may_be_written_by_hand(tmp_path: Path) -> None:
    photos = [write_image(tmp_path / f"p{i}.png") for i in range(2)]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"a.png": "p0.png", "b.png": ["p1.png", str(photos[0])]}))
    found = read_choice(path, [tmp_path / "in" / "b.png", tmp_path / "in" / "a.png"])
    assert found.references == ((photos[1], photos[0]), (photos[0],))
    for text in ("", "[]", '{"a.png": 1}', '{"a.png": [1]}', '{"format": "difix-references"}', "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=r"mine\.json"):
            read_choice(path, [tmp_path / "a.png"])


def test_what_cannot_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="num_references must be at least 1"):
        ReferenceConfig(num_references=0)
    with pytest.raises(ValueError, match="one reference per image"):
        ReferenceConfig(by="order", num_references=2)


@pytest.mark.scenes
def test_renders_find_photos_from_nearby_on_a_real_scene(scenes: Path) -> None:
    """Every photo as its own query, the photo itself left out: what is chosen by looks is near by pose."""
    folder = scenes / "kermit"
    poses = read_poses(folder)
    photos = sorted((folder / "images").iterdir())
    known = [path for path in photos if poses.of(path) is not None]
    T_world_cam = np.stack([found for path in known if (found := poses.of(path)) is not None])
    distances = pose_distances(T_world_cam, T_world_cam, extent=poses_extent(T_world_cam))
    likeness = similarities(known, known)
    np.fill_diagonal(distances, np.inf)
    np.fill_diagonal(likeness, -1)
    rank = (distances < distances[np.arange(len(known)), likeness.argmax(axis=1)][:, None]).sum(axis=1)
    assert (rank < 3).mean() >= 0.8
