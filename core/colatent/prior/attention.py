"""Attention over a flat batch, behind one function.

`attend` runs the parts of a layout one by one, as rectangles: the work is a sum over samples, never the square of the
batch. PyTorch's scaled dot product does it, except where a gradient is needed under a mask on a CPU: its backward pass
there takes three times as long as the plain matrix products of `masked_attention` (docs/decisions/). Published and own
models, training and generation, codec and prior all come through here.

Axes: N rows, H heads, D head channels, B samples, Q queries, K keys, O rows of a query's own block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from colatent.latents.rows import AttentionPart, Layout
from colatent.prior.cache import KVCache


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
    outputs = [
        _attend_part(q_NHD, k_NHD, v_NHD, part, cache, layer, needed)
        for part, needed in zip(layout.parts, wanted, strict=True)
    ]
    return layout.merge(outputs)


def _attend_part(
    q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, part: AttentionPart, cache: KVCache | None, layer: int, needed: bool
) -> Tensor:
    q_BQHD, k_BKHD, v_BKHD = part.queries.gather(q_NHD), part.keys.gather(k_NHD), part.keys.gather(v_NHD)
    if part.cache == "read":
        assert cache is not None
        k_BKHD, v_BKHD = cache.read(layer, k_BKHD, v_BKHD)
    elif part.cache == "fill":
        assert cache is not None
        cache.fill(layer, k_BKHD, v_BKHD)
    if not needed:
        return torch.zeros_like(q_BQHD)
    q_BHQD, k_BHKD, v_BHKD = (x.transpose(1, 2) for x in (q_BQHD, k_BKHD, v_BKHD))
    mask_BQK = None if part.mask_BQK is None else part.mask_BQK.to(q_NHD.device)
    if part.own is not None:
        own = [part.queries.gather(x).transpose(1, 2) for x in (k_NHD, v_NHD)]
        o_BHQD = masked_attention(q_BHQD, k_BHKD, v_BHKD, mask_BQK, own=(own[0], own[1], part.own))
    elif mask_BQK is not None and q_NHD.requires_grad and q_NHD.device.type == "cpu":
        o_BHQD = masked_attention(q_BHQD, k_BHKD, v_BHKD, mask_BQK)
    else:
        mask_B1QK = None if mask_BQK is None else mask_BQK[:, None]
        o_BHQD = F.scaled_dot_product_attention(q_BHQD, k_BHKD, v_BHKD, attn_mask=mask_B1QK)
    return o_BHQD.transpose(1, 2)


def masked_attention(
    q_BHQD: Tensor,
    k_BHKD: Tensor,
    v_BHKD: Tensor,
    mask_BQK: Tensor | None,
    *,
    own: tuple[Tensor, Tensor, int] | None = None,
) -> Tensor:
    """Attention as plain matrix products. `own` is (keys, values, O): queries in runs of O also see their own run's."""
    q_BHQD = q_BHQD * q_BHQD.shape[-1] ** -0.5
    score_BHQK = q_BHQD @ k_BHKD.transpose(-1, -2)
    if mask_BQK is not None:
        bias_BQK = torch.zeros(mask_BQK.shape, dtype=score_BHQK.dtype, device=mask_BQK.device)
        score_BHQK = score_BHQK + bias_BQK.masked_fill_(~mask_BQK, -torch.inf)[:, None]
    if own is None:
        return _softmax(score_BHQK) @ v_BHKD
    keys, history = [x.unflatten(2, (-1, own[2])) for x in own[:2]], k_BHKD.shape[2]
    score_BHQO = (q_BHQD.unflatten(2, (-1, own[2])) @ keys[0].transpose(-1, -2)).flatten(2, 3)
    weight = _softmax(torch.cat([score_BHQK, score_BHQO], dim=-1))
    near_BHQD = (weight[..., history:].unflatten(2, (-1, own[2])) @ keys[1]).flatten(2, 3)
    return weight[..., :history] @ v_BHKD + near_BHQD


def _softmax(score_BHQK: Tensor) -> Tensor:
    """Over the keys, in float32 at least."""
    wide = torch.float32 if score_BHQK.dtype == torch.bfloat16 else score_BHQK.dtype
    return score_BHQK.softmax(-1, dtype=wide).to(score_BHQK.dtype)
