"""Ending well when asked to: SIGINT and SIGTERM become a question that loops can ask."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from vocodata.errors import BuildInterruptedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType


class Stop:
    """Whether a signal asked the build to stop, and which."""

    def __init__(self) -> None:
        """Nobody asked yet."""
        self.signum = 0

    def is_set(self) -> bool:
        """Whether to take no more jobs."""
        return self.signum != 0

    def error(self, store: Path, *, done: int, found: int) -> BuildInterruptedError:
        """What to raise for the signal, once so many of the scans found are settled."""
        error = BuildInterruptedError(
            f"{signal.Signals(self.signum).name} came after {done} of {found} scans; they are "
            f"kept in {store}. Build again with --resume."
        )
        error.signum, error.done, error.found = self.signum, done, found
        return error

    def handle(self, signum: int, _frame: FrameType | None) -> None:
        """The first signal asks; a second one does not wait for running scans."""
        if self.signum:
            raise KeyboardInterrupt
        self.signum = signum


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM set a flag meanwhile; outside the main thread Python allows none."""
    stop, before = Stop(), {}
    with contextlib.suppress(ValueError):
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[signum] = signal.signal(signum, stop.handle)
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
