"""Ctrl-C and SIGTERM end a run at the next step boundary, after a checkpoint; a second one ends it at once.

Where several processes train together, one of them being asked is enough: all stop at the same step.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self


class Interrupted(SystemExit):
    """A run that was asked to stop has saved and stops. Exit status 130 after Ctrl-C, 75 after SIGTERM."""


class Interrupts:
    """While entered, remembers that a stop was asked for instead of stopping."""

    def __init__(self, *, largest: Callable[[int], int] = int, tells: bool = True) -> None:
        """`largest`: the largest of what all processes say. `tells`: whether this one says how to go on."""
        self._largest, self._tells = largest, tells
        self._asked, self._due = 0, 0
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
        if self._asked:
            raise KeyboardInterrupt
        self._asked = number

    def due(self) -> bool:
        """Whether to stop: this process or another was asked to. All must come to this question alike."""
        self._due = self._largest(self._asked)
        return bool(self._due)

    def stop(self, folder: Path) -> None:
        """Leave, saying how to go on."""
        number = signal.Signals(self._due)
        if self._tells:
            print(
                f"\nstopped by {number.name}; saved in {folder}; the same command goes on (train: with --resume)",
                flush=True,
            )
        raise Interrupted(130 if number == signal.SIGINT else 75)
