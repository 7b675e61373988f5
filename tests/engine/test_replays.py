"""Passes of one shape, kept from call to call: their items are those of passes of each block's own shape, whatever was
generated before. On a CPU nothing is recorded; on CUDA graphs are.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from itertools import islice
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from sampling import BLOCK, CHANNELS, Lines, given, record, request
from torch import Tensor

from colatent.errors import UserError
from colatent.generate.engine import BlockSampler
from colatent.generate.replays import SETTING, Kept, Replays, replaying
from colatent.generate.requests import Request, Settings
from colatent.prior.backends import tiled, varlen
from colatent.prior.dit import Prior

BLOCKS = 5


def calls() -> dict[str, tuple[list[Request], dict[str, Any]]]:
    """One after the other; made here, where numbers have the tests' precision."""
    return {
        "alone": ([request("partial"), request("partial", seed=1)], {"unconditional": "alone"}),
        "again": ([request("partial", seed=2), request("partial", seed=3)], {"unconditional": "alone"}),
        "of several lengths": ([request("two blocks"), request("empty", seed=1)], {"unconditional": "alone"}),
        "from nothing": ([request("empty"), request("empty", seed=1)], {"unconditional": "alone"}),
        "unguided": ([request("three and a bit")], {"guidance": 1.0}),
        "without its condition": (
            [request("partial", seed=s, given=(given("other", record(5, seed=s)),)) for s in (4, 5)],
            {"unconditional": "condition", "solver": "heun"},
        ),
        "with intervals": ([request("two blocks")], {"guidance_interval": (0.0, 0.5), "solver": "ab2"}),
        "alone once more": ([request("partial"), request("partial", seed=1)], {"unconditional": "alone"}),
    }


def sampler_of(
    prior: Prior, requests: list[Request], kept: Kept | None, *, window: int = 10, **settings: object
) -> BlockSampler:
    """Of a window that is shorter than what is generated, unless it is given."""
    chosen = Settings(**({"steps": 3, "solver": "euler", "guidance": 3.0} | settings))  # type: ignore[arg-type]
    return BlockSampler(
        prior,
        Lines(),  # type: ignore[arg-type]
        requests,
        settings=chosen,
        window=window,
        new=BLOCKS * BLOCK,
        kept=kept,
    )


def made(
    prior: Prior, requests: list[Request], kept: Kept | None, *, blocks: int = BLOCKS, **settings: object
) -> list[Tensor]:
    found = list(islice(sampler_of(prior, requests, kept, **settings), blocks))
    return [torch.cat([block[item].z_LC for block in found]) for item in range(len(requests))]


def by_hand(q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, most: int, columns: int) -> Tensor:
    """In the place of the kernel: one sequence after the other."""
    out = torch.full_like(q, torch.nan)
    assert len(queries) == len(keys)
    for q0, q1, k0, k1 in zip(queries, queries[1:], keys, keys[1:], strict=False):
        assert q0 <= q1 <= q0 + most
        assert k0 <= k1
        if q1 > q0:
            assert k1 - k0 <= columns
            weights = torch.einsum("qhd,khd->hqk", q[q0:q1], k[k0:k1]) / q.shape[-1] ** 0.5
            out[q0:q1] = torch.einsum("hqk,khd->qhd", weights.softmax(-1), v[k0:k1])
    return out


@pytest.fixture(params=["masks", "sequences"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How attention over the fixed cache is done; gives the calls of the kernel for sequences."""
    calls: list[int] = []
    if request.param == "sequences":
        monkeypatch.setattr(varlen, "works", lambda case: True)

        def counted(*args: object) -> Tensor:
            calls.append(1)
            return by_hand(*args)  # type: ignore[arg-type]

        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", counted)
    yield calls
    assert bool(calls) == (request.param == "sequences")


@torch.no_grad()
@pytest.mark.usefixtures("double", "kernel")
def test_items_are_those_of_passes_of_their_own_shape(make_prior) -> None:
    prior, kept = make_prior({"text": CHANNELS, "other": CHANNELS}), Kept()
    for requests, settings in calls().values():
        plain, again = made(prior, requests, None, **settings), made(prior, requests, kept, **settings)
        for one, other in zip(plain, again, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.usefixtures("double")
def test_weights_that_have_changed_since_are_seen(make_prior) -> None:
    prior, kept = make_prior({"text": CHANNELS}), Kept()
    requests = [request("partial")]
    before = made(prior, requests, kept)
    for parameter in prior.parameters():
        parameter.mul_(1.1)
    after = made(prior, requests, kept)
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(after, made(prior, requests, None), rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_call_that_broke_off_leaves_nothing_behind(make_prior) -> None:
    prior, kept = make_prior({"text": CHANNELS}), Kept()
    requests = [request("partial")]
    good = made(prior, requests, kept)
    bad = [Request(target="text", own=record(6, seed=0), names=(float("nan"),))]  # type: ignore[arg-type]
    own = bad[0].own
    assert own is not None
    own.mean_LC.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        made(prior, bad, kept)
    torch.testing.assert_close(made(prior, requests, kept), good, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.usefixtures("double")
def test_runs_that_take_turns_do_not_share_a_cache(make_prior) -> None:
    prior, kept = make_prior({"text": CHANNELS}), Kept()
    asked = [[request("partial", seed=seed)] for seed in (0, 1)]
    alone = [made(prior, requests, None) for requests in asked]
    turns = [iter(sampler_of(prior, requests, kept)) for requests in asked]
    both = list(islice(zip(*turns, strict=True), BLOCKS))
    for item, one in enumerate(alone):
        found = torch.cat([blocks[item][0].z_LC for blocks in both])
        torch.testing.assert_close(found, one[0], rtol=0, atol=1e-10)
    del turns  # the one that was first had the replays until now
    before = kept._replays
    torch.testing.assert_close(made(prior, asked[0], kept), alone[0], rtol=0, atol=1e-10)
    assert kept._replays is before
    assert before is not None


@torch.no_grad()
@pytest.mark.usefixtures("double", "kernel")
def test_more_may_come_than_was_expected(make_prior, monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec whose blocks hold padding makes more of them than its budget in units says."""
    monkeypatch.setattr("colatent.generate.engine.ROOM", 1)
    prior, kept, requests = make_prior({"text": CHANNELS}), Kept(), [request("partial"), request("empty", seed=1)]
    plain = made(prior, requests, None, blocks=BLOCKS + 4, window=100)
    for _ in range(2):
        found = made(prior, requests, kept, blocks=BLOCKS + 4, window=100)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.usefixtures("double")
def test_nothing_is_kept_of_a_mask_that_changes(make_prior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLATENT_ATTENTION", "matrix")
    monkeypatch.setattr(tiled, "LEAST", 1)
    prior, kept, requests = make_prior({"text": CHANNELS}), Kept(), [request("partial"), request("two blocks")]
    torch.testing.assert_close(made(prior, requests, kept), made(prior, requests, None), rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.usefixtures("double")
def test_another_prior_or_another_way_to_run_it_is_another_shape(make_prior) -> None:
    kept, requests = Kept(), [request("partial")]
    one, other = make_prior({"text": CHANNELS}), make_prior({"text": CHANNELS}, seed=1)
    for prior in (one, other, one):
        torch.testing.assert_close(made(prior, requests, kept), made(prior, requests, None), rtol=0, atol=1e-10)
    with torch.inference_mode():
        inside = made(one, requests, kept)
    torch.testing.assert_close(made(one, requests, kept), [each.clone() for each in inside], rtol=0, atol=1e-10)


@torch.no_grad()
def test_the_last_shape_is_let_go_before_the_next_is_made(make_prior) -> None:
    prior, kept = make_prior({"text": CHANNELS}), Kept()
    gc.collect()
    gc.disable()  # nothing waits for the collector
    try:
        made(prior, [request("partial")], kept)
        assert kept._replays is not None
        before = weakref.ref(kept._replays.cache)
        monkey = kept._replays
        monkey._held.clear()  # on a CPU a pass that is not recorded holds its replays; on CUDA the graph does not
        del monkey
        made(prior, [request("partial"), request("empty")], kept)
        assert before() is None
    finally:
        gc.enable()


@torch.no_grad()
def test_what_a_card_refuses_to_record_is_told_in_a_line(make_prior, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def recording(*args: object, **how: object) -> Iterator[None]:
        try:
            yield
            raise RuntimeError("operation not permitted when stream is capturing\nand much more")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    for name in ("Stream", "CUDAGraph", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", lambda side: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(Replays, "_there", lambda self: nullcontext())
    prior, kept = make_prior({"text": CHANNELS}), Kept()
    one = sampler_of(prior, [request("partial")], kept)
    one.cache = one._fill(BLOCK)
    assert one.replays is not None
    one.replays._pool = (0, 0)
    with pytest.raises(UserError, match=r"not permitted when stream is capturing\); set COLATENT_GRAPHS=off") as caught:
        next(one.events())
    assert "\n" not in str(caught.value)
    assert kept._lent.acquire(blocking=False)  # whoever comes next may have them


def test_copies_begin_without(make_prior) -> None:
    prior, kept = make_prior({"text": CHANNELS}), Kept()
    with torch.no_grad():
        made(prior, [request("partial")], kept)
    copy = deepcopy(kept)
    assert copy is not kept
    assert copy._replays is None


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for said, found in {"": (False, True), "auto": (False, True), "on": (True, True), "off": (False, False)}.items():
        monkeypatch.setenv(SETTING, said)
        assert (replaying(cpu), replaying(cuda)) == found
    monkeypatch.setenv(SETTING, "auto")
    monkeypatch.setenv("COLATENT_ATTENTION", "xformers")
    assert not replaying(cuda)
    monkeypatch.setenv(SETTING, "yes")
    with pytest.raises(UserError, match="COLATENT_GRAPHS: there is no choice 'yes'; set auto, on or off"):
        replaying(cpu)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@torch.no_grad()
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recorded_passes_on_cuda_give_the_items_of_the_cpu(make_prior, dtype: torch.dtype) -> None:
    """The kernel for sequences in bfloat16, masks in float32; every call a second time, by replays alone."""
    here, kept = make_prior({"text": CHANNELS, "other": CHANNELS}, width=32), Kept()  # heads of 16 channels
    there = make_prior({"text": CHANNELS, "other": CHANNELS}, width=32).to("cuda")
    for requests, settings in calls().values():
        settings |= {"solver": "euler", "guidance": min(1.5, settings.get("guidance", 1.5))}
        plain = made(here, requests, None, **settings)
        for _ in range(2):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                found = made(there, requests, kept, **settings)
            for one, other in zip(plain, found, strict=True):
                near = 5e-4 if dtype == torch.float32 else 0.1
                torch.testing.assert_close(one, other, rtol=0, atol=near)
