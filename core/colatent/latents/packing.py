"""From a list of sequences to one flat batch for the two-copy pass.

Sequences of any length lie end to end, each as its clean copy (what later blocks may look at) followed by its noisy
copy (what is to be generated). Nothing is padded but the rectangles of attention. The clean copy leaves out what
nothing looks at: the last group, mostly, is never history.

Axes: N rows of the flat batch, S rows of one stream, T distinct times, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from colatent.latents.rows import AttentionPart, Layout, Rows
from colatent.latents.sequence import Blocks, LatentSequence, Segment, blocks_of, next_offset, place, two_copy_mask


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamRows:
    """The rows of one stream in a packed batch.

    rows_S    their place in the flat batch; None where the stream fills it
    z0_SC     clean latents (for pinned rows: the pinned value)
    noise_SC  z1; zero where the row is clean
    noisy_S   whether the row belongs to a noisy copy
    wanted_S  numbers of these rows: those whose velocity is asked for
    weight_S  loss weight; 0 for clean and pinned rows, `flow.padding` for padding
    t_S       noise level, 0 for clean and pinned rows
    """

    rows_S: Tensor | None
    z0_SC: Tensor
    noise_SC: Tensor
    noisy_S: Tensor
    wanted_S: Tensor
    weight_S: Tensor
    t_S: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedBatch:
    """A flat batch: what a training step hands to the prior."""

    streams: dict[str, StreamRows]
    layout: Layout
    positions_N3: Tensor
    t_T: Tensor
    t_index_N: Tensor

    def to(self, device: torch.device) -> PackedBatch:
        """A copy on `device`; itself where it is there already."""
        if self.t_T.device == device:
            return self
        streams = {
            name: replace(rows, **{k: v.to(device) for k, v in vars(rows).items() if v is not None})
            for name, rows in self.streams.items()
        }
        return PackedBatch(
            streams=streams,
            layout=self.layout,
            positions_N3=self.positions_N3.to(device),
            t_T=self.t_T.to(device),
            t_index_N=self.t_index_N.to(device),
        )


@dataclass(frozen=True, eq=False)
class _Flat:
    """One sequence laid out flat: per-latent arrays in sequence order, and which latents each copy holds."""

    blocks: Blocks
    clean: np.ndarray
    noisy: np.ndarray
    positions_L3: Tensor
    t_L: Tensor


def pack(sequences: Sequence[LatentSequence]) -> PackedBatch:
    """Pack sequences end to end. Every generated segment must carry noise and times."""
    flats = [_flatten(sequence) for sequence in sequences]
    streams = _pack_streams(sequences, flats)
    t_N = torch.cat([torch.cat([torch.zeros(len(flat.clean)), flat.t_L[flat.noisy]]) for flat in flats])
    t_T, t_index_N = torch.unique(torch.cat([torch.zeros(1), t_N]), return_inverse=True)
    return PackedBatch(
        streams=streams,
        layout=two_copy_layout([(flat.blocks, flat.clean, flat.noisy) for flat in flats]),
        positions_N3=torch.cat([flat.positions_L3[np.concatenate([flat.clean, flat.noisy])] for flat in flats]),
        t_T=t_T,
        t_index_N=t_index_N[1:],
    )


def _flatten(sequence: LatentSequence) -> _Flat:
    blocks = blocks_of(sequence)
    noisy = np.flatnonzero(blocks.generated_L)
    assert len(noisy), "a training sequence needs a generated segment"
    seen = blocks.group_L < blocks.group_L[noisy].max()
    placed, offset = [], 0.0
    for segment in sequence:
        placed.append(place(segment.positions_LA, offset))
        offset = next_offset(placed[-1])
    return _Flat(blocks, np.flatnonzero(seen), noisy, torch.cat(placed), torch.cat([_times(s) for s in sequence]))


def _times(segment: Segment) -> Tensor:
    """Noise level of each latent, 0 where it is given or pinned. (L,)"""
    t_L = torch.zeros(len(segment.z_LC))
    if segment.generated:
        t_L = torch.tensor(segment.t_K).repeat_interleave(torch.tensor(segment.block_lengths))
        t_L[pinned_rows(segment.block_lengths, segment.pinned_K)] = 0.0
    return t_L


def pinned_rows(block_lengths: Sequence[int], pinned_K: Sequence[int]) -> Tensor:
    """Which latents are pinned: the first `pinned_K[k]` of each block. Bool (L,)."""
    pinned = pinned_K or [0] * len(block_lengths)
    return torch.cat([torch.arange(length) < count for length, count in zip(block_lengths, pinned, strict=True)])


def _pack_streams(sequences: Sequence[LatentSequence], flats: Sequence[_Flat]) -> dict[str, StreamRows]:
    parts: dict[str, list[dict[str, Tensor]]] = {}
    offset = 0
    for sequence, flat in zip(sequences, flats, strict=True):
        for copy, latents in (("clean", flat.clean), ("noisy", flat.noisy)):
            start = 0
            for segment in sequence:
                stop = start + len(segment.z_LC)
                low, high = np.searchsorted(latents, [start, stop])
                local = torch.from_numpy(latents[low:high] - start)
                if len(local):
                    rows = torch.arange(offset + int(low), offset + int(high))
                    parts.setdefault(segment.stream, []).append(_rows(segment, local, rows, copy == "noisy"))
                start = stop
            offset += len(latents)
    packed = {name: {k: torch.cat([part[k] for part in some]) for k in some[0]} for name, some in parts.items()}
    alone = len(packed) == 1
    return {
        name: StreamRows(
            **{**fields, "rows_S": None if alone else fields["rows_S"]},  # type: ignore[arg-type]
            wanted_S=fields["noisy_S"].nonzero()[:, 0],
        )
        for name, fields in packed.items()
    }


def _rows(segment: Segment, local: Tensor, rows: Tensor, noisy: bool) -> dict[str, Tensor]:
    z_SC = segment.z_LC[local]
    flag = torch.full((len(local),), noisy)
    if not noisy:
        zero = torch.zeros(len(local))
        return {
            "rows_S": rows,
            "z0_SC": z_SC,
            "noise_SC": torch.zeros_like(z_SC),
            "noisy_S": flag,
            "weight_S": zero,
            "t_S": zero,
        }
    assert segment.noise_LC is not None
    pinned = pinned_rows(segment.block_lengths, segment.pinned_K)[local]
    if segment.pinned_LC is not None:
        z_SC = torch.where(pinned[:, None], segment.pinned_LC[local], z_SC)
    weight = torch.ones(len(local)) if segment.weight_L is None else segment.weight_L[local].float()
    return {
        "rows_S": rows,
        "z0_SC": z_SC,
        "noise_SC": segment.noise_LC[local],
        "noisy_S": flag,
        "weight_S": weight * ~pinned,
        "t_S": _times(segment)[local],
    }


def with_streams(batch: PackedBatch, channels: Mapping[str, int]) -> PackedBatch:
    """The same batch in which every stream of `channels` has rows, if only none: their weights are used, and get a
    gradient of zero."""
    device, length = batch.t_T.device, batch.layout.length
    streams = dict(batch.streams)
    for name, rows in batch.streams.items():
        if rows.rows_S is None and len(channels) > 1:
            streams[name] = replace(rows, rows_S=torch.arange(length, device=device))
    for name, width in channels.items():
        if name not in streams:
            none, latents_SC = torch.zeros(0, device=device), torch.zeros(0, width, device=device)
            streams[name] = StreamRows(
                rows_S=none.long(),
                z0_SC=latents_SC,
                noise_SC=latents_SC,
                noisy_S=none.bool(),
                wanted_S=none.long(),
                weight_S=none,
                t_S=none,
            )
    return replace(batch, streams=streams)


def two_copy_layout(flats: Sequence[tuple[Blocks, np.ndarray, np.ndarray]]) -> Layout:
    """Attention of a packed two-copy pass; `flats` holds (blocks, clean latents, noisy latents) of each sequence."""
    clean_lengths = [len(clean) for _, clean, _ in flats]
    noisy_lengths = [len(noisy) for _, _, noisy in flats]
    lengths = [a + b for a, b in zip(clean_lengths, noisy_lengths, strict=True)]
    starts = [int(start) for start in np.cumsum([0, *lengths[:-1]])]
    masks = _masks(flats)
    clean_rows = Rows(starts, clean_lengths)
    noisy_rows = Rows([start + count for start, count in zip(starts, clean_lengths, strict=True)], noisy_lengths)
    parts = []
    if max(clean_lengths):
        clean_mask = [mask[:count, :count] for mask, count in zip(masks, clean_lengths, strict=False)]
        parts.append(AttentionPart(queries=clean_rows, keys=clean_rows, mask_BQK=stack_masks(clean_mask)))
    own = _block_length(flats)
    if own is None:
        noisy_mask = [mask[count:] for mask, count in zip(masks, clean_lengths, strict=False)]
        keys = Rows(starts, lengths)
    else:
        noisy_mask = [mask[count:, :count] for mask, count in zip(masks, clean_lengths, strict=False)]
        keys = clean_rows
    parts.append(AttentionPart(queries=noisy_rows, keys=keys, mask_BQK=stack_masks(noisy_mask), own=own))
    return Layout(tuple(parts), sum(lengths))


def _block_length(flats: Sequence[tuple[Blocks, np.ndarray, np.ndarray]]) -> int | None:
    """The length that all noisy blocks of a batch have; None where they differ."""
    found = {
        int(length) for blocks, _, noisy in flats for length in np.unique(blocks.block_L[noisy], return_counts=True)[1]
    }
    return found.pop() if len(found) == 1 else None


def _masks(flats: Sequence[tuple[Blocks, np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """The two-copy mask of each sequence; only one where all sequences are laid out alike."""
    if len({blocks.key() for blocks, _, _ in flats}) == 1:
        flats = flats[:1]
    return [two_copy_mask(blocks, clean=clean, noisy=noisy) for blocks, clean, noisy in flats]


def stack_masks(masks: Sequence[np.ndarray], *, align: str = "left") -> Tensor:
    """Masks of different sizes as one (B, Q, K), padding seen by nobody and padding queries seeing everything."""
    height, width = (max(mask.shape[axis] for mask in masks) for axis in (0, 1))
    stacked = np.zeros((len(masks), height, width), dtype=bool)
    for row, mask in zip(stacked, masks, strict=True):
        high, wide = mask.shape
        if align == "right":
            row[: height - high], row[height - high :, width - wide :] = True, mask
        else:
            row[high:], row[:high, :wide] = True, mask
    return torch.from_numpy(stacked)
