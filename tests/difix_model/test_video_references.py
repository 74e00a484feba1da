"""Which photo goes with which frame of a video or sequence: as for folders, and written beside the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difix_model import InputError, ReferenceConfig, VideoRun, plan_video
from difix_model.video.job import VideoJob
from support.frame_fixers import FrameFixer

pytest.importorskip("av")

from media_files import VideoWriter, read_frames

ORDER = (2, 0, 0, 1, 2, 1, 0)
"""Which photo each frame of the clip shows."""


class Seen(FrameFixer):
    """Fixes nothing, and remembers the mean of every reference it was given."""

    def __init__(self, stop_after: int | None = None, batch_size: int = 2) -> None:
        self.references: list[list[float]] = []
        self.stop_after = stop_after
        self.batch_size = batch_size

    def frames(self, images: list[np.ndarray], references: Any, strength: float) -> list[np.ndarray]:
        if self.stop_after is not None and len(self.references) >= self.stop_after:
            raise KeyboardInterrupt
        self.references += [[float(np.asarray(one).mean()) for one in several] for several in references]
        return images


def picture(number: int) -> Image.Image:
    coarse = np.random.default_rng(number).integers(30, 226, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((48, 32), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        picture(number).save(tmp_path / "photos" / f"p{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "clip.mp4", rate=10) as writer:
        for shown in ORDER:
            writer.write(np.asarray(picture(shown)))
    return tmp_path / "clip.mp4"


def run(job: VideoJob, fixer: Seen, **options: Any) -> VideoRun:
    with VideoRun(job, fixer, **options) as started:
        for _ in started:
            pass
    return started


def chosen(job: VideoJob) -> list[list[str]]:
    return [[path.stem for path in several] for several in job.references]


@pytest.mark.parametrize("kind", ["video", "sequence"])
def test_by_similarity_every_frame_gets_what_it_shows(kind: str, clip: Path, photos: Path, tmp_path: Path) -> None:
    source = clip
    if kind == "sequence":
        source = tmp_path / "frames"
        source.mkdir()
        for index, rgb in enumerate(read_frames(clip)):
            Image.fromarray(rgb).save(source / f"f{index:02d}.png")
    config = ReferenceConfig(by="similarity", num_references=2)
    job = plan_video(source, tmp_path / "out.mp4", photos, references=config)
    assert [names[0] for names in chosen(job)] == [f"p{shown}" for shown in ORDER]
    assert all(len(set(names)) == 2 for names in chosen(job))
    fixer = Seen()
    run(job, fixer)
    means = {f"p{number}": float(np.asarray(picture(number)).mean()) for number in range(4)}
    assert fixer.references == [[means[name] for name in names] for names in chosen(job)]
    written = json.loads((tmp_path / "out.references.json").read_text())
    assert written["method"] == "similarity"
    assert [entry["references"][0] for entry in written["images"]] == [f"photos/p{shown}.png" for shown in ORDER]
    assert all(entry["scores"][0] > 0.9 > entry["scores"][1] for entry in written["images"])
    # Four photos for seven frames, without names in common: similarity is what is left.
    assert chosen(plan_video(source, tmp_path / "out.mp4", photos)) == [names[:1] for names in chosen(job)]


def test_the_written_choice_can_be_changed_and_given_back(clip: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "%03d.png"
    run(plan_video(clip, out, photos), Seen())
    path = tmp_path / "deep" / "references.json"
    content = json.loads(path.read_text())
    content["images"][3]["references"] = ["../photos/p3.png", "../photos/p0.png"]
    path.write_text(json.dumps(content))
    again = plan_video(clip, out, path)
    assert chosen(again)[3] == ["p3", "p0"]
    assert [names for index, names in enumerate(chosen(again)) if index != 3] == [
        [f"p{shown}"] for index, shown in enumerate(ORDER) if index != 3
    ]
    assert again.choice_output is None, "what the user wrote stays"
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({f"clip_{number:06d}.png": "photos/p1.png" for number in range(1, 7)}))
    with pytest.raises(InputError, match=r"clip_000007.png is listed nowhere"):
        plan_video(clip, out, plain)


def test_by_pose_with_one_camera_per_frame(clip: Path, photos: Path, tmp_path: Path) -> None:
    def cameras(names: list[str], places: list[float]) -> str:
        poses = [[[1, 0, 0, -x], [0, 1, 0, 0], [0, 0, 1, 0]] for x in places]
        return json.dumps([{"image": name, "cam_from_world": T} for name, T in zip(names, poses, strict=True)])

    (photos / "cameras.json").write_text(cameras([f"p{number}.png" for number in range(4)], [0, 1, 2, 3]))
    path = tmp_path / "flight.json"
    # Not padded with zeros: by their letters, 10 would come before 9.
    path.write_text(cameras([str(8 + index) for index in range(7)], [0.1, 0.2, 1.2, 1.4, 1.9, 2.8, 5.0]))
    config = ReferenceConfig(by="pose", cameras=path)
    job = plan_video(clip, tmp_path / "out.mp4", photos, references=config)
    assert chosen(job) == [["p0"], ["p0"], ["p1"], ["p1"], ["p2"], ["p3"], ["p3"]]
    path.write_text(cameras(["0", "1"], [0, 1]))
    with pytest.raises(InputError, match=r"lists 2 cameras and names none of the 7 frames, such as clip_000001.png"):
        plan_video(clip, tmp_path / "out.mp4", photos, references=config)


def test_a_resumed_run_chooses_the_same(clip: Path, photos: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames" / "%03d.png"
    job = plan_video(clip, frames, photos)
    with pytest.raises(KeyboardInterrupt):
        run(job, Seen(stop_after=4))
    assert (tmp_path / "frames" / "references.json").is_file()
    fixer = Seen()
    run(plan_video(clip, frames, photos), fixer, resume=True)
    assert len(list((tmp_path / "frames").glob("*.png"))) == len(ORDER)
    other = plan_video(clip, frames, photos, references=ReferenceConfig(by="similarity", num_references=2))
    with pytest.raises(KeyboardInterrupt):
        run(job, Seen(stop_after=4))
    with pytest.raises(InputError, match="another reference"):
        run(other, Seen(), resume=True)


def test_results_never_go_over_photos(clip: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p1.png; .*p3.png would be overwritten"):
        plan_video(clip, photos / "p%d.png", photos)
    with pytest.raises(InputError, match="holds no reference named like"):
        plan_video(clip, tmp_path / "out.mp4", photos, references=ReferenceConfig(by="name"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        plan_video(clip, tmp_path / "out.mp4", tmp_path / "empty")
    with pytest.raises(InputError, match="does not exist"):
        plan_video(clip, tmp_path / "out.mp4", tmp_path / "absent")
