"""Looking on while blocks are made: what is seen between the solver's steps, and that neither looking nor a cache of
the expected size changes a bit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import pytest
import torch
from sampling import BLOCK, CHANNELS, Lines, request
from torch import Tensor

from colatent.flow.solvers import SOLVERS, shifted_grid, solve
from colatent.generate.engine import BlockSampler
from colatent.generate.events import Made, Step
from colatent.generate.requests import Request, Settings
from colatent.prior.dit import Prior


def sampler(prior: Prior, requests: Sequence[Request], *, new: int | None = None, **settings: object) -> BlockSampler:
    chosen = Settings(**({"steps": 3, "solver": "euler", "guidance": 3.0} | settings))  # type: ignore[arg-type]
    return BlockSampler(prior, Lines(), requests, settings=chosen, window=16, new=new)  # type: ignore[arg-type]


def spiral(z: Tensor, t: float) -> Tensor:
    return torch.stack([z[1], -z[0]]) * (1 + t) + t


@pytest.mark.parametrize("solver", SOLVERS)
def test_steps_one_by_one_lead_to_the_solution(solver: str) -> None:
    grid = shifted_grid(7)
    z = torch.tensor([1.0, 0.5])
    whole = solve(solver, spiral, z, grid)
    moves = list(SOLVERS[solver](spiral, z, grid))
    assert [move.t for move in moves] == list(grid[:-1])
    for move in moves:
        assert torch.equal(move.z, z)
        assert torch.equal(move.velocity, spiral(z, move.t))
        z = move.after
    assert torch.equal(z, whole)


@torch.no_grad()
@pytest.mark.parametrize("solver", SOLVERS)
def test_states_lead_from_the_noise_to_the_block(make_prior, solver: str) -> None:
    made = sampler(make_prior({"text": CHANNELS}), [request("partial"), request("two blocks", seed=1)], solver=solver)
    events = list(islice(made.events(), 8))
    assert [type(event) for event in events] == [Step, Step, Step, Made] * 2
    for number, block in enumerate((events[:4], events[4:])):
        *steps, done = block
        assert [(step.block, step.number, step.t) for step in steps] == [
            (number, index, t) for index, t in enumerate(shifted_grid(3)[:-1])
        ]
        assert done.block == number
    noise = made.noise(BLOCK)  # of the third block, which is not begun
    assert not torch.equal(events[4].z_BKC, noise)
    assert torch.equal(events[0].z_BKC[0, :2], events[3].latents[0].z_LC[:2])  # pinned from the first state on


@torch.no_grad()
def test_the_estimate_is_where_the_velocity_points(make_prior) -> None:
    made = sampler(make_prior({"text": CHANNELS}), [request("partial")], steps=1)
    step, done = islice(made.events(), 2)
    assert isinstance(step, Step)
    assert isinstance(done, Made)
    assert step.t == 1.0
    (estimate,) = step.clean()
    torch.testing.assert_close(estimate.z_LC, step.z_BKC[0] - step.velocity_BKC[0], rtol=0, atol=0)
    torch.testing.assert_close(estimate.z_LC, done.latents[0].z_LC)  # one Euler step goes just there
    assert torch.equal(estimate.positions_LA, done.latents[0].positions_LA)


@torch.no_grad()
def test_looking_on_changes_nothing(make_prior) -> None:
    prior = make_prior({"text": CHANNELS})
    requests = [request("partial"), request("empty", seed=1)]
    plain = list(islice(sampler(prior, requests), 3))
    watched = []
    for event in sampler(prior, requests).events():
        if isinstance(event, Made):
            watched.append(event.latents)
        else:
            event.clean()
        if len(watched) == 3:
            break
    for blocks, others in zip(plain, watched, strict=True):
        for block, other in zip(blocks, others, strict=True):
            assert torch.equal(block.z_LC, other.z_LC)


@torch.no_grad()
@pytest.mark.parametrize("new", [0, BLOCK, 3 * BLOCK, 100])
@pytest.mark.parametrize("names", [("empty",), ("partial", "two blocks", "empty"), ("three and a bit",)])
def test_a_cache_of_what_is_expected_gives_the_same_bits(make_prior, names: tuple[str, ...], new: int) -> None:
    prior = make_prior({"text": CHANNELS}, layers=2)
    requests = [request(name, seed=seed) for seed, name in enumerate(names)]
    whole, fitted = sampler(prior, requests), sampler(prior, requests, new=new)
    for blocks, others in islice(zip(whole, fitted, strict=True), 5):  # further than the window of 16
        for block, other in zip(blocks, others, strict=True):
            assert torch.equal(block.z_LC, other.z_LC)


@torch.no_grad()
def test_memory_is_taken_for_what_is_expected(make_prior) -> None:
    prior = make_prior({"text": CHANNELS})
    for new, columns in ((0, 4), (BLOCK, 8), (100, 16), (None, 16)):
        made = sampler(prior, [request("partial")], new=new)
        next(iter(made))
        assert made.cache is not None
        keys = made.cache._keys[0]
        assert keys is not None
        assert keys.shape[1] == columns + BLOCK
