import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat_recon import InputError, make_split

NAMES = [f"photo_{index:03d}.jpg" for index in range(20)]


def write_splits(folder, **content):
    path = folder / "splits.json"
    path.write_text(json.dumps(content))
    return path


def test_every_nth_view_tests():
    split = make_split(NAMES[::-1], "every:8")
    assert split.test == ("photo_000.jpg", "photo_008.jpg", "photo_016.jpg")
    assert len(split.train) == 17


@given(st.sets(st.text(min_size=1, max_size=6), min_size=2, max_size=30), st.integers(2, 9))
def test_sides_are_disjoint_and_complete(names, test_every):
    split = make_split(names, f"every:{test_every}")
    assert not set(split.train) & set(split.test)
    assert set(split.train) | set(split.test) == names


def test_auto_reads_the_scenes_file_or_takes_every_eighth(tmp_path):
    assert make_split(NAMES, scene_folder=tmp_path) == make_split(NAMES, "every:8")
    write_splits(tmp_path, train=NAMES[3:6], test=NAMES[:2])
    split = make_split(NAMES, scene_folder=tmp_path)
    assert split.train == tuple(NAMES[3:6])
    assert split.test == tuple(NAMES[:2])
    assert "splits.json" in split.policy
    assert make_split(NAMES, str(tmp_path / "splits.json")).train == split.train
    assert make_split(NAMES, "every:8", scene_folder=tmp_path) == make_split(NAMES, "every:8")


def test_names_are_read_from_the_file_name_only():
    names = ["a_train_b/x_eval_1.png", "a_eval_b/x_train_1.png", "x_train_2.png"]
    split = make_split(names, "names")
    assert split.train == ("a_eval_b/x_train_1.png", "x_train_2.png")
    assert split.test == ("a_train_b/x_eval_1.png",)


def test_names_do_not_depend_on_the_numbers_in_them():
    names = [f"image_eval_{index:06d}.png" for index in range(200, 203)]
    names += [f"image_train_{index:06d}.png" for index in range(1, 7)]
    assert make_split(names, "names").train == tuple(names[3:])


def test_patterns_say_which_views_test():
    names = [f"{side}/r_{index}.png" for side in ("test", "train") for index in range(4)]
    for policy in ("glob:test/*", "regex:^test/"):
        split = make_split(names, policy)
        assert split.test == tuple(names[:4])
        assert split.train == tuple(names[4:])
        assert split.policy == policy
    assert make_split(names, "glob:r_[01].png").test == (names[0], names[1], names[4], names[5])
    assert make_split(NAMES, r"regex:0(0|1)5\.").test == ("photo_005.jpg", "photo_015.jpg")


@pytest.mark.parametrize(
    ("policy", "message"),
    [("glob:none*", "no test views"), ("glob:*", "no training views"), ("regex:(", "not a regular expression")],
)
def test_patterns_that_leave_nothing_are_refused(policy, message):
    with pytest.raises(InputError, match=message):
        make_split(NAMES, policy)


def test_a_list_names_the_test_views(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text(f"# held out\n{NAMES[3]}\n\nphoto_007\n")
    split = make_split(NAMES, str(path))
    assert split.test == (NAMES[3], NAMES[7])
    assert set(split.train) == set(NAMES) - set(split.test)
    assert "test.txt" in split.policy
    path.write_text("photo_007.png\nphoto_030\n")
    with pytest.raises(InputError, match=r"(?s)2 problems.*photo_007\.png is not in the scene"):
        make_split(NAMES, str(path))
    with pytest.raises(InputError, match="cannot be read"):
        make_split(NAMES, str(tmp_path / "none.txt"))


def test_sparse_takes_the_files_list_and_keeps_the_test_views(tmp_path):
    sparse = {"3": [NAMES[1], NAMES[9], NAMES[19]]}
    write_splits(tmp_path, train=NAMES[1:], test=NAMES[:1], sparse_train=sparse)
    split = make_split(NAMES, sparse=3, scene_folder=tmp_path)
    assert split.train == (NAMES[1], NAMES[9], NAMES[19])
    assert split.test == (NAMES[0],)
    assert "sparse list" in split.policy


def test_sparse_without_a_list_spaces_views_evenly_and_says_so(tmp_path, caplog):
    split = make_split(NAMES, "every:8", sparse=3, scene_folder=tmp_path)
    training = make_split(NAMES, "every:8").train
    assert split.train == (training[0], training[8], training[16])
    assert "evenly spaced" in split.policy
    assert "evenly spaced" in caplog.text
    assert make_split(NAMES, "every:8", sparse=1).train == training[:1]
    assert make_split(NAMES, "every:8", sparse=17).train == training


def test_sparse_never_trains_on_test_views_of_another_policy(tmp_path):
    write_splits(tmp_path, train=NAMES[1:], test=NAMES[:1], sparse_train={"2": [NAMES[8], NAMES[9]]})
    split = make_split(NAMES, "every:8", sparse=2, scene_folder=tmp_path)
    assert not set(split.train) & set(split.test)


@pytest.mark.parametrize("policy", ["every:1", "every:0", "every:-2", "every:", "every:x", "every:1.5"])
def test_wrong_steps_are_refused(policy):
    with pytest.raises(InputError, match="every:N"):
        make_split(NAMES, policy)


def test_empty_sides_are_refused():
    with pytest.raises(InputError, match="no training views"):
        make_split(["a.png"])
    with pytest.raises(InputError, match="no test views"):
        make_split(["a_train_1.png"], "names")
    with pytest.raises(InputError, match="neither"):
        make_split(NAMES, "names")
    with pytest.raises(InputError, match="both"):
        make_split(["a_train_eval_.png", "b_train__eval_.png"], "names")


def test_too_many_or_too_few_sparse_views_are_refused():
    for sparse in (0, -1, 18):
        with pytest.raises(InputError, match="sparse"):
            make_split(NAMES, "every:8", sparse=sparse)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["nope.jpg"], "test": NAMES[:1]}, "which the scene lacks"),
        ({"train": NAMES[:3], "test": NAMES[:1]}, "in both train and test"),
        ({"train": NAMES[:3]}, '"test" must be a list'),
        ({"train": [1], "test": NAMES[:1]}, '"train" must be a list'),
        ({"train": [NAMES[1]] * 2, "test": NAMES[:1]}, "twice"),
        ({"train": [], "test": NAMES[:1]}, "no training views"),
        ({"train": NAMES[1:], "test": NAMES[:1], "sparse_train": {"3": NAMES[1:3]}}, "lists 2 views"),
        ({"train": NAMES[1:], "test": NAMES[:1], "sparse_train": {"1": NAMES[:1]}}, "both"),
        ({"train": NAMES[1:], "test": NAMES[:1], "sparse_train": [3]}, "must be an object"),
    ],
)
def test_wrong_files_are_refused(tmp_path, content, message):
    path = write_splits(tmp_path, **content)
    with pytest.raises(InputError, match=message):
        make_split(NAMES, str(path))


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected auto, every:N, none, names"):
        make_split(NAMES, "evry:8")
    path = tmp_path / "splits.json"
    path.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        make_split(NAMES, str(path))
    path.write_text("[]")
    with pytest.raises(InputError, match="object"):
        make_split(NAMES, str(path))
    with pytest.raises(InputError, match="cannot be read"):
        make_split(NAMES, str(tmp_path))


def test_none_holds_nothing_out():
    split = make_split(["b", "a", "c"], "none")
    assert (split.train, split.test, split.policy) == (("a", "b", "c"), (), "none")
    assert make_split(["b", "a", "c"], "none", sparse=2).train == ("a", "c")
