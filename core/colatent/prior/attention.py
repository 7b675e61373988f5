"""Attention over a flat batch, behind one function.

`attend` runs the parts of a layout one by one, as rectangles, or all at once: the work is a sum over samples, never the
square of the batch. Which kernel does it is chosen in `backends/choose.py`, by device, gradient and part. Published and
own models, training and generation, codec and prior all come through here.

Axes: N rows, H heads, D head channels, B samples, Q queries, K keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from colatent.latents.rows import AttentionPart, Layout
from colatent.prior.backends import flex, varlen
from colatent.prior.backends.choose import BACKENDS, FLEX, by_lengths, choose
from colatent.prior.backends.records import Case, Operands
from colatent.prior.cache import KVCache
from colatent.prior.fixed_cache import FixedCache


def attend(
    q_NHD: Tensor,
    k_NHD: Tensor,
    v_NHD: Tensor,
    *,
    layout: Layout,
    cache: KVCache | None = None,
    layer: int = 0,
    answered: Sequence[bool] | None = None,
) -> Tensor:
    """Softmax attention with scale 1/sqrt(D) as `layout` says; (N, H, D).

    answered  which parts of the layout are wanted; None: all. Queries of the others get zeros, but their keys and
              values still go into the cache
    """
    wanted = [True] * len(layout.parts) if answered is None else answered
    names = choose(layout, Case.of(q_NHD))
    if isinstance(cache, FixedCache) and by_lengths(layout, Case.of(q_NHD)):
        stored = cache.write(layer, k_NHD, v_NHD)
        return varlen.attend_block(q_NHD, *stored, cache) if any(wanted) else torch.zeros_like(q_NHD)
    if FLEX in names:
        return flex.attend_layout(q_NHD, k_NHD, v_NHD, layout=layout, answered=wanted)
    outputs = [
        _attend_part(q_NHD, k_NHD, v_NHD, part, cache, layer, name if needed else None)
        for part, name, needed in zip(layout.parts, names, wanted, strict=True)
    ]
    return layout.merge(outputs)


def _attend_part(
    q_NHD: Tensor,
    k_NHD: Tensor,
    v_NHD: Tensor,
    part: AttentionPart,
    cache: KVCache | None,
    layer: int,
    name: str | None,
) -> Tensor:
    """One part by the backend `name`; None: its answer is not wanted."""
    q_BQHD, k_BKHD, v_BKHD = part.queries.gather(q_NHD), part.keys.gather(k_NHD), part.keys.gather(v_NHD)
    if part.cache == "read":
        assert cache is not None
        k_BKHD, v_BKHD = cache.read(layer, k_BKHD, v_BKHD)
    elif part.cache == "fill":
        assert cache is not None
        cache.fill(layer, k_BKHD, v_BKHD)
    if name is None:
        return torch.zeros_like(q_BQHD)
    q_BHQD, k_BHKD, v_BHKD = (x.transpose(1, 2) for x in (q_BQHD, k_BKHD, v_BKHD))
    own = None if part.own is None else [part.queries.gather(x).transpose(1, 2) for x in (k_NHD, v_NHD)]
    operands = Operands(
        part=part, q_BHQD=q_BHQD, k_BHKD=k_BHKD, v_BHKD=v_BHKD, own=None if own is None else (own[0], own[1])
    )
    attend_part = BACKENDS[name].attend_part
    assert attend_part is not None
    return attend_part(operands).transpose(1, 2)
