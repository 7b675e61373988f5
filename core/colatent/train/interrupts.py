"""Ctrl-C and SIGTERM end a run at the next step boundary, after a checkpoint; a second one ends it at once, and so does
the first outside of a stage, where there is nothing more to save.

Where several processes train together, one of them being asked is enough: all stop at the same step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

TRY_AGAIN = 75
"""Exit status after SIGTERM: what is run again goes on."""


class Interrupted(SystemExit):
    """A run that was asked to stop has saved and stops. Exit status 130 after Ctrl-C, 75 after SIGTERM."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM on its way out. A kind of its own: Python ends with 130 where a plain one was raised inside an exec()."""


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
        raise Interrupted(130 if number == signal.SIGINT else TRY_AGAIN)


@contextmanager
def terminable(folder: Path) -> Iterator[None]:
    """While entered, SIGTERM ends a run that trains alone as it does within a stage, where `Interrupts` takes it.

    It is raised as Ctrl-C is, which whatever is under way, an import of a plugin for one, lets through. One of several
    processes is ended by the system instead: the others would wait for what it does on its way out.
    """
    asked = False

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, leave) if os.environ.get("WORLD_SIZE", "1") == "1" else None
    except ValueError:  # not the main thread: whoever runs us there keeps its own handlers
        before = None
    try:
        yield
    except BaseException:  # not only ours: an extension module that is being imported makes an ImportError of it
        if not asked:
            raise
        goes_on = f"the same command with --resume goes on in {folder}"
        # Not by `is_run_folder`, which comes with torch, whose import may be what was cut short.
        begun = (folder / "run.json").is_file()
        print(f"\nstopped by SIGTERM; {goes_on if begun else 'nothing was begun'}", flush=True)
        raise Interrupted(TRY_AGAIN) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
