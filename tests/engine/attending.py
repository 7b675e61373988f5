"""Layouts of attention, random operands, and the formula written out densely, for tests of its backends."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from colatent.generate.prefix import Prefix, pack_prefixes
from colatent.latents.packing import pack
from colatent.latents.rows import AttentionPart, Layout, Rows
from colatent.prior.attention import attend
from colatent.prior.cache import KVCache


def two_copies(make_segment, lengths: tuple[int, ...] = (3, 1, 2), block: int = 4) -> Layout:
    """The layout of a training batch of sequences of so many blocks."""
    return pack([(make_segment("text", (block,) * n, seed=n),) for n in lengths]).layout


def prefixes(lengths: tuple[int, ...] = (6, 4, 0), *, window: int = 4) -> Layout:
    """The layout that fills a cache: prefixes of blocks of two."""
    each = [
        Prefix(
            streams=("text",),
            parts=(torch.zeros(length, 1),),
            positions_L3=torch.zeros(length, 3),
            group_L=np.arange(length) // 2,
            offset=0.0,
            pinned_RC=torch.zeros(0, 1),
        )
        for length in lengths
    ]
    found = pack_prefixes(each, window=window)
    assert found is not None
    return found.layout


def scattered() -> Layout:
    """One sample that sees every second of six rows: three runs."""
    rows = Rows([0], [6])
    mask_1QK = (torch.arange(6) % 2 == 0).expand(1, 6, 6)
    return Layout((AttentionPart(queries=rows, keys=rows, mask_BQK=mask_1QK),), 6)


def seen_by(layout: Layout) -> Tensor:
    """Who sees whom in a layout without a cache, (N, N), read off its parts one number at a time."""
    seen_NN = torch.zeros(layout.length, layout.length, dtype=torch.bool)
    for part in layout.parts:
        for b in range(part.queries.batch):
            first, key = part.queries.starts[b], part.keys.starts[b]
            for q in range(part.queries.lengths[b]):
                for k in range(part.keys.lengths[b]):
                    mask_QK = None if part.mask_BQK is None else part.mask_BQK[b % len(part.mask_BQK)]
                    seen_NN[first + q, key + k] = mask_QK is None or mask_QK[q, k]
                if part.own is not None:
                    run = first + q // part.own * part.own
                    seen_NN[first + q, run : run + part.own] = True
    return seen_NN


def formula(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, seen_NN: Tensor) -> Tensor:
    """Softmax attention, dense."""
    score_HNN = torch.einsum("qhd,khd->hqk", q_NHD, k_NHD) / q_NHD.shape[-1] ** 0.5
    return torch.einsum("hqk,khd->qhd", score_HNN.masked_fill(~seen_NN, -torch.inf).softmax(-1), v_NHD)


def drawn(rows: int, *, heads: int = 2, head_dim: int = 12, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys and values."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, heads, head_dim, dtype=torch.float64, generator=generator).to(dtype) for _ in range(3)]


def history(lengths: tuple[int, ...], *, like: Tensor) -> KVCache:
    """A cache that holds this much for each sample, of heads, dtype and device as `like`, with room left in it."""
    heads, head_dim = like.shape[-2:]
    cache = KVCache(layers=1, batch=len(lengths), heads=heads, head_dim=head_dim, window=8, block=2)
    kept = drawn(len(lengths) * max(lengths), heads=heads, head_dim=head_dim)[1:]
    k_BLHD, v_BLHD = (x.to(like).unflatten(0, (len(lengths), -1)) for x in kept)
    cache.fill(0, k_BLHD, v_BLHD)
    cache.filled(torch.tensor(lengths))
    return cache


def asks_with_history(cache: KVCache) -> Layout:
    """The layout of blocks of two latents that look back."""
    batch = len(cache.length_B)
    rows = Rows([2 * b for b in range(batch)], [2] * batch)
    return Layout((AttentionPart(queries=rows, keys=rows, mask_BQK=cache.mask_BQK(2), cache="read"),), 2 * batch)


def assert_like_the_formula(layout: Layout) -> None:
    """Values and gradients of attention in float64 are those of the dense formula."""
    found, truth = ([x.clone().requires_grad_() for x in drawn(layout.length)] for _ in range(2))
    o_NHD, true_NHD = attend(*found, layout=layout), formula(*truth, seen_by(layout))
    torch.testing.assert_close(o_NHD, true_NHD, rtol=0, atol=1e-13)
    weight = torch.randn(o_NHD.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pairs = ((o_NHD, found), (true_NHD, truth))
    gradients, true = (torch.autograd.grad((o * weight).sum(), x) for o, x in pairs)
    for one, two in zip(gradients, true, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
