"""A disk that fails at the n-th thing that is asked of it: an open, a write, a sync, a rename or a new folder."""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colatent.checkpoint import metrics, storage


class FaultyFile:
    """A file whose writes count as operations; the one that fails has written half of its bytes."""

    def __init__(self, file: Any, operation: Callable[[], None]) -> None:
        self._file, self._operation = file, operation

    def write(self, data: Any) -> int:
        view = memoryview(data)
        half = int(self._file.write(view[: len(view) // 2]))
        self._operation()
        return half + int(self._file.write(view[len(view) // 2 :]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> FaultyFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


@contextlib.contextmanager
def failing_at(n: int, fail: Callable[[], None]) -> Iterator[list[int]]:
    """Call `fail` at the n-th operation; gives the count of operations so far."""
    count = [0]

    def operation() -> None:
        count[0] += 1
        if count[0] == n:
            fail()

    with watched_disk(operation):
        yield count


@contextlib.contextmanager
def watched_disk(operation: Callable[[], None]) -> Iterator[None]:
    """Call `operation` before every operation of whatever lasts: checkpoints, states, metrics."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            operation()
            return function(*args, **kwargs)

        return wrapped

    def faulty_open(path: Path, mode: str = "r", **options: Any) -> Any:
        if not set(mode) & set("xwa+"):
            return builtins.open(path, mode, **options)
        operation()
        return FaultyFile(builtins.open(path, mode, **options), operation)

    with pytest.MonkeyPatch.context() as patch:
        for module in (storage, metrics):
            patch.setattr(module, "open", faulty_open, raising=False)
        for name in ("fsync", "rename", "replace", "mkdir"):
            patch.setattr(os, name, wrap(getattr(os, name)))
        yield


def disk_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def not_allowed() -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
