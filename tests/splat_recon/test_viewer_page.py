import socket
import sys
import threading
import urllib.request

import numpy as np
import pytest

from splat_recon import InputError, SplatViewer
from splat_recon.pages.viewer import browser_splats, serve, thumbnail, thumbnails
from support.posed_scenes import orbit_camera
from support.splat_scenes import make_gaussians


def test_the_absent_extra_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(InputError, match="uv run --extra viewer"):
        SplatViewer("a", {}, {})


def test_splats_for_the_page_have_covariances_in_the_world():
    gaussians = make_gaussians(50)
    arrays = browser_splats(gaussians)
    assert {name: values.shape for name, values in arrays.items()} == {
        "centers": (50, 3),
        "covariances": (50, 3, 3),
        "rgbs": (50, 3),
        "opacities": (50, 1),
    }
    np.testing.assert_allclose(
        np.linalg.det(arrays["covariances"]), np.exp(2 * gaussians.log_scales.sum(dim=1).numpy()), rtol=1e-2
    )
    assert arrays["rgbs"].min() >= 0
    assert arrays["rgbs"].max() <= 1


def test_photos_that_are_there_become_small_pictures(tmp_path):
    from splat_recon.io.images import write_photo

    write_photo(tmp_path / "a.png", np.full((300, 400, 3), 90, np.uint8))
    (tmp_path / "b.png").write_text("no image")
    found = thumbnails(tmp_path, ["a.png", "b.png", "c.png"])
    assert list(found) == ["a.png"]
    assert found["a.png"].shape == (96, 128, 3)
    assert thumbnail(np.zeros((8, 8, 3), np.uint8)).shape == (8, 8, 3)


def test_the_page_is_served_to_this_machine_alone():
    pytest.importorskip("viser", reason="the extra viewer is not installed")
    cameras = {f"{index}.png": orbit_camera(index, 6) for index in range(6)}
    photos = {"0.png": np.full((12, 16, 3), 99, np.uint8)}
    with SplatViewer("a page", cameras, photos, port=8460) as viewer:
        viewer.offer_browser_splats(make_gaussians(20))
        viewer.set_status("**hello**")
        drawing = threading.Thread(target=serve, args=(viewer, lambda camera: None), kwargs={"seconds": 0.3})
        drawing.start()
        assert viewer.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(viewer.url, timeout=20) as page:
            assert b"<canvas" in (content := page.read()) or b"<script" in content
        port = int(viewer.url.rsplit(":", 1)[1])
        drawing.join()
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in others - {"127.0.0.1"}:
            with pytest.raises(OSError):
                socket.create_connection((str(address), port), timeout=2)
        # A port that is taken is no reason to stop.
        with SplatViewer("another page", {}, {}, port=port) as second:
            assert second.url != viewer.url


def test_an_address_of_another_machine_is_refused():
    pytest.importorskip("viser", reason="the extra viewer is not installed")
    with pytest.raises(InputError, match="cannot listen on"):
        SplatViewer("a page", {}, {}, host="192.0.2.1", port=8470)


def test_photos_are_shown_only_where_they_fit_the_picture():
    pytest.importorskip("viser", reason="the extra viewer is not installed")
    cameras = {f"{index}.png": orbit_camera(index, 6) for index in range(6)}
    told = []
    with SplatViewer("a page", cameras, {}, port=8480) as viewer:
        viewer.dock_controls()
        viewer.offer_choice("Fix", ("off", "on"), "on", told.append, hint="a hint")
        shown = [frustum.visible for frustum in viewer._frusta]
        assert shown == [False] + [True] * 5
        viewer.fit_photos(False)
        assert not any(frustum.visible for frustum in viewer._frusta)
        viewer.fit_photos(True)
        assert [frustum.visible for frustum in viewer._frusta] == shown
    assert told == []
