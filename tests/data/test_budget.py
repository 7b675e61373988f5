"""Steps by a budget of latents: never over it, as full as their order allows, and the same for any number of processes
and workers, from any position."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest

from colatent.data.budget import Budget, Budgeted
from colatent.data.dataset import Sample
from colatent.data.mixture import Drawn, Mixture
from colatent.data.prefetch import Prefetching
from colatent.errors import UserError

WORLDS = (1, 2, 3)
LATENTS, CHUNK = 40, 7


class Lengths:
    """Samples of 1 to 12 latents, which hang on what they draw: other ones in every epoch."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return {"latents": int(rng.integers(1, 13))}


SOURCES = {"some": (Lengths(7), 1.0), "more": (Lengths(30), 3.0)}


def lengths(drawn: Sequence[Drawn]) -> list[int]:
    return [one.sample["latents"] for one in drawn]


def steps_of(rank: int = 0, world: int = 1, *, workers: int = 0, latents: int = LATENTS) -> Budgeted:
    mixture = Prefetching(SOURCES, seed=5, workers=workers) if workers else Mixture(SOURCES, seed=5)
    budget = Budget(latents=latents, shares=world, where="stages.prior.budget")
    return Budgeted(mixture, budget, measure=lengths, rank=rank, world=world)


def taken(draws: Budgeted, count: int) -> list[list[Drawn]]:
    return [draws.take(CHUNK) for _ in range(count)]


def names(drawn: Sequence[Drawn]) -> list[tuple[str, int]]:
    return sorted((one.key, one.epoch) for one in drawn)


def test_a_step_is_as_full_as_the_order_allows_and_never_over_the_budget() -> None:
    steps, plain = taken(steps_of(), 40), Mixture(SOURCES, seed=5)
    sizes = {len(step) for step in steps}
    assert len(sizes) > 3  # many short samples or few long ones
    for step in steps:
        assert names(plain.take(len(step))) == names(step)
        position = plain.state()
        assert sum(lengths(step)) <= LATENTS < sum(lengths([*step, *plain.take(1)]))
        plain.load_state(position)


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_share_the_steps_of_one_and_none_is_without_a_sample(world: int) -> None:
    alone = taken(steps_of(), 40)
    ranks = [steps_of(rank, world) for rank in range(world)]
    shares = list(zip(*(taken(one, 40) for one in ranks), strict=True))
    for step, some in zip(alone, shares, strict=True):
        assert names([one for share in some for one in share]) == names(step)
        assert all(some)
        loads = [sum(lengths(share)) for share in some]
        assert max(loads) - min(loads) <= max(lengths(step))
    assert len({json.dumps(one.state()) for one in ranks}) == 1


@pytest.mark.parametrize("before", WORLDS)
@pytest.mark.parametrize("after", WORLDS)
def test_a_position_is_good_for_any_number_of_processes(before: int, after: int) -> None:
    whole, stopped = taken(steps_of(), 9), steps_of(before - 1, before)
    taken(stopped, 4)
    position = json.dumps(stopped.state())
    ranks = [steps_of(rank, after) for rank in range(after)]
    for one in ranks:
        one.load_state(json.loads(position))
    for step in whole[4:]:
        assert names([one for draws in ranks for one in draws.take(CHUNK)]) == names(step)


def test_a_position_is_that_of_the_samples_that_were_taken() -> None:
    draws = steps_of()
    count = sum(map(len, taken(draws, 3)))
    plain = Mixture(SOURCES, seed=5)
    plain.take(count)
    assert draws.state() == plain.state()


def test_workers_and_how_many_are_read_at_a_time_change_nothing() -> None:
    plain, other = steps_of(), steps_of()
    with closing(steps_of(workers=2)) as ahead:
        for _ in range(12):
            step = plain.take(CHUNK)
            assert ahead.take(CHUNK) == other.take(3) == step
            assert ahead.state() == other.state() == plain.state()
        ahead.load_state({"drawn": {"some": 3, "more": 40}})
        plain.load_state({"drawn": {"some": 3, "more": 40}})
        assert taken(ahead, 3) == taken(plain, 3)


@pytest.mark.parametrize(
    ("world", "latents", "line"),
    [
        (1, 11, r"^stages\.prior\.budget: is 11, and sample \w+/\d+ alone has 12 latents; raise it, or shorten items"),
        (3, 35, r"^stages\.prior\.budget: is 35, .* has 12 latents, more than one of 3 shares \(11\); raise it"),
    ],
)
def test_a_sample_that_does_not_fit_is_one_line(world: int, latents: int, line: str) -> None:
    with pytest.raises(UserError, match=line):
        taken(steps_of(0, world, latents=latents), 40)
