"""Generation against a reference without caches, which computes every velocity from all latents, branch by branch.

The sampler's cache, right-aligned ragged histories, window, joined guidance branches and pinned latents must all
disappear in the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from sampling import BLOCK, CHANNELS, LENGTHS, generate, given, record, request
from torch import Tensor

from colatent.flow.solvers import SOLVERS
from colatent.generate.engine import BlockSampler
from colatent.generate.requests import Request, Settings
from colatent.latents.draws import normal
from colatent.plugins.contract import BlockPlan
from colatent.prior.dit import Prior
from reference import ReferencePrior, Row, next_block, placed


def slow(
    prior: Prior,
    one: Request,
    *,
    blocks: int,
    window: int | None = None,
    steps: int = 2,
    solver: str = "euler",
    guidance: float = 1.0,
    condition: bool = False,
    dtype: torch.dtype = torch.float64,
    **ways: Any,
) -> Tensor:
    """The same from the reference, for one request."""
    reference = ReferencePrior(prior.state_dict(), prior.config, dtype=dtype)
    past, offset = given_rows(one)
    group = past[-1].group + 1 if past else 0
    own = one.own
    real = 0 if own is None else int((own.units_L > 0).sum())
    whole = real // BLOCK * BLOCK
    first = past[-1].block + 1 if past else 0
    for index in range(whole):
        position = placed(own.positions_LA[index], offset)
        number = index // BLOCK
        row = Row(stream="text", z=own.mean_LC[index], t=0.0, position=position, block=first + number)
        past.append(replace(row, group=group + number))
    made: list[Row] = []
    for number in range(blocks):
        start = whole + number * BLOCK
        made += next_block(
            reference,
            [*past, *made],
            normal((BLOCK, CHANNELS), *one.names, "text", number),
            stream="text",
            positions=[placed(torch.tensor([float(start + inside)]), offset) for inside in range(BLOCK)],
            pinned=list(own.mean_LC[whole:real]) if own is not None and not number else (),
            steps=steps,
            solver=solver,
            guidance=guidance,
            window=window,
            free=(first, offset) if condition else None,
            **ways,
        )
    return torch.stack([row.z for row in made])


def given_rows(one: Request) -> tuple[list[Row], float]:
    """Rows of the whole items before the target, and where the next item begins."""
    rows: list[Row] = []
    offset, block, group = 0.0, -1, -1
    for index, part in enumerate(one.given):
        follows = index + 1 < len(one.given) and one.given[index + 1].same_group
        latents = iter(zip(part.latents.mean_LC, part.latents.positions_LA, strict=True))
        for number, length in enumerate(part.latents.block_lengths):
            block += 1
            group += not (part.same_group or (follows and number))
            for z, position in islice(latents, length):
                place = placed(position, offset)
                rows.append(Row(stream=part.stream, z=z, t=0.0, position=place, block=block, group=group))
        offset = max(float(row.position.max()) for row in rows) + 1.0
    return rows, offset


def assert_equal(found: Tensor, truth: Tensor, tolerance: float) -> None:
    assert found.shape == truth.shape
    assert float((found - truth).abs().max()) <= tolerance * max(1.0, float(truth.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", LENGTHS)
def test_cached_equals_uncached(double, make_prior, name: str, solver: str, guidance: float) -> None:
    prior = make_prior({"text": CHANNELS}, layers=2)
    found = generate(prior, [request(name)], blocks=2, solver=solver, guidance=guidance)[0]
    assert_equal(found, slow(prior, request(name), blocks=2, solver=solver, guidance=guidance), 1e-10)


@torch.no_grad()
@pytest.mark.parametrize(
    "names", [("partial", "two blocks", "exact block"), ("three and a bit", "shorter than a block", "empty")]
)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_ragged_batch_equals_the_reference_one_by_one(
    double, make_prior, names: tuple[str, ...], guidance: float
) -> None:
    prior = make_prior({"text": CHANNELS}, layers=2)
    requests = [request(name, seed=seed) for seed, name in enumerate(names)]
    for one, found in zip(requests, generate(prior, requests, blocks=3, guidance=guidance), strict=True):
        assert_equal(found, slow(prior, one, blocks=3, guidance=guidance), 1e-10)


@torch.no_grad()
def test_any_order_of_a_ragged_batch(double, make_prior) -> None:
    prior = make_prior({"text": CHANNELS})
    for names in (("empty", "partial"), ("partial", "empty"), ("empty", "partial", "empty"), ("empty", "empty")):
        requests = [request(name, seed=seed) for seed, name in enumerate(names)]
        for one, found in zip(requests, generate(prior, requests, blocks=1, guidance=3.0), strict=True):
            assert_equal(found, generate(prior, [one], blocks=1, guidance=3.0)[0], 1e-10)


@torch.no_grad()
@pytest.mark.parametrize("window", [4, 8, 10])
def test_window_of_the_cache_equals_a_dense_pass_with_its_mask(double, make_prior, window: int) -> None:
    prior = make_prior({"text": CHANNELS}, layers=2)
    names = ("three and a bit", "partial", "empty")
    requests = [request(name, seed=seed) for seed, name in enumerate(names)]
    found = generate(prior, requests, blocks=3, window=window, guidance=3.0)
    for one, latents in zip(requests, found, strict=True):
        assert_equal(latents, slow(prior, one, blocks=3, window=window, guidance=3.0), 1e-10)
    wide = slow(prior, requests[0], blocks=3, guidance=3.0)
    assert float((found[0] - wide).abs().max()) > 1e-3  # the window is felt


@torch.no_grad()
@pytest.mark.parametrize("dual_layers", [0, 1])
def test_given_items_of_other_streams_and_axes(double, make_prior, dual_layers: int) -> None:
    prior = make_prior({"text": CHANNELS, "image": 5}, dual_layers=dual_layers, layers=1)
    picture, caption = record(6, seed=1, channels=5, block=6, axes=2), record(8, seed=2)
    assert picture is not None
    assert caption is not None
    requests = [
        request("partial", seed=1, given=(given("image", picture),)),
        request("empty", seed=2, given=(given("text", caption), given("image", picture))),
        request("exact block", seed=3),
    ]
    for one, found in zip(requests, generate(prior, requests, blocks=2, guidance=3.0), strict=True):
        assert_equal(found, slow(prior, one, blocks=2, guidance=3.0), 1e-10)


@torch.no_grad()
@pytest.mark.parametrize("window", [64, 7])
@pytest.mark.parametrize("names", [("partial", "partial"), ("empty", "empty"), ("three and a bit", "two blocks")])
def test_guidance_against_the_item_without_its_condition(
    double, make_prior, names: tuple[str, str], window: int
) -> None:
    prior = make_prior({"text": CHANNELS, "image": 5}, dual_layers=1, layers=1)
    picture, caption = record(6, seed=1, channels=5, block=6, axes=2), record(8, seed=2)
    assert picture is not None
    assert caption is not None
    requests = [
        request(names[0], seed=1, given=(given("image", picture),)),
        request(names[1], seed=2, given=(given("text", caption), given("image", picture, same_group=True))),
    ]
    ways = {"guidance": 3.0, "window": window}
    found = generate(prior, requests, blocks=3, unconditional="condition", **ways)
    for one, latents in zip(requests, found, strict=True):
        assert_equal(latents, slow(prior, one, blocks=3, condition=True, **ways), 1e-10)
        assert_equal(latents, generate(prior, [one], blocks=3, unconditional="auto", **ways)[0], 1e-10)
    alone = generate(prior, requests, blocks=3, unconditional="alone", **ways)
    assert all(float((one - other).abs().max()) > 1e-3 for one, other in zip(found, alone, strict=True))


WAYS = {
    "shift": ({"shift": 2.5}, {"shift": 2.5}),
    "above": ({"guidance_interval": (0.5, 1.0)}, {"interval": (0.5, 1.0)}),
    "inside": ({"guidance_interval": (0.2, 0.7)}, {"interval": (0.2, 0.7)}),
    "rescaled": ({"guidance_rescale": 0.7}, {"rescale": 0.7}),
    "all": (
        {"shift": 0.6, "guidance_interval": (0.3, 0.8), "guidance_rescale": 1.0},
        {"shift": 0.6, "interval": (0.3, 0.8), "rescale": 1.0},
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("branch", ["alone", "condition"])
@pytest.mark.parametrize("solver", ["heun", "ab2"])
@pytest.mark.parametrize(("settings", "ways"), WAYS.values(), ids=WAYS)
def test_grids_and_guidance_that_is_not_everywhere(
    double, make_prior, settings: dict[str, Any], ways: dict[str, Any], solver: str, branch: str
) -> None:
    prior = make_prior({"text": CHANNELS, "image": 5})
    picture = record(6, seed=1, channels=5, block=6, axes=2)
    assert picture is not None
    requests = [request(name, seed=seed, given=(given("image", picture),)) for seed, name in enumerate(LENGTHS)]
    how = {"steps": 3, "solver": solver, "guidance": 3.0}
    found = generate(prior, requests, blocks=2, unconditional=branch, **how, **settings)
    for one, latents in zip(requests, found, strict=True):
        assert_equal(latents, slow(prior, one, blocks=2, condition=branch == "condition", **how, **ways), 1e-10)
    plain = generate(prior, requests, blocks=2, unconditional=branch, **how)
    assert all(float((one - other).abs().max()) > 1e-3 for one, other in zip(found, plain, strict=True))


@torch.no_grad()
def test_guidance_against_the_condition_is_off_where_nothing_is_given(double, make_prior) -> None:
    prior = make_prior({"text": CHANNELS})
    one = [request("partial")]
    assert_equal(
        generate(prior, one, blocks=2, guidance=3.0, unconditional="condition")[0],
        generate(prior, one, blocks=2, guidance=1.0)[0],
        1e-10,
    )
    assert_equal(
        generate(prior, one, blocks=2, guidance=3.0, unconditional="auto")[0],
        generate(prior, one, blocks=2, guidance=3.0, unconditional="alone")[0],
        1e-10,
    )


@torch.no_grad()
@pytest.mark.parametrize("window", [64, 11, 7])
def test_given_items_of_one_group_see_each_other(double, make_prior, window: int) -> None:
    prior = make_prior({"text": CHANNELS, "image": 5}, dual_layers=1, layers=1)
    picture, order, note = record(6, seed=1, channels=5, block=6, axes=2), record(8, seed=2), record(4, seed=3)
    assert picture is not None
    assert order is not None
    assert note is not None
    requests = [
        request("partial", seed=1, given=(given("text", order), given("image", picture, same_group=joined)))
        for joined in (True, False)
    ]
    parts = given("text", note), given("text", order), given("image", picture, same_group=True), given("text", note)
    requests.append(request("empty", seed=2, given=parts))
    found = generate(prior, requests, blocks=2, guidance=3.0, window=window)
    for one, latents in zip(requests, found, strict=True):
        assert_equal(latents, slow(prior, one, blocks=2, guidance=3.0, window=window), 1e-10)
    lone = generate(prior, [replace(requests[0], given=requests[1].given)], blocks=2, guidance=3.0, window=window)
    assert float((found[0] - lone[0]).abs().max()) > 1e-3  # the group is felt


@torch.no_grad()
@pytest.mark.parametrize("window", [64, 5])
def test_blocks_that_grow(double, make_prior, window: int) -> None:
    prior = make_prior({"text": CHANNELS})

    class Growing:
        def plan(self, request: object) -> Iterator[BlockPlan]:
            for start, length in ((0, 2), (2, 3), (5, 6), (11, 4)):
                yield BlockPlan(length=length, positions_LA=torch.arange(start, start + length).double()[:, None])

    one = request("empty")
    settings = Settings(steps=2, solver="euler", guidance=3.0)
    sampler = BlockSampler(prior, Growing(), [one], settings=settings, window=window)  # type: ignore[arg-type]
    made: list[Row] = []
    for number, (block,) in enumerate(sampler):
        made += next_block(
            ReferencePrior(prior.state_dict(), prior.config),
            made,
            normal(block.z_LC.shape, *one.names, "text", number),
            stream="text",
            positions=[placed(position, 0.0) for position in block.positions_LA],
            steps=2,
            solver="euler",
            guidance=3.0,
            window=window,
        )
        assert_equal(block.z_LC, torch.stack([row.z for row in made])[-len(block.z_LC) :], 1e-10)
    assert len(made) == 15


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_float32_equals_a_float32_reference(make_prior, guidance: float) -> None:
    prior = make_prior({"text": CHANNELS}, layers=2)
    found = generate(prior, [request("partial")], blocks=2, guidance=guidance)[0]
    truth = slow(prior, request("partial"), blocks=2, guidance=guidance, dtype=torch.float32)
    assert_equal(found, truth, 1e-5)


@torch.no_grad()
def test_same_latents_whatever_the_batch(make_prior) -> None:
    prior = make_prior({"text": CHANNELS}, layers=2)
    requests = [request(name, seed=seed) for seed, name in enumerate(LENGTHS)]
    together = generate(prior, requests, blocks=3, guidance=3.0)
    for one, found in zip(requests, together, strict=True):
        assert_equal(found, generate(prior, [one], blocks=3, guidance=3.0)[0], 1e-5)
    again = generate(prior, requests[::-1], blocks=3, guidance=3.0)[::-1]
    for one, found in zip(again, together, strict=True):
        assert_equal(found, one, 1e-5)


@torch.no_grad()
def test_guidance_of_one_is_the_conditional_and_more_is_felt(make_prior) -> None:
    prior = make_prior({"text": CHANNELS})
    off, weak, strong = (generate(prior, [request("partial")], blocks=2, guidance=s)[0] for s in (1.0, 1.0 + 1e-6, 3.0))
    assert_equal(weak, off, 1e-4)
    assert float((strong - off).abs().max()) > 1e-2


@torch.no_grad()
def test_guidance_is_off_in_the_first_block_without_history(make_prior) -> None:
    prior = make_prior({"text": CHANNELS})
    for name in ("empty", "shorter than a block"):
        off, on = (generate(prior, [request(name)], blocks=2, guidance=s)[0] for s in (1.0, 3.0))
        assert_equal(on[:BLOCK], off[:BLOCK], 1e-6)
        assert float((on - off).abs().max()) > 1e-2


@torch.no_grad()
def test_pinned_latents_keep_their_value(make_prior) -> None:
    prior = make_prior({"text": CHANNELS})
    one = request("partial")
    assert one.own is not None
    found = generate(prior, [one], blocks=2, guidance=3.0)[0]
    assert torch.equal(found[:2], one.own.mean_LC[4:6])
