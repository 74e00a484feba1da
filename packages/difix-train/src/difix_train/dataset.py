"""Pairs as tensors: files or arrays in, [-1, 1] batches out. What is random about a sample stands in its Draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from difix_model.pairs import PairRecord, read_pairs
from difix_train.config import SIZE_MULTIPLE, DataConfig
from difix_train.errors import InputError, first_problems

RgbU8 = UInt8[np.ndarray, "_h _w 3"]
Views = Float[Tensor, "b v c=3 h w"] | UInt8[Tensor, "b v c=3 h w"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pair:
    """A degraded image, the clean one, and references; each a file or an array of bytes."""

    id: str
    image: Path | RgbU8
    clean: Path | RgbU8
    references: tuple[Path | RgbU8, ...]
    prompt: str

    @property
    def num_views(self) -> int:
        """Views of the full sample: the image and its references."""
        return 1 + len(self.references)


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One sample with every random decision about it: the dataset turns a Draw into tensors deterministically."""

    index: int
    """Which pair."""

    reference_index: int | None
    """Whose references are shown: normally ``index``; another pair's for a wrong reference; None for none."""

    top: float = 0.5
    """Vertical position of the crop window, 0 at the top and 1 at the bottom."""

    left: float = 0.5
    """Horizontal position of the crop window, 0 at the left and 1 at the right."""

    flip_horizontal: bool = False
    flip_vertical: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Samples of equal size and equal number of views. View 0 is the image to fix, then references."""

    x: Views
    """Network input in [-1, 1], or its bytes: see `unit_range`."""

    x_clean: Views
    """Desired output in the same form: the clean image, then the references as they are."""

    ids: tuple[str, ...]
    prompts: tuple[str, ...]


class PairDataset:
    """Pairs of one split, checked completely before the first is used.

    Raises:
        InputError: There is no pair, or images do not fit the framing; all problems are listed.
    """

    def __init__(self, pairs: Sequence[Pair], config: DataConfig) -> None:
        if not pairs:
            raise InputError("there is no pair to train on: the split is empty")
        self.pairs = tuple(pairs)
        self.config = config
        self._cache: dict[Path, np.ndarray] = {}
        if config.framing == "crop":
            self._check_crops()

    @classmethod
    def from_records(cls, records: Sequence[PairRecord], split: str, config: DataConfig) -> PairDataset:
        """The pairs of ``split`` among ``records``."""
        chosen = [record for record in records if record.split == split]
        if not chosen:
            splits = ", ".join(sorted({record.split for record in records})) or "none"
            raise InputError(f"the pairs file has no split '{split}' (it has: {splits})")
        return cls([pair_of(record) for record in chosen], config)

    @classmethod
    def from_file(cls, path: Path, split: str, config: DataConfig) -> PairDataset:
        """The pairs of ``split`` in a pairs JSON file.

        Raises:
            InputError: The file or any image it names is missing or malformed; all problems are listed.
        """
        return cls.from_records(read_pairs(path), split, config)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The different prompts, sorted."""
        return tuple(sorted({pair.prompt for pair in self.pairs}))

    def num_views(self, draw: Draw) -> int:
        """Views that ``draw`` will have."""
        return 1 if draw.reference_index is None else self.pairs[draw.reference_index].num_views

    def sample(self, draw: Draw) -> tuple[Float[Tensor, "v c=3 h w"], Float[Tensor, "v c=3 h w"]]:
        """Input and clean views of a draw at training size, both in [-1, 1]."""
        image, clean = self._framed_views(draw)
        return unit_range(image), unit_range(clean)

    def whole_sample(self, draw: Draw) -> tuple[Float[Tensor, "v c=3 h w"], Float[Tensor, "v c=3 h w"]]:
        """Input and clean views as validation sees them: resized like in training, or whole frames at native size.

        A native frame loses at most 7 pixels at its right and lower border; a reference of another size is resized.
        """
        if self.config.framing == "resize":
            return self._stacked(draw, self._resized)
        height, width = (
            length - length % SIZE_MULTIPLE for length in self._rgb_u8(self.pairs[draw.index].image).shape[:2]
        )

        def native(rgb_u8: RgbU8) -> Float[Tensor, "c=3 h w"]:
            if rgb_u8.shape[0] - height in range(SIZE_MULTIPLE) and rgb_u8.shape[1] - width in range(SIZE_MULTIPLE):
                return to_x(rgb_u8[:height, :width])
            return resized(to_x(rgb_u8), height, width)

        return self._stacked(draw, native)

    def batch(self, draws: Sequence[Draw], *, as_bytes: bool = False) -> Batch:
        """The samples of ``draws``, which must have equal numbers of views.

        Args:
            as_bytes: Leave images that no resizing has made floats as bytes, where all of the batch are: to send them
                to a GPU, and turn them into floats there.
        """
        samples = [self._framed_views(draw) for draw in draws]
        if not as_bytes or any(x.is_floating_point() for views in samples for x in views):
            samples = [(unit_range(x), unit_range(x_clean)) for x, x_clean in samples]
        pairs = [self.pairs[draw.index] for draw in draws]
        return Batch(
            x=torch.stack([x for x, _ in samples]),
            x_clean=torch.stack([x_clean for _, x_clean in samples]),
            ids=tuple(pair.id for pair in pairs),
            prompts=tuple(pair.prompt for pair in pairs),
        )

    def _framed_views(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Input and clean views of a draw: bytes, or floats in [-1, 1] where an image had to be resized."""
        return self._stacked(draw, lambda rgb_u8: self._framed(rgb_u8, draw))

    def _stacked(self, draw: Draw, frame: Callable[[RgbU8], Tensor]) -> tuple[Tensor, Tensor]:
        pair = self.pairs[draw.index]
        shown = () if draw.reference_index is None else self.pairs[draw.reference_index].references
        references = [frame(self._rgb_u8(reference)) for reference in shown]
        image, clean = frame(self._rgb_u8(pair.image)), frame(self._rgb_u8(pair.clean))
        views = [image, clean, *references]
        if any(view.is_floating_point() for view in views):
            image, clean, *references = map(unit_range, views)
        return torch.stack([image, *references]), torch.stack([clean, *references])

    def _framed(self, rgb_u8: RgbU8, draw: Draw) -> Tensor:
        height, width = self.config.height, self.config.width
        if self.config.framing == "crop":
            top = round(draw.top * (rgb_u8.shape[0] - height))
            left = round(draw.left * (rgb_u8.shape[1] - width))
            rgb_u8 = rgb_u8[top : top + height, left : left + width]
        x = chw_u8(rgb_u8) if rgb_u8.shape[:2] == (height, width) else self._resized(rgb_u8)
        flipped = [axis for axis, flip in ((-1, draw.flip_horizontal), (-2, draw.flip_vertical)) if flip]
        return x.flip(flipped) if flipped else x

    def _resized(self, rgb_u8: RgbU8) -> Float[Tensor, "c=3 h w"]:
        return resized(to_x(rgb_u8), self.config.height, self.config.width)

    def _rgb_u8(self, source: Path | RgbU8) -> RgbU8:
        if isinstance(source, np.ndarray):
            return source
        if source in self._cache:
            return self._cache[source]
        rgb_u8 = read_rgb_u8(source)
        if self.config.cache:
            self._cache[source] = rgb_u8
        return rgb_u8

    def _check_crops(self) -> None:
        problems = []
        smallest = (self.config.height, self.config.width)
        for pair in self.pairs:
            sizes = [image_size(source) for source in (pair.image, pair.clean, *pair.references)]
            if sizes[0] != sizes[1]:
                problems.append(f"{pair.id}: image is {_shown(sizes[0])} but target_image is {_shown(sizes[1])}")
            problems += [
                f"{pair.id}: an image of {_shown(size)} is smaller than the crop of {_shown(smallest)}"
                for size in sorted(set(sizes))
                if size[0] < smallest[0] or size[1] < smallest[1]
            ]
        if problems:
            raise InputError(
                "these pairs cannot be cropped, choose a smaller crop or the framing 'resize': "
                + first_problems(problems)
            )


def pair_of(record: PairRecord) -> Pair:
    """The training pair of a record of the pairs file."""
    references = () if record.ref_image is None else (Path(record.ref_image),)
    return Pair(
        id=record.id,
        image=Path(record.image),
        clean=Path(record.target_image),
        references=references,
        prompt=record.prompt,
    )


def read_rgb_u8(path: Path) -> RgbU8:
    """An image file as RGB bytes, whatever its mode."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for broken PNG chunks.
        raise InputError(f"{path} cannot be read as an image: {error}") from error


def image_size(source: Path | RgbU8) -> tuple[int, int]:
    """Height and width; of a file only the header is read."""
    if isinstance(source, np.ndarray):
        return source.shape[0], source.shape[1]
    try:
        with Image.open(source) as image:
            return image.height, image.width
    except (OSError, SyntaxError) as error:
        raise InputError(f"{source} cannot be read as an image: {error}") from error


def to_x(rgb_u8: RgbU8) -> Float[Tensor, "c=3 h w"]:
    """Bytes as a tensor in [-1, 1], channels first."""
    return unit_range(chw_u8(rgb_u8))


def chw_u8(rgb_u8: RgbU8) -> UInt8[Tensor, "c=3 h w"]:
    """Bytes as a tensor of bytes, channels first."""
    return torch.from_numpy(np.array(rgb_u8.transpose(2, 0, 1), order="C"))


def unit_range(x: Float[Tensor, "*shape"] | UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bytes in [-1, 1]; floats are there."""
    return x if x.is_floating_point() else x.float() / 127.5 - 1.0


def resized(x: Float[Tensor, "c h w"], height: int, width: int) -> Float[Tensor, "c h2 w2"]:
    """Bilinear with antialiasing; the aspect is not kept."""
    if x.shape[-2:] == (height, width):
        return x
    return torch.nn.functional.interpolate(
        x[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )[0]


def _shown(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
