"""What a run that goes on was begun with, and that nothing given now contradicts it."""

from __future__ import annotations

from pathlib import Path

from commands import as_flag, next_line, parameters_of
from difix3d import InputError, RunFolder, RunSettings
from difix3d.run import photos
from difix3d.run.settings import MAY_CHANGE
from difix3d_train_app.cli import RunFlags, TrainCommand


def source_of(command: TrainCommand, folder: RunFolder, *, resumed: bool) -> Path | None:
    """The photos that the run is made of; None where it has a scene."""
    given = None
    if command.photos is not None:
        photos.num_photos(command.photos)
        given = command.photos.resolve()
    if not resumed:
        return given
    recorded = photos.recorded(folder)
    if given is not None and (recorded is None or recorded != given):
        raise InputError(
            f"--photos {command.photos} contradicts the run in {folder.path}, which is of {recorded or 'a scene'}: "
            "leave it out, or start a new run with another --out"
        )
    return recorded


def settings_of_run(folder: RunFolder, given: RunSettings) -> RunSettings:
    """The settings that a run was started with; what is given now must not contradict them."""
    stored = RunSettings.from_dict(folder.read_settings())
    defaults, kept = RunSettings().flat(), stored.flat()
    for name, value in given.flat().items():
        if value in (defaults[name], kept[name]):
            continue
        if name not in MAY_CHANGE:
            flag = parameters_of(RunFlags).get(name.rpartition(".")[2], as_flag(name))
            raise InputError(
                f"{flag} {value} contradicts the run in {folder.path}, which has {kept[name]}: leave it out, or start "
                "a new run with another --out"
            )
        stored = stored.changed(name, value)
    return stored


def resume_command(folder: Path) -> str:
    """The command line that goes on with a run."""
    return next_line("difix3d-train", "--out", folder, "--resume")
