"""How long a run is likely to take, said before it begins."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import get_args

from commands import console
from difix3d import RunSettings
from difix3d.run.estimate import RunEstimate, device_of, estimate, in_words, seconds_per_reference_step
from difix3d.run.settings import Quality


def estimated(settings: RunSettings, num_photos: int, *, from_photos: bool, what: str = "This run") -> RunEstimate:
    """How long the run, or what is left of it, is likely to take, said together with what other qualities would."""
    device = device_of(settings)
    with console.status("Measuring this machine"):
        step_seconds = seconds_per_reference_step(device)

    def expected(asked: RunSettings) -> RunEstimate:
        return estimate(asked, device, num_photos=num_photos, from_photos=from_photos, step_seconds=step_seconds)

    found = expected(settings)
    message = f"{what} takes about {in_words(found.total)} on this machine as it is now."
    if settings.max_steps is None and settings.preset == "short":
        others = ", ".join(
            f"{name} {in_words(expected(replace(settings, quality=name)).total)}" for name in get_args(Quality)
        )
        message += f" By --quality: {others}."
    print(message, file=sys.stderr, flush=True)
    return found
