"""What a person sees while a run goes on: a bar with loss, speed and time left; plain lines without a terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

LINE_EVERY = 15.0
"""Seconds between lines where output is not a terminal."""


class Bar:
    """Progress of one stage."""

    def __init__(self, name: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.name, self.total = name, total
        self.console = Console()
        self.live = self.console.is_terminal
        columns = (
            TextColumn("{task.description:<6}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, disable=not self.live)
        self.task = self.bar.add_task(name, total=total, facts="")
        self._loss: float | None = None
        self._speed: float | None = None
        self._first: int | None = None
        self._begun = self._last = time.monotonic()

    def update(self, step: int, record: Mapping[str, float]) -> None:
        """Show the state after a step."""
        self._first = step if self._first is None else self._first
        self._loss = _smooth(self._loss, record["loss"])
        self._speed = _smooth(self._speed, record["tokens_per_second"])
        facts = f"loss {self._loss:.3f}  {self._speed:,.0f} units/s"
        if self.live:
            self.bar.update(self.task, completed=step, facts=facts)
        elif time.monotonic() - self._last >= LINE_EVERY or step == self.total:
            self._last = time.monotonic()
            print(f"{self.name} {step}/{self.total}  {facts}  {self._left(step)} left", flush=True)

    def _left(self, step: int) -> str:
        done = step - (self._first or 0) + 1
        seconds = (time.monotonic() - self._begun) / done * (self.total - step)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _smooth(before: float | None, value: float) -> float:
    if before is None or not math.isfinite(before):
        return value
    return 0.95 * before + 0.05 * value if math.isfinite(value) else before  # that of a skipped step


class Reporter:
    """Where a run tells what it is doing; `quiet` tells nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Bar | _Silent]:
        """Progress of one stage."""
        if self.quiet:
            yield _Silent()
            return
        bar = Bar(name, total)
        with bar.bar:
            yield bar

    def say(self, line: str) -> None:
        """One line."""
        if not self.quiet:
            print(line, flush=True)

    def evaluated(self, stage: str, step: int, found: Mapping[str, float]) -> None:
        """Scores on held-out samples."""
        self.say(f"{stage} {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in found.items()))

    def skipped(self, path: Path, reason: str) -> None:
        """A checkpoint that is damaged; said even where nothing else is."""
        print(f"colatent: skipped {path.name}: {reason}", file=sys.stderr, flush=True)


class _Silent:
    def update(self, step: int, record: Mapping[str, float]) -> None:
        pass
