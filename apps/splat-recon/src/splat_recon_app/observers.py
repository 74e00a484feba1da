"""What watches a training between its steps: measurements on test photos, TensorBoard, the viewer.

None of them changes the training: they draw no random numbers from it and write to none of its tensors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Protocol

from commands import console
from splat_recon import run_folder
from splat_recon.run_folder import RunFolder
from splat_recon_app import cli
from splat_recon_app.scenes import shown_views

if TYPE_CHECKING:
    from splat_recon import SplatTrainer, Split, View
    from train_runs import TensorBoard

NUM_MEASUREMENTS = 10
"""Times that a run is measured on its way, where --eval-every does not say."""

MAX_MEASURED_VIEWS = 8
"""Test photos that a measurement on the way looks at, evenly spread; the result is of all of them."""

NUM_PICTURES = 3
"""Test photos whose renders TensorBoard and the report show."""


class Observer(Protocol):
    """Something that looks at a training between two steps."""

    every_step: bool
    """Whether it wants to look after each step; otherwise after some."""

    def observe(self, trainer: SplatTrainer) -> None:
        """Look at the training."""


@contextmanager
def watching(args: cli.Train, run: RunFolder, trainer: SplatTrainer, split: Split) -> Iterator[list[Observer]]:
    """The observers that the arguments ask for, closed when the block ends."""
    with ExitStack() as stack:
        board = None
        if args.tensorboard:
            from train_runs import TensorBoard

            board = stack.enter_context(closing(TensorBoard(run.path, step=trainer.step)))
        views, _ = shown_views(trainer.scene, split)
        observers: list[Observer] = [Measurements(run, trainer, views, args.eval_every, board)]
        if board is not None:
            observers.append(Curves(board, trainer))
        if args.viewer:
            from splat_recon import TrainingViewer

            viewer = stack.enter_context(TrainingViewer(trainer, host=args.viewer_host, port=args.viewer_port))
            console.print(f"watch the training at {viewer.url}")
            observers.append(viewer)
        yield observers


class Measurements:
    """Scores on test photos on the way, for the report: one line each in `evaluations.jsonl`."""

    every_step = False

    def __init__(
        self,
        run: RunFolder,
        trainer: SplatTrainer,
        views: Sequence[View],
        every: int | None,
        board: TensorBoard | None,
    ) -> None:
        from report_pages import spread

        self._run = run
        self._every = max(1, trainer.config.max_steps // NUM_MEASUREMENTS) if every is None else every
        self._views = [views[index] for index in spread(len(views), MAX_MEASURED_VIEWS)]
        self._shown = {self._views[index].name for index in spread(len(self._views), NUM_PICTURES)}
        self._board = board
        self._done = run_folder.read_evaluations(run, until_step=trainer.step)
        self._seconds = self._done[-1]["seconds"] if self._done else 0.0
        self._last_step = self._done[-1]["step"] if self._done else -1
        self._since = time.monotonic()

    def observe(self, trainer: SplatTrainer) -> None:
        """Measure where a measurement is due: at the start, and whenever `every` further steps are done."""
        if self._every == 0:
            return
        start = self._last_step < 0
        if not start and trainer.step // self._every == self._last_step // self._every:
            return
        before = time.monotonic()
        self._seconds += before - self._since
        self._measure(trainer, keep_pictures=start)
        self._last_step = trainer.step
        # The measurement is no part of the training's time.
        self._since = time.monotonic()

    def _measure(self, trainer: SplatTrainer, *, keep_pictures: bool) -> None:
        from splat_recon.evaluate import evaluate
        from splat_recon.io.images import to_u8, write_photo

        pictures = {}

        def keep(view: View, rendered) -> None:
            if view.name in self._shown:
                pictures[view.name] = to_u8(rendered)

        scores = evaluate(lambda camera: trainer.render(camera).rgb, self._views, on_view=keep)
        self._done.append(
            {
                "step": trainer.step,
                "seconds": round(self._seconds, 3),
                "psnr": scores.psnr,
                "ssim": scores.ssim,
                "num_views": len(self._views),
                "num_gaussians": len(trainer.gaussians),
            }
        )
        run_folder.write_lines(self._run.evaluations, self._done)
        if keep_pictures:
            files = run_folder.picture_names(trainer.scene.names)
            for name, picture_u8 in pictures.items():
                write_photo(self._run.first_images / files[name], picture_u8)
        if self._board is not None:
            numbers = {"psnr": scores.psnr, "ssim": scores.ssim, "flip": scores.flip, "lpips": scores.lpips}
            known = {f"test/{name}": value for name, value in numbers.items() if value is not None}
            self._board.numbers(known, trainer.step)
            for name, picture_u8 in pictures.items():
                self._board.picture(f"test/{name}", picture_u8, trainer.step)


class Curves:
    """The training's own records as TensorBoard curves."""

    every_step = False

    def __init__(self, board: TensorBoard, trainer: SplatTrainer) -> None:
        self._board = board
        self._num_written = len(trainer.history)

    def observe(self, trainer: SplatTrainer) -> None:
        """Add what the training has recorded since."""
        for record in trainer.history[self._num_written :]:
            rates = {f"learning_rate/{name}": rate for name, rate in trainer.learning_rates().items()}
            values = {"train/loss": record.loss, "train/num_gaussians": record.num_gaussians}
            self._board.numbers(values | rates, record.step)
        self._num_written = len(trainer.history)
