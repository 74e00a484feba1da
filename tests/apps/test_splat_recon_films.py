"""`splat-recon render` and `export` on a small run: paths, kinds of pictures, cameras from files, going on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splat_recon_app.__main__ import main
from support.table_scene import write_table


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory, num_views=8, width=64, height=48, num_points=300)


@pytest.fixture(scope="module")
def finished(scene_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    flags = ["--scene", str(scene_folder), "--out", str(out), "--device", "cpu", "--split", "every:4"]
    assert (
        main(["train", *flags, "--stereo", "off", "--max-steps", "60", "--eval-every", "20", "--preset", "mcmc"]) == 0
    )
    return out


def rendered(finished: Path, out: Path, *flags: str) -> int:
    return main(["render", "--splat", str(finished), "--out", str(out), "--device", "cpu", *flags])


def video_frames(path: Path) -> np.ndarray:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


@pytest.mark.parametrize("path", ["interpolated", "ellipse", "spiral", "orbit"])
def test_every_path_is_a_film_of_the_scene(finished: Path, tmp_path: Path, path: str):
    out = tmp_path / "film.mp4"
    assert rendered(finished, out, "--path", path, "--frames", "5") == 0
    frames = video_frames(out)
    assert frames.shape == (5, 48, 64, 3)
    # Something is seen from everywhere, and not the same thing.
    assert frames.reshape(5, -1).std(axis=1).min() > 3
    assert np.abs(frames[0].astype(int) - frames[2]).mean() > 0.5


def test_depth_and_alpha_come_as_videos_of_their_own(finished: Path, tmp_path: Path, capsys):
    out = tmp_path / "film.mp4"
    assert rendered(finished, out, "--frames", "3", "--shown", "rgb", "depth", "alpha") == 0
    names = [out, tmp_path / "film_depth.mp4", tmp_path / "film_alpha.mp4"]
    assert capsys.readouterr().out.split() == [str(name) for name in names]
    rgb, depth, alpha = (video_frames(name) for name in names)
    assert rgb.shape == depth.shape == alpha.shape
    # Opacity is gray, depth is not.
    assert np.ptp(alpha.astype(int), axis=-1).max() <= 8
    assert np.ptp(depth.astype(int), axis=-1).max() > 60


def test_frames_hold_metric_depth_and_go_on_where_they_stopped(
    finished: Path, scene_folder: Path, tmp_path: Path, capsys
):
    out = tmp_path / "frames"
    flags = ["--path", "given", "--cameras", str(scene_folder), "--shown", "rgb", "depth", "alpha"]
    assert rendered(finished, out, *flags) == 0
    assert "8 of 8 frames were rendered now" in capsys.readouterr().err
    for kind, ending in (("rgb", "png"), ("depth", "npy"), ("depth_color", "png"), ("alpha", "png")):
        assert [file.name for file in sorted((out / kind).iterdir())] == [f"{i:06d}.{ending}" for i in range(8)]
    alpha = png(out / "alpha" / "000003.png")[..., 0] / 255
    depth = np.load(out / "depth" / "000003.npy")
    assert depth.dtype == np.float32
    assert depth.shape == (48, 64)
    _check_depth(depth, alpha, scene_folder)
    before = png(out / "rgb" / "000002.png")
    (out / "rgb" / "000002.png").unlink()
    assert rendered(finished, out, *flags) == 0
    assert "1 of 8 frames were rendered now" in capsys.readouterr().err
    np.testing.assert_array_equal(png(out / "rgb" / "000002.png"), before)
    # Frames of something else are replaced only when that is asked for.
    other = [*flags, "--background", "1", "1", "1"]
    assert rendered(finished, out, *other) == 2
    assert "another render" in capsys.readouterr().err
    assert rendered(finished, out, *other, "--overwrite") == 0
    assert "8 of 8" in capsys.readouterr().err
    # A shorter film leaves nothing of the longer one, but files of others.
    (out / "rgb" / "notes.txt").write_text("mine")
    assert rendered(finished, out, "--path", "orbit", "--frames", "3", "--overwrite") == 0
    names = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    assert sorted(names) == ["render.json", *(f"rgb/{index:06d}.png" for index in range(3)), "rgb/notes.txt"]


def _check_depth(depth: np.ndarray, alpha: np.ndarray, scene_folder: Path) -> None:
    """In COLMAP's unit, it is near the depth of the points that the fourth photo shows."""
    from splat_recon import read_scene

    scene = read_scene(scene_folder)
    camera = scene.views[3].camera
    p_cam = scene.points.p_world @ camera.T_cam_world[:3, :3].T + camera.T_cam_world[:3, 3]
    z = p_cam[:, 2]
    xy = p_cam[:, :2] / z[:, None] * np.diag(camera.K)[:2] + camera.K[:2, 2]
    column, row = np.floor(xy).astype(int).T
    seen = (z > 0) & (column >= 0) & (column < 64) & (row >= 0) & (row < 48)
    seen[seen] &= alpha[row[seen], column[seen]] > 0.5
    assert seen.sum() > 20
    ratio = depth[row[seen], column[seen]] / z[seen]
    assert 0.7 < np.median(ratio) < 1.3


def test_a_splat_file_shows_what_the_run_shows(finished: Path, scene_folder: Path, tmp_path: Path):
    flags = ["--path", "given", "--cameras", str(scene_folder), "--device", "cpu"]
    assert main(["render", "--splat", str(finished), "--out", str(tmp_path / "run"), *flags]) == 0
    for name in ("a.ply", "a.compressed.ply", "a.spz"):
        # Twice: from the run, then from the file to the format of its name.
        file = tmp_path / name
        assert main(["export", "--splat", str(finished), "--to", str(tmp_path / "first.ply")]) == 0
        assert main(["export", "--splat", str(tmp_path / "first.ply"), "--out", str(file)]) == 0
        out = tmp_path / f"{name} frames".replace(".", " ")
        assert main(["render", "--splat", str(file), "--out", str(out), *flags]) == 0
        for index in range(8):
            a, b = (png(folder / "rgb" / f"{index:06d}.png").astype(int) for folder in (tmp_path / "run", out))
            assert np.abs(a - b).mean() < (0.2 if name == "a.ply" else 3.0)


def test_cameras_of_all_kinds_of_files_are_the_same(finished: Path, scene_folder: Path, tmp_path: Path):
    from splat_recon import read_camera_file, read_scene, write_transforms

    scene = read_scene(scene_folder)
    write_transforms(tmp_path / "nerf", scene)
    opengl = np.diag([1.0, -1, -1, 1])
    path = {
        "render_width": 64,
        "render_height": 48,
        "fps": 12,
        "camera_path": [
            {
                "camera_to_world": (view.camera.T_world_cam @ opengl).ravel().tolist(),
                "fov": float(np.degrees(2 * np.arctan(24 / view.camera.K[1, 1]))),
            }
            for view in scene.views
        ],
    }
    (tmp_path / "camera_path.json").write_text(json.dumps(path))
    files = {
        name: read_camera_file(where)
        for name, where in {
            "colmap": scene_folder,
            "model": scene_folder / "sparse" / "0",
            "transforms": tmp_path / "nerf",
            "path": tmp_path / "camera_path.json",
            "run": finished / "cameras.json",
        }.items()
    }
    assert files["path"].fps == 12
    by_name = dict(zip(files["colmap"].names, files["colmap"].cameras, strict=True))
    for kind, file in files.items():
        pairs = zip(file.names, file.cameras, strict=True)
        for index, (name, camera) in enumerate(pairs):
            expected = by_name[name] if kind == "run" else files["colmap"].cameras[index]
            np.testing.assert_allclose(camera.T_world_cam, expected.T_world_cam, atol=1e-6, err_msg=kind)
            assert (camera.width, camera.height) == (64, 48)
            if kind != "path":
                np.testing.assert_allclose(camera.K, expected.K, atol=1e-6, err_msg=kind)
            else:
                assert camera.K[1, 1] == pytest.approx(expected.K[1, 1])


def test_wrong_renders_are_one_sentence(finished: Path, tmp_path: Path, capsys):
    (tmp_path / "bad.json").write_text('{"frames": [{"transform_matrix": [1]}]}')
    (tmp_path / "none.json").write_text("{}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    run = ["render", "--splat", str(finished), "--device", "cpu"]
    cases = {
        "must end in .mp4": [*run, "--out", str(tmp_path / "path.avi")],
        "must be a 4x4 matrix": [*run, "--out", str(tmp_path / "a.mp4"), "--cameras", str(tmp_path / "bad.json")],
        "holds no cameras": [*run, "--out", str(tmp_path / "a.mp4"), "--cameras", str(tmp_path / "none.json")],
        "cannot be read": [*run, "--out", str(tmp_path / "a.mp4"), "--cameras", str(tmp_path / "missing.json")],
        "is not empty": [*run, "--out", str(tmp_path / "full"), "--frames", "2"],
        "holds no frames of a render": [*run, "--out", str(tmp_path / "full"), "--frames", "2", "--overwrite"],
        "there is no file": ["export", "--splat", str(tmp_path / "no.spz"), "--out", str(tmp_path / "x.ply")],
    }
    for sentence, argv in cases.items():
        assert main(argv) == 2, sentence
        assert sentence in capsys.readouterr().err, sentence
    with pytest.raises(SystemExit) as stopped:
        main(["render", "--out", "x"])
    assert stopped.value.code == 2
    bare = tmp_path / "bare.ply"
    bare.write_bytes((finished / "point_cloud.ply").read_bytes())
    assert main(["render", "--splat", str(bare), "--out", str(tmp_path / "x.mp4")]) == 2
    assert "Name --cameras" in capsys.readouterr().err


def test_observers_change_nothing_about_the_result(finished: Path, scene_folder: Path, tmp_path: Path):
    pytest.importorskip("viser", reason="the extra viewer is not installed")
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    out = tmp_path / "run"
    flags = ["--scene", str(scene_folder), "--out", str(out), "--device", "cpu", "--split", "every:4"]
    more = ["--viewer", "--viewer-port", "8480", "--tensorboard", "--eval-every", "7"]
    assert main(["train", *flags, "--stereo", "off", "--max-steps", "60", "--preset", "mcmc", *more]) == 0
    for name in ("point_cloud.ply", "metrics.json", "metrics.jsonl"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name
    (events,) = (out / "tensorboard").iterdir()
    assert events.stat().st_size > 10_000


def test_the_report_is_one_page_with_curves_and_pictures(finished: Path):
    import re

    page = (finished / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<!--" not in page
    assert page.count("data:image/jpeg") == 3 * 2
    assert page.count("<svg") == 1
    assert all(f">{title}</text>" in page for title in ("PSNR of test photos (dB)", "Loss", "Gaussians"))
    scores = json.loads((finished / "metrics.json").read_text())
    assert f"{scores['psnr']:.2f} dB PSNR" in page
    for name in scores["per_view"]:
        assert name in page
    measured = [json.loads(line) for line in (finished / "evaluations.jsonl").read_text().splitlines()]
    assert [record["step"] for record in measured] == [0, 20, 40, 60]
    assert measured[-1]["psnr"] == pytest.approx(scores["psnr"])
    assert measured[-1]["psnr"] > measured[0]["psnr"] + 1
    assert len(page) < 1_000_000
