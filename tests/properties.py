"""How properties are tried: many examples, the same at every call, and nothing written beside the tests.

Examples are a function of the test's own source, so a failure here is a failure everywhere; Hypothesis then looks for
the smallest one that fails. What takes a minute is taken for a hang.
"""

from __future__ import annotations

import atexit
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from hypothesis import HealthCheck, Phase, configuration, settings
from hypothesis import strategies as st

from colatent.errors import UserError

_HOME = tempfile.mkdtemp(prefix="hypothesis-")  # what it keeps would lie in the current folder
configuration.set_hypothesis_home_dir(_HOME)
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

Found = TypeVar("Found")
LONGEST = 60.0
"""Seconds that a program under test may take for one input."""


def tries(count: int) -> settings:
    """So many examples of a property."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def attempt(work: Callable[[], Found]) -> Found | str:
    """What some work gives, or the one line in which it refuses its input. Other errors fail, and so does no end."""
    try:
        with _no_hang():
            return work()
    except UserError as error:
        line = str(error)
    assert "\n" not in line
    return line


@contextmanager
def _no_hang() -> Iterator[None]:

    def late(*_: object) -> NoReturn:
        raise AssertionError(f"no end after {LONGEST:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


Draw = Callable[[st.SearchStrategy[Any]], Any]


def place_in(draw: Draw, data: bytes, *, step: int = 1) -> int:
    """A place in some bytes, a multiple of `step`."""
    return step * draw(st.integers(0, (len(data) - 1) // step))


def flip(draw: Draw, data: bytes) -> bytes:
    """Up to three bits are others."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        found[place_in(draw, data)] ^= 1 << draw(st.integers(0, 7))
    return bytes(found)


def overwrite(draw: Draw, data: bytes) -> bytes:
    """Other bytes stand in the place of some."""
    start, noise = place_in(draw, data), draw(st.binary(min_size=1, max_size=600))
    return (data[:start] + noise + data[start + len(noise) :])[: len(data)]


def cut_out(draw: Draw, data: bytes) -> bytes:
    """Some are missing."""
    start = place_in(draw, data)
    return data[:start] + data[start + draw(st.integers(1, 2000)) :]


def put_in(draw: Draw, data: bytes) -> bytes:
    """Some were not there before."""
    start = place_in(draw, data)
    return data[:start] + draw(st.binary(min_size=1, max_size=2000)) + data[start:]


def cut_off(draw: Draw, data: bytes) -> bytes:
    """The end is missing."""
    return data[: place_in(draw, data)]


def move(draw: Draw, data: bytes) -> bytes:
    """Two blocks of an archive stand in another place too."""
    start, to = (place_in(draw, data, step=512) for _ in range(2))
    return data[:to] + data[start : start + 1024] + data[to + 1024 :]


@st.composite
def changed(draw: Draw, data: bytes) -> bytes:
    """What becomes of bytes that something happened to."""
    change = draw(st.sampled_from([flip, overwrite, cut_out, put_in, cut_off, move]))
    return change(draw, data)  # type: ignore[no-any-return]
