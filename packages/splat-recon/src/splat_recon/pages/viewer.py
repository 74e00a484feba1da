"""A live page of splats and photos in the browser, served by viser (extra `viewer`).

Pictures are drawn here, by the rasterizer, from where the page's camera stands, and sent to the page: what is seen is
what is trained. A finished model can also be handed to the page, which then draws it by itself (without
view-dependent colors, which viser does not know).
"""

import io
import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from report_pages import spread
from splat_recon.errors import InputError
from splat_recon.geometry.trajectories import focus_point
from splat_recon.pages.view_requests import SHOWN, Render, ViewRequests
from splat_render.cameras import Camera
from splat_render.gaussians import Gaussians
from splat_render.poses import matrix_from_quat_wxyz, quat_wxyz_from_matrix
from splat_render.spherical_harmonics import sh0_to_rgb

if TYPE_CHECKING:
    from splat_recon.trainer import SplatTrainer

MISSING = "the viewer is not installed: run this with `uv run --extra viewer ...`, or install splat-recon[viewer]"
"""What to do where the extra is absent."""

MAX_FRUSTA = 150
"""Photos whose cameras are shown, evenly spread over all of them."""

THUMBNAIL_PX = 128
"""Longer side of a photo in its camera."""

TRAINING_TIME_FRACTION = 0.2
"""Part of a training's time that may go into pictures for its viewers."""

TRAINING_PX = 480
"""Longer side of a picture during training, at most."""

REFRESH_SECONDS = 2.0
"""Time after which a page shows the training anew, even where nobody moves."""

MAX_BROWSER_SPLATS = 1_000_000
"""Gaussians that are handed to the page, at most: the most opaque and largest."""

IDLE_SECONDS = 0.05
"""How long the drawing loop sleeps where nothing is to be drawn."""


class SplatViewer:
    """A page, its controls and its scene; whoever owns it calls `draw`.

    Args:
        cameras: By the photos' names, in the splats' frame; they give the view to begin with, and are shown.
        host: Address to listen on; 127.0.0.1 is this machine alone.

    Raises:
        InputError: viser is not installed, or the address cannot be listened on.
    """

    def __init__(
        self,
        title: str,
        cameras: Mapping[str, Camera],
        photos: Mapping[str, UInt8[np.ndarray, "_h _w 3"]],
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        requests: ViewRequests | None = None,
    ) -> None:
        viser = viser_module()
        _check_host(host)
        self.requests = ViewRequests() if requests is None else requests
        try:
            # viser prints a banner, whatever it is told.
            with redirect_stdout(io.StringIO()):
                self._server = viser.ViserServer(host=host, port=port, label=title, verbose=False)
        except (OSError, OverflowError) as error:
            raise InputError(f"the viewer cannot listen on {host}:{port} ({error}): choose another") from None
        self._host = host
        self._frusta: list[Any] = []
        self._hidden: Any = None
        self._photos_fit = True
        self._splats: Any = None
        self._add_controls()
        self._set_start(list(cameras.values()))
        self._add_cameras(cameras, photos)
        self._server.on_client_connect(self._connected)
        self._server.on_client_disconnect(lambda client: self.requests.cancel(client.client_id))

    @property
    def url(self) -> str:
        """Where the page is."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "::", "") else self._host
        return f"http://{host}:{self._server.get_port()}"

    def close(self) -> None:
        """Stop serving."""
        with redirect_stdout(io.StringIO()):
            self._server.stop()

    def __enter__(self) -> "SplatViewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_status(self, text: str) -> None:
        """Show a line of Markdown on the page."""
        if self._status.content != text:
            self._status.content = text

    def draw(self, render: Render) -> bool:
        """Draw one picture that is due; false where none is, or where the page draws by itself."""
        if self._splats is not None and self._splats.visible:
            return False
        return self.requests.draw_one(render)

    def offer_browser_splats(self, gaussians: Gaussians) -> None:
        """Let the page draw these Gaussians by itself where its user asks for it."""
        drawn_by = self._server.gui.add_dropdown(
            "Drawn by", ("rasterizer", "browser"), hint="the browser is smoother, and shows no view-dependent colors"
        )

        @drawn_by.on_update
        def _(_: Any) -> None:
            in_browser = drawn_by.value == "browser"
            if in_browser and self._splats is None:
                arrays: dict[str, Any] = dict(browser_splats(gaussians))
                self._splats = self._server.scene.add_gaussian_splats("/splats", **arrays)
            if self._splats is not None:
                self._splats.visible = in_browser
            if in_browser:
                for client in self._server.get_clients().values():
                    client.scene.set_background_image(None)
            else:
                self.requests.ask_again()

    def offer_choice(
        self, name: str, options: Sequence[str], chosen: str, told: Callable[[str], None], *, hint: str = ""
    ) -> None:
        """Add a choice to the page; all pictures are drawn anew after one is `told`."""
        choice = self._server.gui.add_dropdown(name, tuple(options), initial_value=chosen, hint=hint)

        @choice.on_update
        def _(_: Any) -> None:
            told(choice.value)
            self.requests.ask_again()

    def dock_controls(self) -> None:
        """Put the controls beside the picture, so that they cover nothing of it."""
        # Only newer versions of viser can.
        panel = getattr(self._server.gui, "main_panel", None)
        if panel is not None:
            panel.dock_right()

    def fit_photos(self, fit: bool) -> None:
        """Say whether the page's picture is seen from the page's camera; photos in 3D are shown only where it is."""
        self._photos_fit = fit
        self._show_photos()

    def _show_photos(self) -> None:
        for frustum in self._frusta:
            visible = self._photos_shown.value and self._photos_fit and frustum is not self._hidden
            if frustum.visible != visible:
                frustum.visible = visible

    def _add_controls(self) -> None:
        gui = self._server.gui
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        self._status = gui.add_markdown("")
        shown = gui.add_dropdown("Show", SHOWN)
        size = gui.add_slider("Resolution", min=128, max=2048, step=64, initial_value=self.requests.max_px)
        self._photos_shown = photos = gui.add_checkbox("Photos", initial_value=True)

        @shown.on_update
        def _(_: Any) -> None:
            self.requests.shown = shown.value
            self.requests.ask_again()

        @size.on_update
        def _(_: Any) -> None:
            self.requests.max_px = int(size.value)
            self.requests.ask_again()

        @photos.on_update
        def _(_: Any) -> None:
            self._show_photos()

    def _set_start(self, cameras: Sequence[Camera]) -> None:
        """Begin where the first photo was taken, upright as the photos are."""
        start = self._server.initial_camera
        if not cameras:
            self._server.scene.set_up_direction((0.0, -1.0, 0.0))
            start.position, start.look_at = (0.0, 0.0, -3.0), (0.0, 0.0, 0.0)
            return
        poses = [camera.T_world_cam for camera in cameras]
        up = -np.mean([pose[:3, 1] for pose in poses], axis=0)
        if np.linalg.norm(up) < 1e-6:
            up = -poses[0][:3, 1]
        self._server.scene.set_up_direction(tuple(up / np.linalg.norm(up)))
        first = cameras[0]
        ahead = float((focus_point(poses) - first.center_world) @ first.T_world_cam[:3, 2]) if len(poses) > 1 else 0.0
        distance = ahead if ahead > 1e-3 else 1.0
        start.position = first.center_world
        start.look_at = first.center_world + distance * first.T_world_cam[:3, 2]
        start.fov = 2 * math.atan(0.5 * first.height / first.K[1, 1])

    def _add_cameras(self, cameras: Mapping[str, Camera], photos: Mapping[str, np.ndarray]) -> None:
        if not cameras:
            return
        names = list(cameras)
        centers = np.stack([camera.center_world for camera in cameras.values()])
        extent = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
        for index in spread(len(names), MAX_FRUSTA):
            camera = cameras[names[index]]
            frustum = self._server.scene.add_camera_frustum(
                f"/photos/{index:05d}",
                fov=2 * math.atan(0.5 * camera.height / camera.K[1, 1]),
                aspect=camera.width / camera.height,
                scale=0.08 * extent if extent > 0 else 0.1,
                color=(240, 160, 60),
                thickness=1.5,
                thickness_units="screen",
                image=photos.get(names[index]),
                wxyz=quat_wxyz_from_matrix(camera.T_world_cam[:3, :3]),
                position=camera.center_world,
            )
            frustum.on_click(lambda event, camera=camera, frustum=frustum: self._look_through(event, camera, frustum))
            self._frusta.append(frustum)
        # The page begins where the first photo was taken: its picture would cover everything.
        self._hide(self._frusta[0])

    def _look_through(self, event: Any, camera: Camera, frustum: Any) -> None:
        """A click on a photo goes to where it was taken."""
        self._hide(frustum)
        with event.client.atomic():
            event.client.camera.position = camera.center_world
            event.client.camera.wxyz = quat_wxyz_from_matrix(camera.T_world_cam[:3, :3])

    def _hide(self, frustum: Any) -> None:
        """Hide the photo that is looked through, and show the one before again."""
        self._hidden = frustum
        self._show_photos()

    def _connected(self, client: Any) -> None:
        @client.camera.on_update
        def _(_: Any) -> None:
            self.requests.ask(client.client_id, client)


class TrainingViewer:
    """A page that shows a training as it goes on, and does not change it.

    Pictures are drawn between two steps, on the training's own thread, from its parameters, which they only read; the
    training's random numbers are not touched. They take at most `TRAINING_TIME_FRACTION` of the time.
    """

    every_step = True

    def __init__(self, trainer: "SplatTrainer", *, host: str = "127.0.0.1", port: int = 8080) -> None:
        views = trainer.scene.views
        shown = [views[index] for index in spread(len(views), MAX_FRUSTA)]
        self._viewer = SplatViewer(
            f"splat-recon: {trainer.scene.name}",
            {view.name: view.camera for view in views},
            {view.name: thumbnail(view.rgb_u8) for view in shown},
            host=host,
            port=port,
            requests=ViewRequests(max_px=TRAINING_PX, time_fraction=TRAINING_TIME_FRACTION),
        )
        self._drawn_at = 0.0

    @property
    def url(self) -> str:
        """Where the page is."""
        return self._viewer.url

    def __enter__(self) -> "TrainingViewer":
        return self

    def __exit__(self, *_: object) -> None:
        self._viewer.close()

    def observe(self, trainer: "SplatTrainer") -> None:
        """Draw a picture if one is due."""
        requests = self._viewer.requests
        if not requests.num_clients:
            return
        now = time.monotonic()
        if now - self._drawn_at > REFRESH_SECONDS:
            requests.ask_again()
        if self._viewer.draw(trainer.render):
            self._drawn_at = now
            loss = f", loss {trainer.history[-1].loss:.4f}" if trainer.history else ""
            self._viewer.set_status(
                f"step {trainer.step:,} of {trainer.config.max_steps:,}, {len(trainer.gaussians):,} Gaussians{loss}"
            )


def viser_module() -> Any:
    """What serves the page."""
    try:
        import viser
    except ImportError:
        raise InputError(MISSING) from None
    return viser


def _check_host(host: str) -> None:
    """Viser would wait for ever for an address that cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        raise InputError(f"the viewer cannot listen on {host} ({error.strerror or error}): choose another") from None


def serve(
    viewer: SplatViewer,
    render: Render,
    *,
    seconds: float | None = None,
    between: Callable[[], None] | None = None,
) -> None:
    """Draw what the pages ask for until interrupted, or for so many seconds.

    Args:
        seconds: How long; None: until interrupted.
        between: Called between pictures, at least twice a second.
    """
    end = math.inf if seconds is None else time.monotonic() + seconds
    while time.monotonic() < end:
        if between is not None:
            between()
        if viewer.draw(render):
            continue
        if viewer.requests.is_settled:
            viewer.requests.asked.wait(timeout=0.5)
        else:
            time.sleep(IDLE_SECONDS)


def thumbnail(rgb_u8: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A small copy of a photo."""
    picture = Image.fromarray(rgb_u8)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    return np.array(picture)


def thumbnails(folder: Path, names: Sequence[str]) -> dict[str, UInt8[np.ndarray, "_h _w 3"]]:
    """Small copies of photos in a folder, as far as they are there."""
    found = {}
    for index in spread(len(names), MAX_FRUSTA):
        try:
            with Image.open(folder / names[index]) as photo:
                photo.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))
                found[names[index]] = thumbnail(np.array(photo.convert("RGB")))
        except OSError:
            continue
    return found


def browser_splats(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """Centers, covariances, colors and opacities as viser takes them; at most `MAX_BROWSER_SPLATS`."""
    gaussians = gaussians.detach().to("cpu")
    if len(gaussians) > MAX_BROWSER_SPLATS:
        weight = gaussians.log_scales.sum(dim=1) + torch.log(gaussians.opacities)
        kept = torch.topk(weight, MAX_BROWSER_SPLATS).indices
        gaussians = gaussians.mapped(lambda tensor: tensor[kept])
    quats = torch.nn.functional.normalize(gaussians.quats_wxyz).double().numpy()
    halves = matrix_from_quat_wxyz(quats) * gaussians.scales.double().numpy()[:, None, :]
    return {
        "centers": gaussians.means.numpy(),
        "covariances": (halves @ halves.transpose(0, 2, 1)).astype(np.float32),
        "rgbs": sh0_to_rgb(gaussians.sh0[:, 0]).clamp(0, 1).numpy(),
        "opacities": gaussians.opacities[:, None].numpy(),
    }
