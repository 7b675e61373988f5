"""What is given, as one flat batch for the pass that fills the cache.

Whole blocks of everything that comes before go into the cache at t = 0; the latents of a prompt's last, partial block
are kept back, to be pinned in the first block that is generated.

Axes: N rows of the flat batch, L latents of a prefix, C channels, B samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from colatent.generate.requests import Request
from colatent.latents.packing import stack_masks
from colatent.latents.rows import AttentionPart, Layout, Rows
from colatent.latents.sequence import groups_of, history_mask, next_offset, place
from colatent.plugins.latents import Encoded


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """The given latents of one sample.

    streams       name of the stream of each part, in order
    parts         their latents, (L, C) each
    positions_L3  placed positions of all of them
    group_L       number of the group of each latent
    offset        where the item to be generated begins
    pinned_RC     latents of the item's own partial block; R may be 0
    """

    streams: tuple[str, ...]
    parts: tuple[Tensor, ...]
    positions_L3: Tensor
    group_L: np.ndarray
    offset: float
    pinned_RC: Tensor

    @property
    def length(self) -> int:
        """Latents that go into the cache."""
        return len(self.group_L)


def prefix_of(request: Request, *, channels: int) -> Prefix:
    """Lay out what a request gives; `channels` is the width of the target's latents."""
    streams: list[str] = []
    parts: list[Tensor] = []
    placed: list[Tensor] = []
    blocks: list[tuple[int, ...]] = []
    joined: list[bool] = []
    offset = 0.0
    for one in request.given:
        streams.append(one.stream)
        parts.append(one.latents.mean_LC)
        placed.append(place(one.latents.positions_LA, offset))
        blocks.append(one.latents.block_lengths)
        joined.append(one.same_group)
        offset = next_offset(placed[-1])
    pinned_RC = torch.zeros(0, channels)
    if request.own is not None:
        whole, count, real = split_own(request.own)
        if whole:
            streams.append(request.target)
            parts.append(request.own.mean_LC[:whole])
            placed.append(place(request.own.positions_LA[:whole], offset))
            blocks.append(request.own.block_lengths[:count])
            joined.append(False)
        pinned_RC = request.own.mean_LC[whole:real]
    groups = groups_of([len(lengths) for lengths in blocks], joined)
    return Prefix(
        streams=tuple(streams),
        parts=tuple(parts),
        positions_L3=torch.cat(placed) if placed else torch.zeros(0, 3),
        group_L=np.repeat(np.array(groups, dtype=int), [length for lengths in blocks for length in lengths]),
        offset=offset,
        pinned_RC=pinned_RC,
    )


def split_own(own: Encoded) -> tuple[int, int, int]:
    """(latents in whole blocks, number of those blocks, latents that hold data) of an item's own beginning."""
    real = int((own.units_L > 0).sum())
    whole = count = 0
    for length in own.block_lengths:
        if whole + length > real:
            break
        whole, count = whole + length, count + 1
    return whole, count, real


def prefix_lengths(request: Request) -> tuple[int, int]:
    """Latents that a request puts into the cache: of what is given, and of the item's own beginning."""
    own = 0 if request.own is None else split_own(request.own)[0]
    return sum(len(one.latents.mean_LC) for one in request.given), own


@dataclass(frozen=True, kw_only=True, eq=False)
class PrefixBatch:
    """All prefixes of a batch, flat."""

    x: dict[str, Tensor]
    rows: dict[str, Tensor | None]
    layout: Layout
    positions_N3: Tensor
    length_B: Tensor


def pack_prefixes(prefixes: Sequence[Prefix], *, window: int) -> PrefixBatch | None:
    """One flat batch; None where nothing is given at all."""
    lengths = [prefix.length for prefix in prefixes]
    if not sum(lengths):
        return None
    starts = [int(start) for start in np.cumsum([0, *lengths[:-1]])]
    masks = [history_mask(prefix.group_L, window=window) for prefix in prefixes]
    rectangle = Rows(starts, lengths, align="right")
    part = AttentionPart(queries=rectangle, keys=rectangle, mask_BQK=stack_masks(masks, align="right"), cache="fill")
    x, rows = _by_stream(prefixes)
    return PrefixBatch(
        x=x,
        rows=rows,
        layout=Layout((part,), sum(lengths)),
        positions_N3=torch.cat([prefix.positions_L3 for prefix in prefixes]),
        length_B=torch.tensor(lengths),
    )


def _by_stream(prefixes: Sequence[Prefix]) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    latents: dict[str, list[Tensor]] = {}
    places: dict[str, list[Tensor]] = {}
    start = 0
    for prefix in prefixes:
        for stream, z_LC in zip(prefix.streams, prefix.parts, strict=True):
            latents.setdefault(stream, []).append(z_LC)
            places.setdefault(stream, []).append(torch.arange(start, start + len(z_LC)))
            start += len(z_LC)
    x = {stream: torch.cat(some) for stream, some in latents.items()}
    if len(x) == 1:
        return x, dict.fromkeys(x)
    return x, {stream: torch.cat(some) for stream, some in places.items()}
