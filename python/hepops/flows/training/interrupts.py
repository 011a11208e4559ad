"""Ctrl-C and SIGTERM wait until a step is whole."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Interrupts:
    """Within, the first SIGINT or SIGTERM is noted, and acts when `pass_on` is called; a second SIGINT acts at once.

    Outside the main thread, where Python has no signals, it does nothing.

    Example:
        >>> with Interrupts() as interrupts:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     interrupts.caught == signal.SIGTERM  # save, then interrupts.pass_on()
        True
    """

    def __init__(self, active: bool = True) -> None:
        self.caught: int | None = None
        self._active = active and threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if self._active:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = number

    def pass_on(self) -> None:
        """Give the signal to whom it was meant for: KeyboardInterrupt, the end of the process, or a handler."""
        if self.caught is not None:
            self.__exit__()
            signal.raise_signal(self.caught)
