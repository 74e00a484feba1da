import collections
import json

import pytest
import torch

from splat_recon import TrainingView, ViewMixture, ViewSet
from support.posed_scenes import orbit_camera, orbit_scene


def view_set(count, *, weight=1.0):
    camera = orbit_camera(0, 1)
    image = torch.zeros(camera.height, camera.width, 3)
    return ViewSet([TrainingView(camera=camera, rgb=image + index / count, weight=weight) for index in range(count)])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(views, generator, count):
    return [views.sample(generator) for _ in range(count)]


def test_every_epoch_shows_every_view_once_in_a_new_order():
    views = view_set(6)
    drawn = draw(views, generator(), 6 * 5)
    epochs = [drawn[start : start + 6] for start in range(0, 30, 6)]
    for epoch in epochs:
        assert {id(view) for view in epoch} == {id(view) for view in views}
    assert len({tuple(id(view) for view in epoch) for epoch in epochs}) > 1


def test_a_mixture_of_one_set_draws_bitwise_what_the_set_draws():
    plain, mixed = view_set(5), view_set(5)
    for mixture in (ViewMixture((mixed,), (1.0,)), mixed.mixed_with(view_set(3), 0.0)):
        mixed.load_state_dict(view_set(5).state_dict())
        plain.load_state_dict(view_set(5).state_dict())
        plain_generator, mixed_generator = generator(3), generator(3)
        for _ in range(23):
            expected = plain.views.index(plain.sample(plain_generator))
            assert mixed.views.index(mixture.sample(mixed_generator)) == expected
        assert torch.equal(plain_generator.get_state(), mixed_generator.get_state())


def test_sets_share_the_steps_by_their_probabilities():
    sets = [view_set(4, weight=weight) for weight in (1.0, 2.0, 3.0)]
    mixture = ViewMixture(sets, (0.5, 0.2, 0.3))
    assert len(mixture) == 12
    counts = collections.Counter(view.weight for view in draw(mixture, generator(), 4000))
    for weight, prob in ((1.0, 0.5), (2.0, 0.2), (3.0, 0.3)):
        assert counts[weight] / 4000 == pytest.approx(prob, abs=0.03)


def test_a_set_without_probability_is_never_drawn():
    mixture = ViewMixture([view_set(2, weight=weight) for weight in (1.0, 2.0, 3.0)], (0.5, 0.0, 0.5))
    assert {view.weight for view in draw(mixture, generator(), 300)} == {1.0, 3.0}


@pytest.mark.parametrize("num_before", [0, 3, 5, 11])
def test_sampling_continues_from_its_state(num_before):
    def mixture():
        return view_set(5).mixed_with(view_set(3, weight=0.3), 0.4)

    running, running_generator = mixture(), generator(7)
    draw(running, running_generator, num_before)
    state = json.loads(json.dumps(running.state_dict()))
    resumed, resumed_generator = mixture(), torch.Generator()
    resumed.load_state_dict(state)
    resumed_generator.set_state(running_generator.get_state())
    for view, view_resumed in zip(
        draw(running, running_generator, 20), draw(resumed, resumed_generator, 20), strict=True
    ):
        assert view.weight == view_resumed.weight
        assert torch.equal(view.rgb, view_resumed.rgb)


def test_a_set_keeps_its_place_from_mixture_to_mixture():
    captured = view_set(6)
    draw(captured, generator(), 4)
    left = {id(view) for view in captured} - {id(view) for view in draw(captured, generator(), 0)}
    position = captured.state_dict()
    captured.mixed_with(view_set(2), 0.0)
    assert captured.state_dict() == position
    assert len(left) == 6


def test_states_that_do_not_fit_are_refused():
    views = view_set(3)
    for state in (
        {"num_views": 4, "order": [], "position": 0},
        {"num_views": 3, "order": [0, 0, 1], "position": 0},
        {"num_views": 3, "order": [0, 1, 2], "position": 4},
        {"num_views": 3, "order": [0, 1, 2], "position": -1},
        {"order": []},
    ):
        with pytest.raises(ValueError):
            views.load_state_dict(state)
    with pytest.raises(ValueError, match="mixture"):
        views.mixed_with(view_set(2), 0.5).load_state_dict({"sets": [views.state_dict()]})


@pytest.mark.parametrize("probs", [(0.5, 0.6), (1.5, -0.5), (1.0,), (float("nan"), 1.0)])
def test_wrong_probabilities_are_refused(probs):
    with pytest.raises(ValueError, match="probabilit"):
        ViewMixture((view_set(2), view_set(2)), probs)


def test_empty_sets_and_wrong_weights_are_refused():
    with pytest.raises(ValueError, match="at least one view"):
        ViewSet([])
    view = view_set(1).views[0]
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight"):
            TrainingView(camera=view.camera, rgb=view.rgb, weight=weight)
    with pytest.raises(ValueError, match="size"):
        TrainingView(camera=view.camera.resized(8, 8), rgb=view.rgb)


def test_photos_become_training_views():
    scene = orbit_scene(2, masks=True)
    views = ViewSet.from_views(scene.views, weight=0.5)
    for view, training in zip(scene.views, views, strict=True):
        assert training.camera is view.camera
        assert training.weight == 0.5
        assert torch.equal((training.rgb * 255).round().to(torch.uint8), torch.tensor(view.rgb_u8))
        assert training.pixel_weight is not None
        assert torch.equal(training.pixel_weight, torch.tensor(view.mask, dtype=torch.float32))
