"""Run a pipeline over image files; videos and sequences are in `fix_video`."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from difix_model.errors import InputError
from difix_model.gate.verdict import FixVerdict
from difix_model.jobs.files import FixJob, open_image, save_image
from difix_model.masks import FixedImage
from difix_model.pipeline import DifixPipeline
from difix_model.references.choice import write_choice

T = TypeVar("T")


def run_job(job: FixJob, pipeline: DifixPipeline, *, strength: float = 1.0) -> Iterator[tuple[FixVerdict, ...]]:
    """Fix everything, a batch at a time, and write each result as soon as it is there.

    Args:
        job: From `plan_job`.
        strength: Share of the fix, in [0, 1].

    Yields:
        What became of each image that was finished since the last time.

    Raises:
        InputError: If a file turns out to be damaged, the result cannot be written, or the pipeline knows no
            references and the job has some.
    """
    if any(job.references) and not pipeline.uses_reference:
        raise InputError("these weights know no references: leave --reference out, or use others with --model")
    if job.choice is not None and job.choice_output is not None:
        write_choice(job.choice_output, job.choice)
    num_finished = 0
    for batch in _batches(range(len(job.inputs)), pipeline.batch_size):
        try:
            results = _fixed(job, batch, pipeline, strength)
            for number, result in zip(batch, results, strict=True):
                _save(job, number, result)
                num_finished += 1
        except (InputError, MemoryError) as error:
            said = str(error) if isinstance(error, InputError) else f"out of memory at {_names(job, batch)}"
            kept = f"; the {num_finished} images finished before are kept" if num_finished else ""
            raise InputError(f"{said}{kept}") from error
        yield tuple(result.verdict for result in results)


def _fixed(job: FixJob, batch: Sequence[int], pipeline: DifixPipeline, strength: float) -> list[FixedImage]:
    images = [open_image(job.inputs[number]) for number in batch]
    references = [[open_image(path) for path in job.references[number]] for number in batch]
    masks, alphas = (
        [None if (path := paths[number]) is None else open_image(path) for number in batch] if paths else None
        for paths in (job.masks, job.alphas)
    )
    try:
        weighted = any(job.weight_outputs[number] is not None for number in batch)
        return pipeline.fix_images(
            images, references, strength=strength, mask=masks, alpha=alphas, with_weight=weighted
        )
    except InputError as error:
        raise InputError(f"{_names(job, batch)}: {error}") from error


def _save(job: FixJob, number: int, result: FixedImage) -> None:
    save_image(job.outputs[number], result.image)
    weight_out = job.weight_outputs[number]
    if weight_out is not None and result.weight is not None:
        save_image(weight_out, Image.fromarray(np.round(result.weight * 255).astype(np.uint8)))


def _names(job: FixJob, batch: Sequence[int]) -> str:
    return ", ".join(job.inputs[number].name for number in batch)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
