"""What slows a real device down: waits for it and copies between it and the host, by the line that asks for them."""

from __future__ import annotations

import collections
import sys
from dataclasses import dataclass

SOURCES = ("/packages/", "/apps/", "/benchmarks/", "/recipes/", "/integrations/")
"""Folders of this project that hold code to look at."""


@dataclass(frozen=True)
class Event:
    """Something that happened at a line."""

    kind: str
    """wait: the host waits for the device. upload: a copy from memory that is not pinned, which waits as well.
    download: the same the other way. background: a copy that nobody waits for."""

    place: str
    """File and line."""

    call: str
    """What was called."""

    @property
    def is_ours(self) -> bool:
        """Whether it happened in this project's code, not in a library's."""
        return not self.place.startswith("gsplat/")


class Traffic:
    """Counts of events, and of the bytes that they moved."""

    def __init__(self) -> None:
        self.counts: collections.Counter[Event] = collections.Counter()
        self.bytes: collections.Counter[Event] = collections.Counter()

    def add(self, kind: str, call: str, num_bytes: int = 0) -> None:
        """Note an event at the line that is being executed."""
        event = Event(kind, _place(), call)
        self.counts[event] += 1
        self.bytes[event] += num_bytes

    def clear(self) -> None:
        """Forget what happened so far."""
        self.counts.clear()
        self.bytes.clear()

    def number(self, *kinds: str, ours: bool | None = None) -> int:
        """How many events of some kinds there were: of this project (True), of libraries (False), or of all (None)."""
        return sum(
            count
            for event, count in self.counts.items()
            if event.kind in kinds and (ours is None or event.is_ours == ours)
        )

    def waits(self, *, ours: bool | None = None) -> int:
        """Everything that makes the host wait: `wait`, `upload` and `download`."""
        return self.number("wait", "upload", "download", ours=ours)

    def report(self, per: int = 1) -> str:
        """All events as lines of text, the most frequent ones first; counts and bytes divided by `per`."""
        lines = [
            f"{event.kind:10} {count / per:8.2f} x {self.bytes[event] / per:12.0f} B  {event.place} ({event.call})"
            for event, count in self.counts.most_common()
        ]
        return "\n".join(lines) or "no traffic"


def _place() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename.replace("\\", "/")
        if "/fake_cuda/" not in name:
            if "/site-packages/gsplat/" in name:
                return f"gsplat/{name.rsplit('/gsplat/', 1)[1]}:{frame.f_lineno}"
            for source in SOURCES:
                if source in name and "/site-packages/" not in name:
                    return f"{source[1:]}{name.rsplit(source, 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
