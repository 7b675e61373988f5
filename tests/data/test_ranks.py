"""One order for all: ranks share it without a gap, workers read it ahead, and a position is good for any of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colatent.data.dataset import Sample
from colatent.data.mixture import Drawn, Mixture
from colatent.data.prefetch import AHEAD, Prefetching
from colatent.errors import UserError
from data.shards_made import opened, packed

WORLDS = (1, 2, 3, 4)


class Numbers:
    """Samples that hang on their index and on what they draw."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return {"number": index, "drawn": float(rng.random())}


SOURCES = {"some": (Numbers(7), 1.0), "more": (Numbers(30), 3.0)}


def mixture(rank: int = 0, world: int = 1, **rest: Any) -> Mixture:
    return Mixture(SOURCES, seed=5, rank=rank, world=world, **rest)


def steps(mixture: Mixture, count: int, batch: int = 12) -> list[list[Drawn]]:
    return [mixture.take(batch) for _ in range(count)]


def joined(shares: list[list[Drawn]]) -> list[Drawn]:
    """The shares of a step, dealt out in turn, in one row again."""
    row: list[Drawn | None] = [None] * sum(map(len, shares))
    for rank, share in enumerate(shares):
        row[rank :: len(shares)] = share
    return [one for one in row if one is not None]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("rest", [{}, {"whole": True}, {"whole": True, "sizes": {"some": 5}}])
def test_the_ranks_together_draw_what_one_alone_draws(world: int, rest: dict[str, Any]) -> None:
    alone = steps(mixture(**rest), 8)
    each = [steps(mixture(rank, world, **rest), 8) for rank in range(world)]
    assert [joined([ranks[number] for ranks in each]) for number in range(8)] == alone


@pytest.mark.parametrize("before", WORLDS)
@pytest.mark.parametrize("after", WORLDS)
def test_a_position_is_the_same_on_every_rank_and_good_for_any_number(before: int, after: int) -> None:
    whole = steps(mixture(), 6)
    ranks = [mixture(rank, before) for rank in range(before)]
    for one in ranks:
        steps(one, 3)
    states = {json.dumps(one.state()) for one in ranks}
    assert len(states) == 1
    resumed = [mixture(rank, after) for rank in range(after)]
    for one in resumed:
        one.load_state(json.loads(states.copy().pop()))
    each = [steps(one, 3) for one in resumed]
    assert [joined([shares[number] for shares in each]) for number in range(3)] == whole[3:]


def test_a_rank_reads_its_own_samples_only() -> None:
    asked = []

    class Noting(Numbers):
        def sample(self, index: int, rng: np.random.Generator) -> Sample:
            asked.append(index)
            return super().sample(index, rng)

    Mixture({"some": (Noting(100), 1.0)}, seed=0, rank=1, world=4).take(40)
    assert len(asked) == 10


# Reading ahead.


@pytest.fixture(scope="module", params=[1, 2])
def ahead(request: pytest.FixtureRequest) -> Iterator[Prefetching]:
    with closing(Prefetching(SOURCES, seed=5, workers=request.param)) as found:
        yield found


def test_workers_give_the_same_samples_and_the_position_of_what_was_taken(ahead: Prefetching) -> None:
    plain = mixture()
    for batch in (12, 12, 5, 12):  # another number of samples drops what was read ahead
        assert ahead.take(batch) == plain.take(batch)
        assert ahead.state() == plain.state()
    ahead.load_state({"drawn": {"some": 3, "more": 40}})
    plain.load_state({"drawn": {"some": 3, "more": 40}})
    assert ahead.take(12) == plain.take(12)
    assert ahead.state() == plain.state()


class Dying(Numbers):
    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        os._exit(9)


def test_a_worker_that_dies_at_once_is_one_line() -> None:
    line = (
        r"data\.workers: a process that reads data ended before its first sample: it said why, or memory is short; give"
    )
    with (
        closing(Prefetching({"some": (Dying(8), 1.0)}, seed=0, workers=1)) as mixed,
        pytest.raises(UserError, match=line),
    ):
        mixed.take(4)


class Shy(Numbers):
    """It cannot be made ready for another process to read."""

    def scout(self) -> None:
        raise RuntimeError("no more file descriptors")

    def news(self) -> list[Any]:
        return []

    def learn(self, news: Sequence[Any]) -> None:
        pass


def test_a_worker_that_cannot_start_says_why() -> None:
    line = r"^data\.workers: .* cannot start \(RuntimeError: no more file descriptors\); mend that, or give 0$"
    with (
        closing(Prefetching({"some": (Shy(8), 1.0)}, seed=0, workers=1)) as mixed,
        pytest.raises(UserError, match=line),
    ):
        mixed.take(4)


class Locked(Numbers):
    """It holds what cannot be sent to another process."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.lock = threading.Lock()


def test_a_dataset_that_cannot_be_sent_is_named() -> None:
    line = r"^data\.sources\.more: this dataset cannot be sent .*\(TypeError: .*lock.*\); set data\.workers=0,"
    sources = {"some": (Numbers(8), 1.0), "more": (Locked(8), 1.0)}
    with closing(Prefetching(sources, seed=0, workers=1)) as mixed, pytest.raises(UserError, match=line):
        mixed.take(4)


class Late(Numbers):
    """Its process ends a while after the first samples were read."""

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        threading.Timer(0.2, os._exit, [9]).start()
        return super().sample(index, rng)


def test_a_worker_that_dies_between_two_steps_is_one_line() -> None:
    line = r"data\.workers: a process that reads data was ended from outside"
    with closing(Prefetching({"some": (Late(8), 1.0)}, seed=0, workers=1)) as mixed:
        mixed.take(4)
        assert mixed._pool is not None
        for process in list(mixed._pool._processes.values()):
            process.join()
        with pytest.raises(UserError, match=line):
            steps(mixed, AHEAD + 1, batch=4)  # more than can have been read before it died


def stopped_as_by_a_launcher() -> None:
    """Take on after SIGTERM has come to all of this process's group."""
    signal.signal(signal.SIGTERM, lambda number, frame: print(signal.Signals(number).name))
    with closing(Prefetching(SOURCES, seed=5, workers=1)) as mixed:
        taken = [mixed.take(12)]
        os.killpg(os.getpgrp(), signal.SIGTERM)
        time.sleep(1.0)
        taken += steps(mixed, AHEAD + 1)
    print(taken == steps(mixture(), AHEAD + 2))


def test_a_signal_to_a_run_and_all_its_processes_leaves_it_its_samples() -> None:
    roots = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", "from data.test_ranks import *; stopped_as_by_a_launcher()"]
    ended = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": roots},
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.stdout.split(), ended.stderr) == (["SIGTERM", "True"], "")


def test_workers_count_damage_as_the_run_itself_does(tmp_path: Path) -> None:
    folder = packed(tmp_path / "shards", 40)
    path = sorted(folder.glob("*.tar"))[1]
    data = bytearray(path.read_bytes())
    for place in range(512, 8 * 1024, 1024):
        data[place] = 0
    path.write_bytes(data)

    def told(workers: int, damaged: float) -> tuple[list[list[Drawn]], list[str], str]:
        sources = {"lines": (opened(folder, damaged=damaged), 1.0)}
        mixed = Prefetching(sources, seed=0, workers=workers) if workers else Mixture(sources, seed=0)
        drawn: list[list[Drawn]] = []
        with warnings.catch_warnings(record=True) as lines, closing(mixed):
            warnings.simplefilter("always")
            try:
                for _ in range(6):
                    drawn.append(mixed.take(4))
            except UserError as error:
                return drawn, [str(one.message) for one in lines], str(error)
        return drawn, [str(one.message) for one in lines], ""

    enough, short = told(0, 0.5), told(0, 0.05)
    assert enough[1]
    assert not enough[2]
    assert "more than damaged=0.05 allows" in short[2]
    assert told(1, 0.5) == enough
    assert told(1, 0.05)[2] == short[2]
