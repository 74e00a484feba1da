"""Fixing videos and sequences: what is kept, stopping at any moment, going on, and bad input."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difix_model import DifixPipeline, InputError, ReferenceConfig, TemporalFilterConfig, VideoRun, plan_video
from difix_model.video.job import is_sequence
from difix_model.video.segments import SEGMENT_FRAMES
from support.frame_fixers import FrameFixer

av = pytest.importorskip("av")

from media_files import (  # noqa: E402
    VideoWriter,
    read_frames,
    read_info,
    read_timed_frames,
)


class Unchanged(FrameFixer):
    """Fixes nothing."""

    batch_size = 4

    def frames(self, images: list[np.ndarray], references: Any, strength: float) -> list[np.ndarray]:
        return images


class Darker(Unchanged):
    """Halves every frame, and counts."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.num_frames = 0
        self.stop_after = stop_after
        self.references: list[Any] = []

    def frames(self, images: list[np.ndarray], references: Any, strength: float) -> list[np.ndarray]:
        if self.stop_after is not None and self.num_frames + len(images) > self.stop_after:
            raise KeyboardInterrupt
        self.num_frames += len(images)
        self.references += references or [None] * len(images)
        return [image // 2 for image in images]


def noise(seed: int, width: int = 48, height: int = 32) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(30, 226, (height // 12, width // 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


CODED_DIFFERENCE = 2.0
"""Levels by which two codings of the same frame may differ in the mean; different frames differ by tens of levels."""


def write_clip(
    path: Path,
    pts: list[int],
    *,
    size: tuple[int, int] = (48, 32),
    time_base: Fraction = Fraction(1, 12800),
    sound: bool = True,
    title: str = "a flight",
) -> Path:
    """Write a clip with uneven frames, sound and a title."""
    with av.open(str(path), "w", options={"movie_timescale": "12800"} if path.suffix == ".mp4" else {}) as container:
        container.metadata["title"] = title
        pictures = container.add_stream("libx264", rate=25, options={"crf": "10"})
        pictures.width, pictures.height = size
        pictures.pix_fmt = "yuv420p"
        pictures.codec_context.time_base = time_base
        pictures.codec_context.colorspace = pictures.codec_context.color_primaries = 1
        pictures.codec_context.color_trc = pictures.codec_context.color_range = 1
        tone = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for index, when in enumerate(pts):
            picture = av.VideoFrame.from_ndarray(noise(index, *size), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=1, src_color_range=2, dst_color_range=1
            )
            picture.pts, picture.time_base = when, time_base
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode())
        if tone is not None:
            seconds = float(pts[-1] * time_base)
            samples = np.sin(np.arange(int(16000 * seconds)) / 8).astype(np.float32)[None]
            for start in range(0, samples.shape[1] - 1024, 1024):
                block = av.AudioFrame.from_ndarray(samples[:, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = 16000, start
                container.mux(tone.encode(block))
            container.mux(tone.encode())
    return path


def even(count: int) -> list[int]:
    return [512 * index for index in range(count)]


def times(path: Path) -> list[Fraction]:
    base = read_info(path).time_base
    return [frame.pts * base for frame in read_timed_frames(path)]


def sound_of(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.dts is not None]


def assert_same_film(path: Path, expected: Path) -> None:
    """The same sound, time stamps and pictures.

    Pictures are compared after decoding: once, on a busy machine, one frame of a run that another process had begun was
    coded in other bytes. The cause is not found.
    """
    with av.open(str(path)) as ours, av.open(str(expected)) as theirs:
        found, wanted = [[(p.pts, p.stream.type, bytes(p)) for p in film.demux() if p.size] for film in (ours, theirs)]
    assert [packet[:2] for packet in found] == [packet[:2] for packet in wanted]
    assert [packet for packet in found if packet[1] == "audio"] == [p for p in wanted if p[1] == "audio"]
    for frame, other in zip(pictures_of(path), pictures_of(expected), strict=True):
        assert np.abs(frame.astype(int) - other).mean() < CODED_DIFFERENCE


def pictures_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def fix(job: Any, fixer: Any, **options: Any) -> VideoRun:
    with VideoRun(job, fixer, **options) as run:
        for _ in run:
            pass
    return run


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv"])
def test_everything_but_the_pictures_stays(tmp_path: Path, suffix: str) -> None:
    uneven = [700, 1212, 2000, 2001, 5000, *(6000 + 512 * index for index in range(30))]
    source = write_clip(tmp_path / "in.mp4", uneven)
    job = plan_video(source, tmp_path / "deep" / f"out{suffix}")
    run = fix(job, Unchanged())
    assert run.notice is None
    before, after = read_info(source), read_info(job.out)
    assert (after.width, after.height, after.colors) == (before.width, before.height, before.colors)
    sound, sound_after = sound_of(source), sound_of(job.out)
    # Matroska counts in milliseconds, and starts at zero where sound starts before: pictures and sound stay together.
    matroska = suffix == ".mkv"
    tolerance, shift = (Fraction(1, 1000), sound_after[0][0] - sound[0][0]) if matroska else (Fraction(0), Fraction(0))
    assert len(times(source)) == len(uneven)
    for expected, found in zip(times(source), times(job.out), strict=True):
        assert abs(expected + shift - found) <= tolerance
    assert [data for _, data in sound_after] == [data for _, data in sound]
    for (expected, _), (found, _) in zip(sound, sound_after, strict=True):
        assert abs(expected + shift - found) <= tolerance
    with av.open(str(job.out)) as container:
        assert container.metadata["title"] == "a flight"
    assert [path.name for path in job.out.parent.iterdir()] == [job.out.name]


def test_colors_do_not_shift(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", even(6), size=(96, 64))
    fix(job := plan_video(source, tmp_path / "out.mp4"), Unchanged())
    pairs = zip(read_frames(source), read_frames(job.out), strict=True)
    difference = np.stack([after.astype(int) - before for before, after in pairs])
    assert np.abs(difference.mean(axis=(0, 1, 2))).max() < 0.5
    assert 10 * np.log10(255**2 / (difference**2).mean()) > 34


@pytest.mark.scenes
def test_a_real_clip_keeps_frames_times_and_sound(scenes: Path, tmp_path: Path) -> None:
    """The first second of a real flight, cut without coding it again."""
    source = tmp_path / "flight.mp4"
    with av.open(str(scenes / "videos" / "Colosseum.mp4")) as given, av.open(str(source), "w") as container:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.dts is not None and packet.dts * packet.time_base < 1:
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    fix(job := plan_video(source, tmp_path / "out.mp4"), Unchanged())
    assert times(job.out) == times(source)
    assert sound_of(job.out) == sound_of(source)
    pairs = list(zip(read_frames(source), read_frames(job.out), strict=True))
    difference = np.stack([after.astype(int) - before for before, after in pairs])
    assert np.abs(difference.mean(axis=(0, 1, 2))).max() < 0.3
    assert 10 * np.log10(255**2 / (difference**2).mean()) > 38


def test_sound_is_coded_again_where_it_must_be(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", even(30))
    run = fix(job := plan_video(source, tmp_path / "out.webm"), Unchanged())
    assert run.notice == "the sound (aac) was coded again as opus, for .webm files"
    with av.open(str(job.out)) as container:
        assert container.streams.video[0].codec_context.name == "vp9"
        assert container.streams.audio[0].codec_context.name == "opus"
        seconds = [float(frame.pts * frame.time_base) for frame in container.decode(audio=0)]
    assert seconds[-1] == pytest.approx(29 / 25, abs=0.15)
    assert len(times(job.out)) == 30
    back = fix(plan_video(job.out, tmp_path / "back.mp4"), Unchanged())
    assert back.notice is None or "coded again" in back.notice
    assert len(times(tmp_path / "back.mp4")) == 30


def test_a_turned_video_comes_out_upright(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "stored.mp4", even(3), sound=False)
    with av.open(str(source)) as given, av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.set_display_rotation(90)
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    fix(job := plan_video(tmp_path / "turned.mp4", tmp_path / "out.mp4"), Unchanged())
    with av.open(str(job.out)) as container:
        (picture, *_) = container.decode(video=0)
        assert (picture.width, picture.height, picture.rotation) == (32, 48, 0)
    expected = np.rot90(next(read_frames(source)))
    assert np.abs(next(read_frames(job.out)).astype(int) - expected).mean() < 4


def test_ctrl_c_leaves_a_playable_file_and_a_resumed_run_ends_the_same(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", even(3 * SEGMENT_FRAMES))
    options: dict[str, Any] = {"steady": TemporalFilterConfig()}
    whole = plan_video(source, tmp_path / "whole.mp4")
    fix(whole, Darker(), **options)
    job = plan_video(source, tmp_path / "out.mp4")
    stopped_at = SEGMENT_FRAMES + Darker.batch_size
    with pytest.raises(KeyboardInterrupt), VideoRun(job, Darker(stop_after=stopped_at), **options) as run:
        for _ in run:
            pass
    assert run.frames_written == stopped_at
    assert len(list(read_frames(job.out))) == stopped_at
    assert sound_of(job.out)[-1][0] <= Fraction(stopped_at, 25)
    assert len(sound_of(job.out)) > 10
    with pytest.raises(InputError, match="another strength"):
        VideoRun(job, Darker(), **options, strength=0.5, resume=True)
    again = Darker()
    resumed = fix(job, again, **options, resume=True)
    assert resumed.num_resumed == SEGMENT_FRAMES
    assert again.num_frames == 2 * SEGMENT_FRAMES
    assert times(job.out) == times(whole.out) == times(source)
    assert sound_of(job.out) == sound_of(source)
    for one, other in zip(read_frames(job.out), read_frames(whole.out), strict=True):
        # The same frames go into the coder; on a busy machine it now and then codes a few of them a little differently.
        assert np.abs(one.astype(int) - other).mean() < CODED_DIFFERENCE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "whole.mp4"]


KILLED_SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from difix_model.gate.verdict import NOT_ASKED
from difix_model.masks import FixedImage
from difix_model.video.fix import VideoRun
from difix_model.video.temporal_filter import TemporalFilterConfig
from difix_model.video.job import plan_video

class Fixer:
    batch_size, uses_reference, num_frames = 4, True, 0
    def fix_images(self, images, references=None, **options):
        self.num_frames += len(images)
        if self.num_frames > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return [FixedImage(image=image // 2, weight=None, verdict=NOT_ASKED) for image in images]

torch.set_num_threads(1)
job = plan_video(Path(sys.argv[1]), Path(sys.argv[2]))
with VideoRun(job, Fixer(), steady=TemporalFilterConfig()) as run:
    for _ in run:
        pass
"""


def run_script(*arguments: Any, script: str = KILLED_SCRIPT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_killed_process_can_be_resumed_to_the_same_result(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", even(2 * SEGMENT_FRAMES + 7))
    fix(plan_video(source, tmp_path / "whole.mp4"), Darker(), steady=TemporalFilterConfig())
    out = tmp_path / "out.mp4"
    killed = run_script(source, out, SEGMENT_FRAMES + 9)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    resumed = fix(plan_video(source, out), Darker(), steady=TemporalFilterConfig(), resume=True)
    assert resumed.num_resumed == SEGMENT_FRAMES
    assert_same_film(out, tmp_path / "whole.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "whole.mp4"]


def test_a_run_that_is_not_resumed_starts_afresh(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", even(SEGMENT_FRAMES + 4), sound=False)
    job = plan_video(source, tmp_path / "out.mp4")
    with pytest.raises(KeyboardInterrupt), VideoRun(job, Darker(stop_after=SEGMENT_FRAMES)) as run:
        for _ in run:
            pass
    assert job.work_folder.is_dir()
    fixer = Darker()
    fix(job, fixer)
    assert fixer.num_frames == SEGMENT_FRAMES + 4
    # Resuming what was never started is starting.
    assert fix(plan_video(source, tmp_path / "new.mp4"), Darker(), resume=True).num_resumed == 0


MEMORY_SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from difix_model.gate.verdict import NOT_ASKED
from difix_model.masks import FixedImage
from difix_model.video.fix import VideoRun
from difix_model.video.temporal_filter import TemporalFilterConfig
from media_files.video_writer import VideoWriter
from difix_model.video.job import plan_video

class Fixer:
    batch_size, uses_reference = 4, True
    def fix_images(self, images, references=None, **options):
        return [FixedImage(image=255 - image, weight=None, verdict=NOT_ASKED) for image in images]

def peak(count):
    source = Path(sys.argv[1]) / f"{count}.mp4"
    frame = np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
    with VideoWriter(source, rate=25) as writer:
        for i in range(count):
            writer.write(np.roll(frame, i, axis=1))
    with VideoRun(plan_video(source, source.with_name(f"out{count}.mp4")), Fixer()) as run:
        assert sum(run) == count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few = peak(60)
print(few, peak(210), frame_bytes := 240 * 384 * 3)
"""


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    result = run_script(tmp_path, script=MEMORY_SCRIPT)
    assert result.returncode == 0, result.stderr
    few, many, frame_bytes = map(int, result.stdout.split())
    # 150 more frames are 41 MB.
    assert (many - few) * 1024 < 40 * frame_bytes


FULL_DISK_SCRIPT = """
import resource, signal
from pathlib import Path
import sys
from difix_model.errors import InputError
from difix_model.gate.verdict import NOT_ASKED
from difix_model.masks import FixedImage
from difix_model.video.fix import VideoRun
from difix_model.video.job import plan_video

class Fixer:
    batch_size, uses_reference = 4, True
    def fix_images(self, images, references=None, **options):
        return [FixedImage(image=image, weight=None, verdict=NOT_ASKED) for image in images]

job = plan_video(Path(sys.argv[1]), Path(sys.argv[2]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    with VideoRun(job, Fixer()) as run:
        for _ in run:
            pass
except InputError as error:
    print(error)
    sys.exit(2)
"""


def test_a_full_disk_is_one_sentence_and_the_finished_part_is_kept(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", even(4 * SEGMENT_FRAMES), sound=False)
    fix(plan_video(source, tmp_path / "whole.mp4"), Unchanged())
    out = tmp_path / "out.mp4"
    # No file may grow beyond what one piece takes, so that pieces fit and the result does not.
    stopped = run_script(source, out, int((tmp_path / "whole.mp4").stat().st_size * 0.5), script=FULL_DISK_SCRIPT)
    assert stopped.returncode == 2, stopped.stderr
    assert "cannot write" in stopped.stdout
    assert "out.mp4.unfinished" in stopped.stdout
    assert "Traceback" not in stopped.stderr
    assert not out.exists()
    fix(plan_video(source, out), Unchanged(), resume=True)
    assert_same_film(out, tmp_path / "whole.mp4")


def test_a_video_that_is_cut_off_is_fixed_up_to_there(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", even(40), sound=False, time_base=Fraction(1, 12800))
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * 0.7)])
    job = plan_video(source, tmp_path / "out.mp4")
    with pytest.raises(InputError, match=r"in\.mkv is (cut off|damaged) after .*out\.mp4 holds the \d+ frames") as said:
        fix(job, Unchanged())
    kept = len(list(read_frames(job.out)))
    assert 10 < kept < 40
    assert f"holds the {kept} frames" in str(said.value)


def test_references_are_one_for_all_or_one_per_frame(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", even(5), sound=False)
    for index in range(6):
        path = tmp_path / "photos" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((10, 12, 3), 40 * index, dtype=np.uint8)).save(path)
    one = Darker()
    fix(plan_video(source, tmp_path / "a.mp4", tmp_path / "photos" / "3.png"), one)
    assert [np.asarray(several[0])[0, 0, 0] for several in one.references] == [120] * 5
    with pytest.raises(InputError, match=r"6 references in .* do not fit the 5 images"):
        plan_video(source, tmp_path / "b.mp4", tmp_path / "photos", references=ReferenceConfig(by="order"))
    (tmp_path / "photos" / "5.png").unlink()
    each = Darker()
    fix(plan_video(source, tmp_path / "b.mp4", tmp_path / "photos"), each)
    assert [np.asarray(several[0])[0, 0, 0] for several in each.references] == [0, 40, 80, 120, 160]
    without = Darker()
    without.uses_reference = False
    with pytest.raises(InputError, match="know no references: leave --reference out"):
        VideoRun(plan_video(source, tmp_path / "d.mp4", tmp_path / "photos"), without)


def write_sequence(folder: Path, count: int, *, alpha: bool = False) -> Path:
    folder.mkdir()
    for index in range(count):
        pixels = noise(index)
        if alpha:
            pixels = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 5 * index, dtype=np.uint8)], axis=-1)
        Image.fromarray(pixels).save(folder / f"frame_{index:03d}.png")
    return folder


def test_sequences_in_and_out(tmp_path: Path) -> None:
    frames = write_sequence(tmp_path / "frames", SEGMENT_FRAMES + 3, alpha=True)
    assert is_sequence(frames, tmp_path / "a.mp4")
    assert not is_sequence(frames, tmp_path / "folder")
    assert is_sequence(frames, tmp_path / "folder", steady=True)
    fix(job := plan_video(frames, tmp_path / "a.mp4", rate=12.5), Unchanged())
    assert times(job.out) == [Fraction(2 * index, 25) for index in range(SEGMENT_FRAMES + 3)]
    assert np.abs(next(read_frames(job.out)).astype(int) - noise(0)).mean() < 8
    fix(plan_video(job.out, tmp_path / "out" / "%04d.png"), Unchanged())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{index:04d}.png" for index in range(1, SEGMENT_FRAMES + 4)
    ]
    steady = plan_video(frames, tmp_path / "steadied")
    with pytest.raises(KeyboardInterrupt):
        fix(steady, Darker(stop_after=SEGMENT_FRAMES + 1), steady=TemporalFilterConfig())
    resumed = fix(steady, Darker(), steady=TemporalFilterConfig(), resume=True)
    assert resumed.num_resumed == SEGMENT_FRAMES
    fix(plan_video(frames, tmp_path / "again"), Darker(), steady=TemporalFilterConfig())
    for path in sorted((tmp_path / "again").iterdir()):
        image = Image.open(path)
        assert image.mode == "RGBA"
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(tmp_path / "steadied" / path.name)))
    assert not steady.work_folder.exists()


def test_what_cannot_be_done_is_said_before_anything_is_written(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", even(3), sound=False)
    frames = write_sequence(tmp_path / "frames", 2)
    (tmp_path / "none").mkdir()
    refused = [
        ((source, source), "would be overwritten"),
        ((frames, frames), "would be overwritten"),
        ((frames, frames / "frame_%03d.png"), "would be overwritten"),
        ((source, tmp_path / "out.png"), "one frame only"),
        ((source, tmp_path / "out.xyz"), "cannot hold the result"),
        ((source, tmp_path / "out.avi"), "AVI files have no time stamps"),
        ((tmp_path / "none", tmp_path / "out.mp4"), "holds no images"),
        ((source, tmp_path / "out.mp4", tmp_path / "absent"), "does not exist"),
        ((source, tmp_path / "out.mp4", tmp_path / "none"), "holds no images"),
        ((source, tmp_path / "out.mp4", source), "cannot be read as an image"),
    ]
    for arguments, words in refused:
        with pytest.raises(InputError, match=words):
            plan_video(*arguments)
    with pytest.raises(InputError, match="frame rate of its own"):
        plan_video(source, tmp_path / "out.mp4", rate=10)
    with pytest.raises(InputError, match="cannot write"):
        VideoRun(plan_video(source, source / "below.mp4"), Unchanged())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "in.mp4", "none"]


def test_a_damaged_work_folder_is_said(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", even(SEGMENT_FRAMES + 2), sound=False)
    job = plan_video(source, tmp_path / "out.mp4")
    with pytest.raises(KeyboardInterrupt):
        fix(job, Darker(stop_after=SEGMENT_FRAMES + 1))
    (job.work_folder / "job.json").write_text("{")
    with pytest.raises(InputError, match="damaged: delete it"):
        VideoRun(job, Darker(), resume=True)


def test_a_network_fixes_frames_as_it_fixes_images(tmp_path: Path, checkpoint_folder: Path) -> None:
    pipe = DifixPipeline.from_pretrained(checkpoint_folder, batch_size=2)
    with VideoWriter(tmp_path / "in.mp4", rate=12) as writer:
        for index in range(5):
            writer.write(noise(index, 48, 36)[:33, :33])
    Image.fromarray(noise(9, 20, 20)).save(tmp_path / "ref.png")
    job = plan_video(tmp_path / "in.mp4", tmp_path / "out", tmp_path / "ref.png")
    with VideoRun(job, pipe) as run:
        assert list(run) == [2, 2, 1]
    found = pipe.fix_images(list(read_frames(job.source)), [Image.open(tmp_path / "ref.png")] * 5)
    assert [each.proposed_change for each in run.verdicts] == [each.verdict.proposed_change for each in found]
    info = read_info(tmp_path / "out" / "in.mp4")
    assert (info.width, info.height, info.num_frames, info.rate) == (33, 33, 5, 12)
    expected = pipe(next(read_frames(job.source)), Image.open(tmp_path / "ref.png"))
    written = next(read_frames(job.out))
    # Frames of odd size are stored without color subsampling; a random network's pictures are hard to code.
    change = np.abs(expected.astype(int) - next(read_frames(job.source))).mean()
    assert np.abs(written.astype(int) - expected).mean() < 0.25 * change
