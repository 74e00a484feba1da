"""Which frames of a video are taken."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from media_files import write_video
from splat_recon import InputError
from splat_recon.io.images import read_photo
from splat_recon.io.sfm.video_frames import VideoMotion, displacement, extract_frames, measure_motion, pick_frames

WIDTH, HEIGHT = 320, 180


def texture(seed=0, size=(400, 1600)):
    """Blobs of several sizes: something to see at every scale."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (size[0] // s, size[1] // s), dtype=np.uint8)).resize(size[::-1])
        )
        for s in (3, 8, 20)
    ]
    return np.repeat(np.mean(layers, axis=0)[..., None], 3, axis=2)


def window(image, x, y=100):
    """The frame that looks at a place of the texture, to a fraction of a pixel."""
    left = int(np.floor(x))
    part = image[y : y + HEIGHT, left : left + WIDTH + 1]
    return (part[:, :-1] * (1 - (x - left)) + part[:, 1:] * (x - left)).round().astype(np.uint8)


def blurred(frame):
    return np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(3)))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """180 frames: 20 of standing still, then 4 pixels a frame, every third one blurred."""
    image, frames, x = texture(), [], 10.0
    for index in range(180):
        x += 0 if index < 20 else 4.0
        frame = window(image, x)
        frames.append(blurred(frame) if index % 3 else frame)
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, frames, rate=30)
    return path


@pytest.fixture(scope="module")
def motion(film):
    return measure_motion(film)


@pytest.mark.parametrize("moved", [0.0, 0.5, 1.5, 6.0, 13.0, -9.25])
def test_displacements_are_measured_to_a_fraction_of_a_pixel(moved):
    image = texture(3)
    before, after = (window(image, 300 + x).mean(axis=2).astype(np.float32) for x in (0, moved))
    assert displacement(before, after) * WIDTH == pytest.approx(abs(moved), abs=0.35)


def test_what_cannot_be_found_again_has_moved_far():
    before, after = (window(texture(seed), 50).mean(axis=2).astype(np.float32) for seed in (1, 2))
    assert displacement(before, after) >= 0.09
    flat = np.full((HEIGHT, WIDTH), 90.0, np.float32)
    assert displacement(flat, flat) == 0


def test_motion_and_sharpness_are_measured(motion):
    assert len(motion.path) == 180
    assert motion.path[19] < 0.01
    assert motion.path[-1] * WIDTH == pytest.approx(160 * 4, rel=0.1)
    assert (np.diff(motion.path) >= 0).all()
    np.testing.assert_allclose(motion.time_s, np.arange(180) / 30, atol=1e-3)
    sharp = np.arange(180) % 3 == 0
    assert motion.sharpness[sharp].min() > 2 * motion.sharpness[~sharp].max()


def test_sharp_frames_a_step_apart_are_taken(motion):
    picked = pick_frames(motion, step=0.075, max_frames=100)
    assert picked == sorted(set(picked))
    # A step is six frames, two of them sharp.
    assert all(index % 3 == 0 for index in picked)
    assert 25 <= len(picked) <= 28
    gaps = np.diff(motion.path[picked])
    assert gaps.min() > 0.3 * np.median(gaps)
    assert gaps.max() < 2 * np.median(gaps)
    assert sum(index < 20 for index in picked) <= 1
    assert len(pick_frames(motion, step=0.075, max_frames=9)) == 9


def test_by_time_frames_of_one_place_are_left_out(motion):
    picked = pick_frames(motion, step=0.05, max_frames=100, fps=6)
    assert sum(index < 20 for index in picked) == 1
    assert 32 <= len(picked) <= 34
    assert max(np.diff(motion.time_s[picked[1:]])) < 0.34
    assert len(pick_frames(motion, step=0.05, max_frames=5, fps=6)) <= 5


def test_long_steps_are_made_smaller_and_many_wider():
    motion = VideoMotion(time_s=np.arange(1000) / 30, sharpness=np.ones(1000), path=np.linspace(0, 0.2, 1000))
    assert len(pick_frames(motion, step=0.05, max_frames=100)) == 24
    fast = VideoMotion(time_s=motion.time_s, sharpness=motion.sharpness, path=np.linspace(0, 50, 1000))
    assert len(pick_frames(fast, step=0.05, max_frames=100)) == 100


def test_frames_are_written_by_their_index(film, tmp_path):
    names = extract_frames(film, tmp_path, [30, 42, 179])
    assert names == ["frame_000030.jpg", "frame_000042.jpg", "frame_000179.jpg"]
    expected = window(texture(), 10.0 + 11 * 4)
    assert np.abs(read_photo(tmp_path / names[0])[0].astype(int) - expected).mean() < 8


def test_films_of_one_place_and_broken_files_are_refused(tmp_path):
    still = np.repeat(texture()[:HEIGHT, :WIDTH][None].astype(np.uint8), 12, axis=0)
    write_video(tmp_path / "still.mp4", still)
    with pytest.raises(InputError, match="hardly moves"):
        measure_motion(tmp_path / "still.mp4")
    with pytest.raises(InputError, match="there is no video"):
        measure_motion(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(InputError, match="cannot be read as a video"):
        measure_motion(tmp_path / "text.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        for packet in stream.encode(silence):
            container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    with pytest.raises(InputError, match="no moving pictures, only sound"):
        measure_motion(tmp_path / "sound.mp4")


def write_stretched(path, count=60):
    """Pixels twice as wide as high, mirrored by the display matrix."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.sample_aspect_ratio = Fraction(2)
        stream.set_display_rotation(0, hflip=True)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(window(texture(), 10 + 4 * index)), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def test_frames_are_turned_and_made_square_as_the_video_says(tmp_path, caplog):
    write_stretched(tmp_path / "a.mp4")
    assert len(measure_motion(tmp_path / "a.mp4").path) == 60
    assert "2 times as wide as high" in caplog.text
    (name,) = extract_frames(tmp_path / "a.mp4", tmp_path, [30])
    found = read_photo(tmp_path / name)[0].astype(int)
    assert found.shape == (HEIGHT, 2 * WIDTH, 3)
    assert np.abs(found[:, ::2] - window(texture(), 130)[:, ::-1]).mean() < 12


def test_a_copy_that_was_cut_off_is_used_up_to_there_with_a_warning(tmp_path, caplog):
    write_stretched(tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) * 6 // 10])
    measured = measure_motion(tmp_path / "a.mp4")
    assert 5 < len(measured.path) < 50
    assert f"cut off after {len(measured.path)} of 60 frames" in caplog.text
    assert len(extract_frames(tmp_path / "a.mp4", tmp_path, [0, len(measured.path) - 1])) == 2


@pytest.mark.slow
@pytest.mark.scenes
def test_a_real_video_becomes_a_scene(scenes, tmp_path):
    from splat_recon import SfmConfig, read_scene, reconstruct

    (video,) = sorted((scenes / "videos").glob("*.mp4"))[:1]
    result = reconstruct(video, tmp_path / "scene", SfmConfig(max_frames=10, max_features=1500))
    assert len(result.registered) == result.num_photos == 10
    assert result.mean_reprojection_error_px < 1
    scene = read_scene(tmp_path / "scene", max_size=64)
    assert all(name.startswith("frame_") for name in scene.names)
    assert "frames of a video" in result.choices["matching"]
