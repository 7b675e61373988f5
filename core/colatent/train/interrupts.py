"""Ctrl-C and SIGTERM end a run at the next step boundary, after a checkpoint; a second one ends it at once."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self


class Interrupted(SystemExit):
    """A run that was asked to stop has saved and stops. Exit status 130 after Ctrl-C, 75 after SIGTERM."""


class Interrupts:
    """While entered, remembers that a stop was asked for instead of stopping."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever runs us there keeps its own handlers
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number)

    def stop(self, folder: Path) -> None:
        """Leave, saying how to go on."""
        assert self.asked is not None
        print(
            f"\nstopped by {self.asked.name}; saved in {folder}; the same command goes on (train: with --resume)",
            flush=True,
        )
        raise Interrupted(130 if self.asked == signal.SIGINT else 75)
