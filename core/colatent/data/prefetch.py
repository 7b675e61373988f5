"""A mixture whose samples are read ahead by other processes: the same samples in the same order, sooner.

What is read ahead is planned here, step by step, and each step is read whole by one process; so the number of processes
decides when a sample is there and never which one. The position is that of the steps that were taken: what was read
ahead and not used is read again after a resume.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.reduction import ForkingPickler
from typing import Any

from colatent.data.dataset import Dataset, ScoutedDataset
from colatent.data.mixture import Drawn, Mixture, Place
from colatent.errors import UserError

AHEAD = 2
"""Steps that are under way for each process."""
News = dict[str, list[Any]]
"""What was found damaged, by source."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step under way: how many samples were asked for, its samples, and the position after it."""

    count: int
    read: Future[tuple[list[Drawn], News]]
    after: dict[str, Any]


class Prefetching(Mixture):
    """Endless draws from weighted sources, read ahead."""

    def __init__(self, sources: Mapping[str, tuple[Dataset, float]], *, workers: int, **rest: Any) -> None:
        super().__init__(sources, **rest)
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._steps: deque[_Step] = deque()
        self._taken = super().state()
        self._started = False

    def take(self, count: int) -> list[Drawn]:
        """See `Mixture.take`."""
        if self._steps and self._steps[0].count != count:
            self.load_state(self._taken)
        try:  # a pool whose process is gone refuses new work too, and that is often noticed first
            while len(self._steps) < AHEAD * self._workers:
                self._begin(count)
            step = self._steps.popleft()
            drawn, news = step.read.result()
        except BrokenProcessPool as error:
            what = "a process that reads data was ended from outside, as it is where memory is short"
            if not self._started:
                what = "a process that reads data ended before its first sample: it said why, or memory is short"
            raise UserError(what, where="data.workers", do="give fewer, or 0, and --resume") from error
        self._started = True
        self._taken = step.after
        self.learn(news)
        return drawn

    def state(self) -> dict[str, Any]:
        """Position after what was taken, JSON-able."""
        return self._taken

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that `state` gave; what was read ahead is dropped."""
        for step in self._steps:
            step.read.cancel()
        self._steps.clear()
        super().load_state(state)
        self._taken = super().state()

    def close(self) -> None:
        """End the processes."""
        self._steps.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _begin(self, count: int) -> None:
        if self._pool is None:  # only now: datasets are sent as they are when the first sample is asked for
            reader = Mixture({name: (one, 1.0) for name, one in self.datasets.items()}, seed=self._seed)
            self._pool = ProcessPoolExecutor(
                self._workers, mp_context=get_context("spawn"), initializer=_start, initargs=(reader,)
            )
        places = self.plan(count)
        try:  # the first sends the datasets along
            read = self._pool.submit(_read, places)
        except BrokenProcessPool:
            raise
        except Exception:  # a dataset may refuse to be sent by any
            self._check_sent()
            raise
        self._steps.append(_Step(count=count, read=read, after=super().state()))

    def _check_sent(self) -> None:
        """Refuse the dataset that cannot be sent to another process."""
        for name, dataset in self.datasets.items():
            try:
                ForkingPickler.dumps(dataset)
            except Exception as error:
                what = f"this dataset cannot be sent to another process ({type(error).__name__}: {error})"
                do = "set data.workers=0, or have the dataset open what it holds when it is asked for a sample"
                raise UserError(what, where=f"data.sources.{name}", do=do) from error


_reader: Mixture
"""In a process that reads: what it reads from."""
_failed: Exception | None = None
"""Why it cannot. It is kept until it is asked to: a process that fails at its start breaks the pool without a word."""


def _start(reader: Mixture) -> None:
    """Make this a process that reads, and that ends with the one that asked for it, however that ends."""
    global _reader, _failed
    _reader = reader
    os.setpgid(0, 0)  # torchrun sends SIGTERM to a run's whole group, and the run still needs samples when it stops
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to answer, which then ends this one
    try:
        for dataset in reader.datasets.values():
            if isinstance(dataset, ScoutedDataset):
                dataset.scout()
        threading.Thread(target=_end_with_parent, daemon=True).start()
    except Exception as error:
        _failed = error


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read(places: list[Place]) -> tuple[list[Drawn], News]:
    if _failed is not None:
        what = f"a process that reads data cannot start ({type(_failed).__name__}: {_failed})"
        raise UserError(what, where="data.workers", do="mend that, or give 0") from _failed
    return [_reader.read(place) for place in places], _reader.news()
