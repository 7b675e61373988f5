"""Attention over a flat batch, behind one function.

`attend` runs the parts of a layout one by one, as rectangles, through PyTorch's scaled dot product: the work is a sum
over samples, never the square of the batch. Published and own models, training and generation, codec and prior all
come through here.

Axes: N rows, H heads, D head channels, B samples, Q queries, K keys.
"""

from __future__ import annotations

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
) -> Tensor:
    """Softmax attention with scale 1/sqrt(D) as `layout` says; (N, H, D). Keys may have fewer heads than queries."""
    return layout.merge([_attend_part(q_NHD, k_NHD, v_NHD, part, cache, layer) for part in layout.parts])


def _attend_part(
    q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, part: AttentionPart, cache: KVCache | None, layer: int
) -> Tensor:
    q_BQHD, k_BKHD, v_BKHD = part.queries.gather(q_NHD), part.keys.gather(k_NHD), part.keys.gather(v_NHD)
    if part.cache == "read":
        assert cache is not None
        k_BKHD, v_BKHD = cache.read(layer, k_BKHD, v_BKHD)
    elif part.cache == "fill":
        assert cache is not None
        cache.fill(layer, k_BKHD, v_BKHD)
    mask = None if part.mask_BQK is None else part.mask_BQK[:, None].to(q_NHD.device)
    o_BHQD = F.scaled_dot_product_attention(
        q_BQHD.transpose(1, 2),
        k_BKHD.transpose(1, 2),
        v_BKHD.transpose(1, 2),
        attn_mask=mask,
        enable_gqa=q_BQHD.shape[2] != k_BKHD.shape[2],
    )
    return o_BHQD.transpose(1, 2)
