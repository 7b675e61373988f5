"""Attention as plain matrix products: the backward pass of PyTorch's kernel takes three times as long on a CPU under a
mask. Scores are kept in memory, (B, H, Q, K); long ones are done in tiles instead.

Axes: B samples, H heads, Q queries, K keys, D head channels, O rows of a query's own run.
"""

from __future__ import annotations

import torch
from torch import Tensor

from colatent.prior.backends import tiled
from colatent.prior.backends.records import Operands


def attend_part(given: Operands) -> Tensor:
    """Attention of one part, (B, H, Q, D)."""
    if tiled.takes(given.part):
        return tiled.attend_part(given)
    own = None if given.own is None or given.part.own is None else (*given.own, given.part.own)
    return masked_attention(given.q_BHQD, given.k_BHKD, given.v_BHKD, given.mask_BQK, own=own)


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
    wide = torch.promote_types(score_BHQK.dtype, torch.float32)
    return score_BHQK.softmax(-1, dtype=wide).to(score_BHQK.dtype)
