"""Attention by PyTorch's scaled dot product, which picks a fused kernel where there is one.

A mask of ours hides keys of one sample, (1, Q, K) where all samples agree, and is never one over the batch.

Axes: B samples, H heads, Q queries, K keys, D head channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from colatent.prior.backends.records import Operands


def attend_part(given: Operands) -> Tensor:
    """Attention of one part, (B, H, Q, D)."""
    k_BHKD, v_BHKD, mask_BQK = given.k_BHKD, given.v_BHKD, given.mask_BQK
    if given.own is not None:
        k_BHKD, v_BHKD = (torch.cat(pair, dim=2) for pair in zip((k_BHKD, v_BHKD), given.own, strict=True))
        mask_BQK = _with_own(given)
    mask_B1QK = None if mask_BQK is None else mask_BQK[:, None]
    return F.scaled_dot_product_attention(given.q_BHQD, k_BHKD, v_BHKD, attn_mask=mask_B1QK)


def _with_own(given: Operands) -> Tensor:
    """The mask over a part's keys followed by the queries' own rows; made once for all layers."""
    key = ("with own", given.q_BHQD.device)
    if key not in given.part.made:
        assert given.part.own is not None
        queries, keys, device = given.q_BHQD.shape[2], given.k_BHKD.shape[2], given.q_BHQD.device
        run_Q = torch.arange(queries, device=device) // given.part.own
        own_1QQ = (run_Q[:, None] == run_Q)[None]
        before_BQK = given.mask_BQK
        if before_BQK is None:
            before_BQK = torch.ones(1, queries, keys, dtype=torch.bool, device=device)
        given.part.made[key] = torch.cat([before_BQK, own_1QQ.expand(len(before_BQK), -1, -1)], dim=-1)
    return given.part.made[key]
