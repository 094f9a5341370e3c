"""SIGINT and SIGTERM as a wish: the loop finishes its step, saves, and leaves."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_WISHES = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Remembers the first signal; the second one acts as it did before.

    Signals reach the main thread only, so in another thread this listens to nothing.

    Attributes:
        number: The signal that came, or 0.
    """

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._came) for number in _WISHES}
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Leave the signals as they were."""
        self._restore()

    def _came(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal` gave us
        self._before = {}
