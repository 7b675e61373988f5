"""What kernels without a mask are given in its place: blocks for FlexAttention, sequences with gaps for xFormers.

xFormers has no kernel for a CPU: its backend is run with a plain stand-in for the kernel that reads the same bias, so
that all of it but the kernel is held.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from attending import asks_with_history, drawn, formula, history, prefixes, scattered, seen_by, two_copies
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask

from colatent.latents.packing import stack_masks
from colatent.latents.rows import AttentionPart, Rows
from colatent.prior.attention import attend
from colatent.prior.backends import flex, xformers
from colatent.prior.backends.choose import BACKENDS, SETTING, choose
from colatent.prior.backends.records import Case
from colatent.prior.backends.runs import flat_runs
from colatent_text.layouts import cut_layout, items_layout

CPU = torch.device("cpu")


@pytest.mark.parametrize(("blocks", "block"), [((3, 1, 2), 4), ((6, 2), 20), ((2, 1), 160)])
def test_blocks_of_the_flat_batch_are_those_of_a_dense_mask(make_segment, blocks, block: int) -> None:
    layout = two_copies(make_segment, blocks, block)
    answered = (True,) * len(layout.parts)
    block_mask = flex.block_mask_of(layout, answered, CPU)
    seen_NN = seen_by(layout)
    assert torch.equal(create_mask(block_mask.mask_mod, None, None, *seen_NN.shape, device="cpu")[0, 0], seen_NN)
    edge = -layout.length % flex.BLOCK
    tile_MMQK = (
        torch.nn.functional.pad(seen_NN, (0, edge, 0, edge))
        .unflatten(1, (-1, flex.BLOCK))
        .unflatten(0, (-1, flex.BLOCK))
    )
    some_MM, all_MM = flex.blocks_seen(flat_runs(layout, answered))
    assert np.array_equal(some_MM, tile_MMQK.any(3).any(1))
    assert np.array_equal(all_MM, tile_MMQK.all(3).all(1))
    assert all_MM.any() == (block > 128)  # blocks that need no look at single keys are met
    assert torch.equal(block_mask.to_dense()[0, 0].bool(), torch.from_numpy(some_MM))


def test_a_layout_knows_its_block_mask(make_segment) -> None:
    layout = two_copies(make_segment)
    assert flex.block_mask_of(layout, (True, True), CPU) is flex.block_mask_of(layout, (True, True), CPU)
    assert flex.block_mask_of(layout, (True, True), CPU) is not flex.block_mask_of(layout, (False, True), CPU)


@pytest.mark.parametrize("attention", ["block_causal", "causal", "full"])
def test_runs_say_what_a_text_codec_sees(attention: str) -> None:
    assert flex.takes(items_layout((20, 12), block=4, window=8, attention=attention))
    assert flex.takes(cut_layout((20, 12), ((1, 3), ()), block=4, window=8))


@torch.no_grad()
@pytest.mark.parametrize("backend", ["flex"], indirect=True)
def test_what_runs_cannot_say_is_done_in_rectangles(backend: str) -> None:
    layout = scattered()
    assert choose(layout, Case.of(drawn(6)[0])) == ("sdpa",)
    torch.testing.assert_close(attend(*drawn(6), layout=layout), formula(*drawn(6), seen_by(layout)))
    assert choose(prefixes(), Case.of(drawn(6)[0])) == ("sdpa",)


# xFormers, all but its kernel.


def stand_in(q: Tensor, k: Tensor, v: Tensor, *, attn_bias: Any) -> Tensor:
    """What xFormers' kernel computes, from the bias that it gets; over nothing it gives zeros."""
    score = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    bias = attn_bias.materialize((q.shape[1], k.shape[1]), dtype=q.dtype)
    return torch.einsum("bhqk,bkhd->bqhd", torch._safe_softmax(score + bias, -1), v)


@pytest.fixture
def with_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = pytest.importorskip("xformers.ops")
    monkeypatch.setattr(ops, "memory_efficient_attention", stand_in)
    monkeypatch.setitem(BACKENDS, "xformers", replace(BACKENDS["xformers"], why_not=lambda case: None))
    monkeypatch.setenv(SETTING, "xformers")


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(5, 3, 0), (4, 4), (6,)])
def test_xformers_reads_the_cache_as_others_do(with_stand_in, monkeypatch, lengths: tuple[int, ...]) -> None:
    asked, answers = drawn(2 * len(lengths)), {}
    for name in ("xformers", "sdpa"):
        monkeypatch.setenv(SETTING, name)
        cache = history(lengths, like=asked[0])
        layout = asks_with_history(cache)
        assert choose(layout, Case.of(asked[0])) == (name,)
        answers[name] = attend(*asked, layout=layout, cache=cache)
    torch.testing.assert_close(answers["xformers"], answers["sdpa"], rtol=0, atol=1e-14)


@torch.no_grad()
def test_xformers_takes_groups_and_windows_of_a_prefix(with_stand_in, monkeypatch) -> None:
    asked, answers, layout = drawn(10), {}, prefixes()
    for name in ("xformers", "sdpa"):
        monkeypatch.setenv(SETTING, name)
        assert choose(layout, Case.of(asked[0])) == (name,)
        answers[name] = attend(*asked, layout=layout, cache=history((6, 4, 0), like=asked[0]))
    torch.testing.assert_close(answers["xformers"], answers["sdpa"], rtol=0, atol=1e-14)


def test_the_bias_of_xformers_is_our_mask() -> None:
    pytest.importorskip("xformers")
    mask_BQK = stack_masks([np.tril(np.ones((3, 5), dtype=bool), 2), np.ones((2, 4), dtype=bool)])
    part = AttentionPart(queries=Rows([0, 3], [3, 2]), keys=Rows([0, 5], [5, 4]), mask_BQK=mask_BQK)
    bias = xformers.bias_of(part, keys=5, apart=7, device=CPU).materialize((6, 12)) == 0
    truth = torch.zeros(6, 12, dtype=torch.bool)
    truth[:3, :5], truth[3:, 7:] = mask_BQK
    assert torch.equal(bias, truth)


@torch.no_grad()
def test_xformers_leaves_to_others_what_it_cannot_do(with_stand_in, make_segment) -> None:
    layout = two_copies(make_segment)
    assert choose(layout, Case.of(drawn(1)[0])) == ("xformers", "matrix")
    torch.testing.assert_close(
        attend(*drawn(layout.length), layout=layout), formula(*drawn(layout.length), seen_by(layout))
    )
    assert choose(layout, Case.of(drawn(1)[0].requires_grad_())) == ("matrix", "matrix")
    assert choose(scattered(), Case.of(drawn(1)[0])) == ("sdpa",)
