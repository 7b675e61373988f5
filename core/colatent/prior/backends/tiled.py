"""Attention as matrix products over tiles of queries, each against the keys from the first to the last that it sees.

A rectangle under a block-causal mask is half empty, and long rows of scores do not fit a processor's cache: tiles leave
out most of what nobody sees. Scores are not kept for the backward pass but computed again, so memory grows with the
length and not with its square.

Axes: B samples, H heads, Q queries, K keys, D head channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from colatent.latents.rows import AttentionPart
from colatent.prior.backends.records import Operands

TILE = (64, 128)
"""Queries of a tile: an eighth of the keys, within this; whole runs, where queries have runs of their own."""
LEAST = 192
"""Keys from which on tiles are used: what they leave out of fewer is soon computed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """Some queries and what they see.

    queries      where they stand
    keys         the keys from the first to the last that one of them sees
    own          whether the queries' own rows follow these keys
    open         so many keys at the beginning are seen by all
    hidden_B1QK  which of the others are not seen, (B or 1, 1, Q, K)
    """

    queries: slice
    keys: slice
    own: bool
    open: int
    hidden_B1QK: Tensor


def takes(part: AttentionPart) -> bool:
    """Whether tiles are worth their while. A block that reads a cache has too few queries, and its mask may change."""
    return part.mask_BQK is not None and part.cache != "read" and part.mask_BQK.shape[2] >= LEAST


def attend_part(given: Operands) -> Tensor:
    """Attention of one part under a mask, (B, H, Q, D)."""
    device = given.q_BHQD.device
    key = ("tiles", device)
    if key not in given.part.made:
        given.part.made[key] = list(_tiles(given.part, device))
    own_k, own_v = given.own or (None, None)
    if device.type == "meta":  # there is no autocast, nor a number to round
        return _Tiled.apply(given.q_BHQD, given.k_BHKD, given.v_BHKD, own_k, own_v, given.part.made[key])
    with torch.autocast(device.type, enabled=False):  # a softmax need not be kept in float32
        return _Tiled.apply(given.q_BHQD, given.k_BHKD, given.v_BHKD, own_k, own_v, given.part.made[key])


def _tiles(part: AttentionPart, device: torch.device) -> Iterator[Tile]:
    assert part.mask_BQK is not None
    _, queries, keys = part.mask_BQK.shape
    run = part.own or 1
    size = -(-min(max(TILE[0], keys // 8), TILE[1]) // run) * run
    for first in range(0, queries, size):
        seen_BQK = part.mask_BQK[:, first : first + size]
        (column,) = seen_BQK.flatten(0, 1).any(0).nonzero(as_tuple=True)
        start, stop = (int(column[0]), int(column[-1]) + 1) if len(column) else (0, 0)
        seen_BQK = seen_BQK[:, :, start:stop]
        if part.own is not None:
            run_Q = torch.arange(seen_BQK.shape[1]) // run
            own_BQQ = (run_Q[:, None] == run_Q).expand(len(seen_BQK), -1, -1)
            seen_BQK = torch.cat([seen_BQK, own_BQQ], dim=-1)
        (part_seen,) = (~seen_BQK.flatten(0, 1).all(0)).nonzero(as_tuple=True)
        seen_by_all = int(part_seen[0]) if len(part_seen) else seen_BQK.shape[-1]
        yield Tile(
            queries=slice(first, first + seen_BQK.shape[1]),
            keys=slice(start, stop),
            own=part.own is not None,
            open=seen_by_all,
            hidden_B1QK=~seen_BQK[:, None, :, seen_by_all:].to(device),
        )


class _Tiled(torch.autograd.Function):
    """Softmax attention by tiles. Weights are rounded as in other kernels; sums over tiles are in float32 at least."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        own_k: Tensor | None,
        own_v: Tensor | None,
        tiles: Sequence[Tile],
    ) -> Tensor:
        q = q * q.shape[-1] ** -0.5
        k, v = k.contiguous(), v.contiguous()
        own_k, own_v = (None if x is None else x.contiguous() for x in (own_k, own_v))
        ctx.save_for_backward(q, k, v, own_k, own_v)
        ctx.tiles, out = tiles, torch.empty_like(q)
        for tile in tiles:
            keys, values = _seen(k, own_k, tile), _seen(v, own_v, tile)
            out[:, :, tile.queries] = _weights(q[:, :, tile.queries], keys, tile) @ values
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, own_k, own_v = ctx.saved_tensors
        wide = torch.promote_types(q.dtype, torch.float32)
        grad_q, grads = torch.empty_like(q), [torch.zeros_like(x, dtype=wide) for x in (k, v)]
        grads_own = [None if x is None else torch.empty_like(x) for x in (own_k, own_v)]
        for tile in ctx.tiles:
            keys, values = _seen(k, own_k, tile), _seen(v, own_v, tile)
            q_BHQD, g_BHQD = q[:, :, tile.queries], grad[:, :, tile.queries]
            weight = _weights(q_BHQD, keys, tile)
            slope = torch.ops.aten._softmax_backward_data(g_BHQD @ values.transpose(-1, -2), weight, -1, weight.dtype)
            grad_q[:, :, tile.queries] = slope @ keys
            far = tile.keys.stop - tile.keys.start
            for given, of, own, whole in zip((slope, weight), (q_BHQD, g_BHQD), grads_own, grads, strict=True):
                found = given.transpose(-1, -2) @ of
                whole[:, :, tile.keys] += found[:, :, :far]
                if own is not None:
                    own[:, :, tile.queries] = found[:, :, far:]
        return grad_q * q.shape[-1] ** -0.5, grads[0].to(k.dtype), grads[1].to(v.dtype), *grads_own, None


def _seen(x: Tensor, own: Tensor | None, tile: Tile) -> Tensor:
    """Keys or values of a tile."""
    seen = x[:, :, tile.keys]
    return seen if own is None else torch.cat([seen, own[:, :, tile.queries]], dim=2)


def _weights(q: Tensor, keys: Tensor, tile: Tile) -> Tensor:
    score = q @ keys.transpose(-1, -2)
    score[..., tile.open :].masked_fill_(tile.hidden_B1QK, -torch.inf)
    return score.softmax(-1)
