"""Which image files belong together, what is refused before anything is written, and results that survive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difix_model import InputError, plan_job
from difix_model.jobs.files import open_image, save_image


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def names_of(references: tuple[tuple[Path, ...], ...]) -> list[list[str]]:
    return [[path.name for path in several] for several in references]


def test_references_are_found_by_name_then_by_order(tmp_path: Path) -> None:
    images = [write_image(tmp_path / "in" / name) for name in ("b.png", "a.jpg")]
    for name in ("named/a.png", "named/b.png", "named/c.png", "ordered/0.png", "ordered/1.png"):
        write_image(tmp_path / name)
    by_name = plan_job(tmp_path / "in", tmp_path / "out", tmp_path / "named")
    assert by_name.inputs == (images[1], images[0])
    assert names_of(by_name.references) == [["a.png"], ["b.png"]]
    by_order = plan_job(tmp_path / "in", tmp_path / "out", tmp_path / "ordered")
    assert names_of(by_order.references) == [["0.png"], ["1.png"]]
    one = plan_job(tmp_path / "in", tmp_path / "out", images[0])
    assert one.references == ((images[0],), (images[0],))


def test_what_cannot_be_done_is_said_before_anything_is_written(tmp_path: Path) -> None:
    image = write_image(tmp_path / "in" / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no image")
    (tmp_path / "broken" / "x.png").parent.mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"\x89PNG nothing")
    refused = [
        ((tmp_path / "absent", tmp_path / "out"), "does not exist"),
        ((tmp_path / "empty", tmp_path / "out"), "no images"),
        ((tmp_path / "text.txt", tmp_path / "out"), "neither an image"),
        ((tmp_path / "broken", tmp_path / "out"), "cannot be read"),
        ((image, image), "overwritten"),
        ((tmp_path / "in", tmp_path / "in"), "overwritten"),
        ((image, tmp_path / "out.mp4"), "cannot hold"),
        ((tmp_path / "in", image), "is a file"),
        ((image, tmp_path / "out", tmp_path / "absent"), "reference .* does not exist"),
    ]
    for arguments, message in refused:
        with pytest.raises(InputError, match=message):
            plan_job(*arguments)
    assert not (tmp_path / "out").exists()


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys, difix_model.jobs.files, difix_model.pairs, difix_model.config; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_images_survive_saving(tmp_path: Path) -> None:
    image = open_image(write_image(tmp_path / "a.png"))
    save_image(tmp_path / "deep" / "b.png", image)
    assert np.array_equal(np.asarray(open_image(tmp_path / "deep" / "b.png")), np.asarray(image))
    save_image(tmp_path / "deep" / "c.jpg", image.convert("RGBA"))
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["b.png", "c.jpg"]
    with pytest.raises(InputError, match="cannot write"):
        save_image(tmp_path / "a.png" / "below.png", image)


def test_links_and_other_spellings_do_not_hide_that_an_input_would_be_overwritten(tmp_path: Path) -> None:
    image = write_image(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    os.link(image, out / "a.png")
    with pytest.raises(InputError, match="overwritten"):
        plan_job(tmp_path / "in", out)
    (out / "a.png").unlink()
    (out / "a.png").symlink_to(image)
    with pytest.raises(InputError, match="overwritten"):
        plan_job(image, out / "a.png")
    (out / "a.png").unlink()
    assert plan_job(tmp_path / "in", out).outputs == (out / "a.png",)
    (tmp_path / "same").symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match="overwritten"):
        plan_job(tmp_path / "in", tmp_path / "same")
    photo = write_image(tmp_path / "photos" / "a.png")
    with pytest.raises(InputError, match=r"photos/a\.png would be overwritten"):
        plan_job(tmp_path / "in", tmp_path / "photos", photo)


def test_two_results_never_share_a_file(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        write_image(tmp_path / "in" / name)
    assert len(plan_job(tmp_path / "in", tmp_path / "out").outputs) == 2
    with pytest.raises(InputError, match=r"one file: .*a\.png"):
        plan_job(tmp_path / "in", tmp_path / "out", write_mask=tmp_path / "weights")


def test_broken_files_are_all_named_or_left_out(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        write_image(tmp_path / "in" / name)
        write_image(tmp_path / "photos" / f"photo_{name}", seed=ord(name[0]))
    (tmp_path / "in" / "b.png").write_bytes(b"")
    (tmp_path / "in" / "d.png").write_bytes((tmp_path / "in" / "c.png").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"b\.png cannot be read.*d\.png cannot be read"):
        plan_job(tmp_path / "in", tmp_path / "out")
    job = plan_job(tmp_path / "in", tmp_path / "out", tmp_path / "photos", skip_broken=True)
    assert [path.name for path in job.inputs] == ["a.png", "c.png"]
    # The order counts among all files.
    assert names_of(job.references) == [["photo_a.png"], ["photo_c.png"]]
    assert len(job.skipped) == 2
    (tmp_path / "in" / "a.png").unlink()
    (tmp_path / "in" / "c.png").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        plan_job(tmp_path / "in", tmp_path / "out", skip_broken=True)


def test_resuming_keeps_whole_results_only(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
        write_image(tmp_path / "in" / name)
    whole = write_image(tmp_path / "out" / "a.png")
    write_image(tmp_path / "out" / "b.png", size=(12, 8))
    (tmp_path / "out" / "c.png").write_bytes(whole.read_bytes()[:-30])
    os.utime(write_image(tmp_path / "out" / "d.png"), (1, 1))
    job = plan_job(tmp_path / "in", tmp_path / "out", resume=True)
    assert [path.name for path in job.inputs] == ["b.png", "c.png", "d.png", "e.png"]
    assert job.finished == (whole,)
    assert len(plan_job(tmp_path / "in", tmp_path / "out").inputs) == 5


def test_masks_belong_by_name_and_have_their_image_s_shape(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name)
        write_image(tmp_path / "masks" / name, size=(48, 32))
    job = plan_job(tmp_path / "in", tmp_path / "out", mask=tmp_path / "masks", alpha=tmp_path / "masks" / "a.png")
    assert [path.name for path in job.masks if path] == ["a.png", "b.png"]
    assert [path.name for path in job.alphas if path] == ["a.png", "a.png"]
    write_image(tmp_path / "masks" / "b.png", size=(16, 24))
    with pytest.raises(InputError, match=r"b\.png is 16x24, b\.png is 24x16"):
        plan_job(tmp_path / "in", tmp_path / "out", mask=tmp_path / "masks")
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(InputError, match=r"no mask named like b\.png"):
        plan_job(tmp_path / "in", tmp_path / "out", mask=tmp_path / "masks")
