import numpy as np
import pytest
import torch

from splat_recon import SplatTrainer, SyntheticConfig, TrainConfig, ViewSet, generate_scene, normalized
from splat_recon.pages.view_requests import MOVING_PX, ViewRequests, camera_of, rendered_picture
from splat_render import make_rasterizer
from splat_render.poses import matrix_from_quat_wxyz
from support.splat_scenes import make_gaussians
from support.viewer_page import Clock, Page


def render(camera):
    return make_rasterizer("cpu")(make_gaussians(100), camera, sh_degree=0)


def test_a_moving_page_gets_a_small_picture_and_a_still_one_a_full_one():
    clock = Clock()
    requests, page = ViewRequests(max_px=1000, clock=clock), Page(width=800, height=600)
    assert not requests.draw_one(render)
    requests.ask(7, page)
    assert requests.draw_one(render)
    assert page.pictures[0].shape == (240, MOVING_PX, 3)
    assert page.pictures[0].std() > 5
    assert not requests.draw_one(render)
    clock.settle()
    assert requests.draw_one(render)
    assert page.pictures[1].shape == (600, 800, 3)
    assert requests.is_settled
    assert not requests.draw_one(render)
    requests.ask_again()
    assert requests.draw_one(render)
    requests.cancel(7)
    requests.ask_again()
    assert not requests.draw_one(render)
    assert len(page.pictures) == 3


def test_pages_take_turns():
    requests, pages = ViewRequests(), [Page(), Page()]
    for index, page in enumerate(pages):
        requests.ask(index, page)
    assert requests.draw_one(render)
    requests.ask(0, pages[0])
    assert requests.draw_one(render)
    assert [len(page.pictures) for page in pages] == [1, 1]


def test_drawing_takes_no_more_than_its_share():
    clock, page = Clock(), Page()
    requests = ViewRequests(time_fraction=0.2, clock=clock)

    def slow(camera):
        clock.now += 1.0
        return render(camera)

    requests.ask(1, page)
    assert requests.draw_one(slow)
    requests.ask(1, page)
    clock.now += 3.9
    assert not requests.draw_one(slow)
    clock.now += 0.2
    assert requests.draw_one(slow)


def test_all_that_can_be_shown_is_a_picture():
    requests, page = ViewRequests(), Page()
    for shown in ("colors", "depth", "opacity"):
        requests.shown = shown
        requests.ask(1, page)
        assert requests.draw_one(render)
    colors, depth, opacity = page.pictures
    assert np.ptp(opacity, axis=2).max() == 0
    assert np.ptp(depth, axis=2).max() > 50
    assert not np.array_equal(colors, depth)


def test_a_pages_camera_is_a_pinhole_with_its_vertical_angle():
    page = Page(width=800, height=600)
    camera = camera_of(page.camera, 400)
    assert camera is not None
    assert (camera.width, camera.height) == (400, 300)
    assert 2 * np.arctan(150 / camera.K[1, 1]) == pytest.approx(0.9)
    np.testing.assert_allclose(camera.T_world_cam[:3, :3], matrix_from_quat_wxyz(page.camera.wxyz), atol=1e-9)
    np.testing.assert_allclose(camera.center_world, page.camera.position)
    for name, value in (("image_width", 0), ("fov", 0.0), ("wxyz", np.zeros(4)), ("position", np.full(3, np.nan))):
        page = Page()
        setattr(page.camera, name, value)
        assert camera_of(page.camera, 400) is None


def test_watching_leaves_a_training_as_it_is_bit_for_bit():
    scene = normalized(generate_scene(3, SyntheticConfig(num_views=4, width=48, height=36, num_points=150)))
    config = TrainConfig(random_background=True).scaled_to(60)
    trainers = [SplatTrainer(scene, ViewSet.from_views(scene.views), config) for _ in range(2)]
    trainers[0].train_until(60)
    requests, page = ViewRequests(max_px=64), Page(scene.views[0].camera)
    while trainers[1].step < 60:
        trainers[1].train_until(trainers[1].step + 1)
        requests.ask(1, page)
        assert requests.draw_one(trainers[1].render)
    assert len(page.pictures) == 60
    for name, tensor in trainers[0].gaussians.parameters().items():
        assert torch.equal(tensor, trainers[1].gaussians.parameters()[name]), name
    assert trainers[0].history == trainers[1].history


class Noting:
    """A composer that remembers what it was asked for."""

    def __init__(self):
        self.asked, self.forgotten = [], []

    def compose(self, request, render):
        self.asked.append(request)
        return rendered_picture(render(request.camera))

    def cancel(self, client_id):
        self.forgotten.append(client_id)


def test_a_composer_makes_the_pictures_and_is_told_of_closed_pages():
    clock, composer, pages = Clock(), Noting(), [Page(), Page()]
    requests = ViewRequests(max_px=1000, clock=clock, composer=composer)
    for index, page in enumerate(pages):
        requests.ask(index, page)
    clock.settle()
    assert requests.draw_one(render)
    assert requests.draw_one(render)
    assert [(asked.client_id, asked.is_full, asked.shown) for asked in composer.asked] == [
        (0, True, "colors"),
        (1, True, "colors"),
    ]
    # One page alone can be drawn again.
    requests.ask_again(1)
    assert requests.draw_one(render)
    assert not requests.draw_one(render)
    assert [len(page.pictures) for page in pages] == [1, 2]
    requests.ask_again(5)
    assert not requests.draw_one(render)
    requests.cancel(0)
    assert composer.forgotten == [0]
