"""What generation asks of the network: how many passes, over how many rows, and how often modulation is computed."""

from __future__ import annotations

import pytest
import torch
from sampling import BLOCK, CHANNELS, generate, given, record, request

from colatent.prior.dit import Prior

EVALUATIONS = [("euler", 5), ("midpoint", 10), ("heun", 10), ("ab2", 5)]


def watch(prior: Prior) -> tuple[list[int], list[int]]:
    """Rows of every pass, and entries of every table of modulation, as they come."""
    rows: list[int] = []
    tables: list[int] = []
    prior.enter["text"].register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    prior.time.register_forward_pre_hook(lambda module, args: tables.append(len(args[0])))
    return rows, tables


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize(("solver", "evaluations"), EVALUATIONS)
def test_one_pass_for_each_velocity_and_one_to_commit_what_is_followed(
    make_prior, solver: str, evaluations: int, guidance: float
) -> None:
    prior = make_prior({"text": CHANNELS})
    rows, _ = watch(prior)
    requests = [request("partial"), request("two blocks", seed=1)]
    generate(prior, requests, blocks=3, solver=solver, steps=5, guidance=guidance)
    branches = 1 if guidance == 1.0 else 2
    block = [2 * BLOCK * branches] * evaluations + [2 * BLOCK]
    assert rows == [4 + 8, *(block * 3)[:-1]]  # the prompts' whole blocks first, in one pass


@torch.no_grad()
def test_without_history_there_is_no_second_branch(make_prior) -> None:
    prior = make_prior({"text": CHANNELS})
    rows, _ = watch(prior)
    generate(prior, [request("empty"), request("shorter than a block")], blocks=2, steps=2, guidance=3.0)
    assert rows == [8, 8, 8, 16, 16]


@torch.no_grad()
@pytest.mark.parametrize(("solver", "branches"), [("euler", [1, 2, 2, 1]), ("heun", [1, 2, 2, 2, 2, 1, 1, 1])])
@pytest.mark.parametrize("unconditional", ["alone", "condition"])
def test_outside_the_interval_there_is_one_branch(
    make_prior, solver: str, branches: list[int], unconditional: str
) -> None:
    prior = make_prior({"text": CHANNELS})
    rows, _ = watch(prior)
    before = record(8, seed=1)
    assert before is not None
    requests = [request("empty", given=(given("text", before),))]
    settings = {"guidance": 3.0, "guidance_interval": (0.5, 0.8), "unconditional": unconditional}
    generate(prior, requests, blocks=2, solver=solver, steps=4, **settings)
    commit = 2 if unconditional == "condition" else 1
    assert rows[1:] == [BLOCK * count for count in (*branches, commit, *branches)]


@torch.no_grad()
@pytest.mark.parametrize(("solver", "times"), [("euler", 6), ("midpoint", 11), ("heun", 6), ("ab2", 6)])
def test_modulation_is_computed_once_per_distinct_time(make_prior, solver: str, times: int) -> None:
    prior = make_prior({"text": CHANNELS})
    _, tables = watch(prior)
    generate(prior, [request("partial")], blocks=3, solver=solver, steps=5, guidance=3.0)
    assert tables == [times]
