"""Pairs become the tensors of the released code; batches are seeded, complete and of one number of views."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from difix_train import DataConfig, Draw, InputError, Pair, PairDataset
from difix_train.dataset import unit_range
from difix_train.sampler import PairSampler, wrong_reference_index

PROMPT = "remove degradation"


def image_with(value: int, height: int = 16, width: int = 24) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def pairs_with_values(num_references: list[int]) -> list[Pair]:
    return [
        Pair(
            id=f"pair_{index}",
            image=image_with(10 * index),
            clean=image_with(10 * index + 1),
            references=tuple(image_with(10 * index + 2 + r) for r in range(count)),
            prompt=PROMPT,
        )
        for index, count in enumerate(num_references)
    ]


def bytes_of(x: torch.Tensor) -> int:
    return round(float((x[0, 0, 0] + 1) * 127.5))


@pytest.mark.reference
def test_items_equal_those_of_the_released_dataset(reference_data: Path) -> None:
    expected = load_file(reference_data / "dataset" / "dataset.safetensors")
    sizes = json.loads((reference_data / "data_info.json").read_text())["dataset_sizes"]
    for split, (height, width) in sizes.items():
        config = DataConfig(height=height, width=width, cache=True)
        dataset = PairDataset.from_file(reference_data / "dataset" / "data.json", split, config)
        for index, pair in enumerate(dataset.pairs):
            for _ in range(2):  # The second time from the cache.
                x, x_clean = dataset.sample(Draw(index=index, reference_index=index if pair.references else None))
                key = f"{split}.{pair.id}"
                torch.testing.assert_close(x, expected[f"{key}.conditioning_pixel_values"], atol=1e-5, rtol=0)
                torch.testing.assert_close(x_clean, expected[f"{key}.output_pixel_values"], atol=1e-5, rtol=0)


def test_grayscale_and_alpha_files_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (16, 8), 100).save(tmp_path / "gray.png")
    Image.new("RGBA", (16, 8), (1, 2, 3, 128)).save(tmp_path / "alpha.png")
    pair = Pair(id="a", image=tmp_path / "gray.png", clean=tmp_path / "alpha.png", references=(), prompt=PROMPT)
    x, x_clean = PairDataset([pair], DataConfig(height=8, width=16)).sample(Draw(index=0, reference_index=None))
    assert bytes_of(x[0]) == 100
    assert bytes_of(x_clean[0]) == 1


def test_all_missing_files_are_listed_at_once(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "there.png")
    entry = {"image": "there.png", "target_image": "gone_1.png", "ref_image": "gone_2.png", "prompt": PROMPT}
    (tmp_path / "pairs.json").write_text(
        json.dumps({"train": {"a": entry}, "test": {"b": entry | {"image": "gone_3.png"}}})
    )
    with pytest.raises(InputError) as error:
        PairDataset.from_file(tmp_path / "pairs.json", "train", DataConfig())
    assert all(name in str(error.value) for name in ("gone_1.png", "gone_2.png", "gone_3.png"))


def test_a_split_without_pairs_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "there.png")
    entry = {"image": "there.png", "target_image": "there.png", "prompt": PROMPT}
    (tmp_path / "pairs.json").write_text(json.dumps({"train": {"a": entry}}))
    with pytest.raises(InputError, match=r"no split 'test' .*train"):
        PairDataset.from_file(tmp_path / "pairs.json", "test", DataConfig())


def test_crops_show_the_same_window_in_every_view() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
    pair = Pair(id="a", image=image, clean=image, references=(image,), prompt=PROMPT)
    dataset = PairDataset([pair], DataConfig(height=16, width=24, framing="crop"))
    for top, left in ((0.0, 0.0), (1.0, 1.0), (0.3, 0.7)):
        x, x_clean = dataset.sample(Draw(index=0, reference_index=0, top=top, left=left, flip_horizontal=True))
        row, column = round(top * 24), round(left * 24)
        window = image[row : row + 16, column : column + 24][:, ::-1]
        expected = torch.from_numpy(window.copy()).permute(2, 0, 1).float() / 127.5 - 1
        for view in (*x, *x_clean):
            torch.testing.assert_close(view, expected)


def test_images_that_cannot_be_cropped_are_all_listed() -> None:
    pairs = [
        Pair(id="small", image=image_with(0), clean=image_with(0), references=(), prompt=PROMPT),
        Pair(id="uneven", image=image_with(0, 40, 40), clean=image_with(0, 40, 48), references=(), prompt=PROMPT),
    ]
    with pytest.raises(InputError) as error:
        PairDataset(pairs, DataConfig(height=32, width=32, framing="crop"))
    assert "small: an image of 24x16" in str(error.value)
    assert "uneven: image is 40x40 but target_image is 48x40" in str(error.value)


def test_validation_sees_whole_frames_of_odd_size() -> None:
    pair = Pair(
        id="a", image=image_with(1, 21, 30), clean=image_with(2, 21, 30), references=(image_with(3, 50, 60),), prompt=""
    )
    dataset = PairDataset([pair], DataConfig(height=8, width=8, framing="crop"))
    x, x_clean = dataset.whole_sample(Draw(index=0, reference_index=0))
    assert x.shape == x_clean.shape == (2, 3, 16, 24)
    assert [bytes_of(view) for view in (*x, *x_clean)] == [1, 3, 2, 3]


def test_mixed_numbers_of_views_form_pure_batches_and_lose_nothing() -> None:
    dataset = PairDataset(pairs_with_values([1, 0, 1, 0, 2, 1]), DataConfig(height=16, width=24))
    sampler = PairSampler(dataset, batch_size=2, seed=4)
    seen: Counter[str] = Counter()
    for _ in range(60):
        draws = sampler.next_batch()
        batch, in_bytes = dataset.batch(draws), dataset.batch(draws, as_bytes=True)
        assert batch.x.shape == batch.x_clean.shape
        assert in_bytes.x.dtype == in_bytes.x_clean.dtype == torch.uint8
        assert torch.equal(unit_range(in_bytes.x), batch.x)
        assert torch.equal(unit_range(in_bytes.x_clean), batch.x_clean)
        seen.update(batch.ids)
        for pair_id, x, x_clean in zip(batch.ids, batch.x, batch.x_clean, strict=True):
            index = int(pair_id.removeprefix("pair_"))
            assert len(x) == dataset.pairs[index].num_views
            assert [bytes_of(view) for view in x] == [10 * index, *(10 * index + 2 + r for r in range(len(x) - 1))]
            assert [bytes_of(view) for view in x_clean[:1]] == [10 * index + 1]
    waiting = Counter(f"pair_{draw['index']}" for draw in sampler.state()["waiting"])
    left = Counter(f"pair_{index}" for index in sampler.state()["order"])
    assert len(set((seen + waiting + left).values())) == 1


def test_sampler_continues_where_its_state_was_taken() -> None:
    config = DataConfig(height=16, width=24, drop_reference_prob=0.4, wrong_reference_prob=0.4, vertical_flip_prob=0.5)
    dataset = PairDataset(pairs_with_values([1, 0, 1, 1, 1]), config)
    sampler, other = (PairSampler(dataset, batch_size=3, seed=seed) for seed in (1, 2))
    for _ in range(5):
        sampler.next_batch()
    other.load_state(json.loads(json.dumps(sampler.state())))
    assert [sampler.next_batch() for _ in range(12)] == [other.next_batch() for _ in range(12)]


@pytest.mark.parametrize(("dropped", "wrong"), [(1.0, 0.0), (0.0, 1.0), (0.25, 0.25)])
def test_references_are_dropped_and_swapped_as_often_as_asked(dropped: float, wrong: float) -> None:
    config = DataConfig(height=16, width=24, drop_reference_prob=dropped, wrong_reference_prob=wrong)
    sampler = PairSampler(PairDataset(pairs_with_values([1] * 8), config), batch_size=1, seed=0)
    draws = [sampler.next_batch()[0] for _ in range(800)]
    without = sum(draw.reference_index is None for draw in draws) / len(draws)
    swapped = sum(draw.reference_index not in (None, draw.index) for draw in draws) / len(draws)
    assert without == pytest.approx(dropped, abs=0.05)
    assert swapped == pytest.approx(wrong, abs=0.05)


def test_a_wrong_reference_is_never_the_own_one() -> None:
    shared = image_with(9)
    pairs = [
        Pair(id=str(i), image=image_with(0), clean=image_with(0), references=(shared,), prompt="") for i in range(3)
    ]
    dataset = PairDataset(pairs, DataConfig(height=16, width=24))
    assert wrong_reference_index(dataset, 1, 0.5) == 1  # All the same: there is no wrong one.
    other = Pair(id="3", image=image_with(0), clean=image_with(0), references=(image_with(8),), prompt="")
    dataset = PairDataset([*pairs, other], DataConfig(height=16, width=24))
    assert {wrong_reference_index(dataset, 1, position / 10) for position in range(10)} == {3}


@pytest.mark.parametrize("values", [{"height": 20}, {"width": 0}, {"drop_reference_prob": 1.5}, {"num_workers": -1}])
def test_bad_values_name_their_field(values: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        DataConfig(**values)
