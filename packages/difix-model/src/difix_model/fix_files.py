"""Run a pipeline over files: images in, images out; a video in, a video out."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch
from PIL import Image

from difix_model.device import chosen_device
from difix_model.errors import InputError
from difix_model.files import FixJob, open_image, save_image
from difix_model.pipeline import DifixPipeline
from difix_model.video import Frame, VideoWriter, read_frames, read_info

T = TypeVar("T")


def open_pipeline(
    model: str,
    *,
    base: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int | None = None,
) -> DifixPipeline:
    """Load weights in the precision and batch size that suit the device: bfloat16 and 4 on CUDA, float32 and 1 else.

    Raises:
        InputError: If the device or the weights cannot be used.
    """
    on_gpu = chosen_device(device) == "cuda"
    return DifixPipeline.from_pretrained(
        model,
        base=base,
        device="cuda" if on_gpu else "cpu",
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        batch_size=batch_size or (4 if on_gpu else 1),
    )


def num_items(job: FixJob) -> int | None:
    """Return the number of images, or of frames if the video tells."""
    return read_info(job.inputs[0]).num_frames if job.is_video else len(job.inputs)


def run_job(job: FixJob, pipeline: DifixPipeline, *, strength: float = 1.0) -> Iterator[int]:
    """Fix everything, a batch at a time, and write each result as soon as it is there.

    Args:
        job: From `plan_job`.
        pipeline: What fixes.
        strength: Share of the fix, in [0, 1].

    Yields:
        How many images or frames were finished since the last time.

    Raises:
        InputError: If a file turns out to be damaged, the result cannot be written, or the pipeline knows no
            references and the job has some.
    """
    if any(job.references) and not pipeline.uses_reference:
        raise InputError("these weights know no references: leave --reference out, or use others with --model")
    if job.is_video:
        yield from _run_video(job, pipeline, strength)
        return
    items = zip(job.inputs, job.references, job.outputs, strict=True)
    for batch in _batches(items, pipeline.batch_size):
        images = [open_image(source) for source, _, _ in batch]
        references = [[open_image(path) for path in several] for _, several, _ in batch]
        for fixed, (_, _, out) in zip(pipeline(images, references, strength=strength), batch, strict=True):
            save_image(out, fixed)
        yield len(batch)


def _run_video(job: FixJob, pipeline: DifixPipeline, strength: float) -> Iterator[int]:
    source, out = job.inputs[0], job.outputs[0]
    info = read_info(source)
    num_references = len(job.references)
    if num_references > 1 and info.num_frames not in (None, num_references):
        raise InputError(
            f"{source} has {info.num_frames} frames and there are {num_references} references: "
            "give one for all, or one per frame"
        )
    frames = _with_references(source, job.references)
    with VideoWriter(out, rate=info.rate) as writer:
        for batch in _batches(frames, pipeline.batch_size):
            images, references = [frame for frame, _ in batch], [reference for _, reference in batch]
            for fixed in pipeline(images, references, strength=strength):
                writer.write(fixed)
            yield len(batch)


def _with_references(source: Path, references: Sequence[Sequence[Path]]) -> Iterator[tuple[Frame, list[Image.Image]]]:
    """Pair every frame with the references of all, or with its own."""
    shared = [open_image(path) for path in references[0]] if len(references) == 1 else None
    for number, frame in enumerate(read_frames(source)):
        if shared is None and number >= len(references):
            raise InputError(f"{source} has more frames than there are references ({len(references)})")
        yield frame, [open_image(path) for path in references[number]] if shared is None else shared


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
