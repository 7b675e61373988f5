"""Attention of a block's rows over a `FixedCache`: PyTorch's flash kernel for sequences of any length, called once.

Where sequences begin and end stands in tensors on the card, so a recorded pass serves every block: no mask, no padding,
and both branches of guidance at once. For generation on CUDA alone.

Axes: N rows, M rows of the store, H heads, D head channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from colatent.prior.backends.records import Case
from colatent.prior.backends.xformers import DTYPES, WIDEST_HEAD
from colatent.prior.fixed_cache import FixedCache


def works(case: Case) -> bool:
    """Whether the kernel does this."""
    fits = case.head_dim <= WIDEST_HEAD and case.head_dim % 8 == 0
    if case.device.type != "cuda" or case.gradient or case.dtype not in DTYPES or not fits:
        return False
    return torch.cuda.get_device_capability(case.device) >= (8, 0)


def attend_block(q_NHD: Tensor, k_MHD: Tensor, v_MHD: Tensor, cache: FixedCache) -> Tensor:
    """Attention of the rows of a block, (N, H, D), over all that the cache stores."""
    from torch.nn.attention.varlen import varlen_attn

    ends_E = cache.queries_E(len(q_NHD))
    found = varlen_attn(q_NHD, k_MHD, v_MHD, ends_E, cache.keys_E, cache.block, cache.columns)
    assert isinstance(found, Tensor)
    return found
