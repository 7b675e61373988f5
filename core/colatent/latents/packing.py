"""From a list of sequences to one flat batch for the two-copy pass.

Sequences of any length lie end to end, each as its clean copy (what later blocks may look at) followed by its noisy
copy (what is to be generated). Nothing is padded but the rectangles of attention. The clean copy leaves out what
nothing looks at: the last group, mostly, is never history.

Axes: N rows of the flat batch, S rows of one stream, T distinct times, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from colatent.latents.rows import AttentionPart, Layout, Rows, alike
from colatent.latents.sequence import Blocks, LatentSequence, Segment, blocks_of, next_offset, place, two_copy_mask

_Copies = tuple[Blocks, np.ndarray, np.ndarray]
"""A sequence's blocks, and which of its latents its clean and its noisy copy hold."""


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
            name: replace(rows, **{k: _moved(v, device) for k, v in vars(rows).items() if v is not None})
            for name, rows in self.streams.items()
        }
        return PackedBatch(
            streams=streams,
            layout=self.layout,
            positions_N3=_moved(self.positions_N3, device),
            t_T=_moved(self.t_T, device),
            t_index_N=_moved(self.t_index_N, device),
        )


def _moved(x: Tensor, device: torch.device) -> Tensor:
    """A copy on `device`. For a GPU that is at other work it is put in line; nobody waits."""
    queued = device.type == "cuda" and x.device.type == "cpu"
    return x.pin_memory().to(device, non_blocking=True) if queued else x.to(device)


@dataclass(frozen=True, eq=False)
class _Flat:
    """The layout of one sequence: its blocks, and which of its latents each copy holds."""

    blocks: Blocks
    clean: np.ndarray
    noisy: np.ndarray


def pack(sequences: Sequence[LatentSequence]) -> PackedBatch:
    """Pack sequences end to end. Every generated segment must carry noise and times."""
    flats = [_flatten(sequence) for sequence in sequences]
    starts = np.cumsum([0, *(len(flat.blocks.block_L) for flat in flats)])
    pairs = list(zip(starts, flats, strict=False))
    order_N = np.concatenate([start + part for start, flat in pairs for part in (flat.clean, flat.noisy)])
    noisy_N = np.repeat([False, True] * len(flats), [len(p) for flat in flats for p in (flat.clean, flat.noisy)])
    latents = _Latents([segment for sequence in sequences for segment in sequence])
    t_N = latents.t_M[order_N].masked_fill_(torch.from_numpy(~noisy_N), 0.0)
    t_T, t_index_N = torch.unique(torch.cat([torch.zeros(1), t_N]), return_inverse=True)
    return PackedBatch(
        streams=latents.rows(order_N, noisy_N),
        layout=two_copy_layout([(flat.blocks, flat.clean, flat.noisy) for flat in flats]),
        positions_N3=torch.cat([_placed(sequence) for sequence in sequences])[order_N],
        t_T=t_T,
        t_index_N=t_index_N[1:],
    )


def _flatten(sequence: LatentSequence) -> _Flat:
    blocks = blocks_of(sequence)
    noisy = np.flatnonzero(blocks.generated_L)
    assert len(noisy), "a training sequence needs a generated segment"
    seen = blocks.group_L < blocks.group_L[noisy].max()
    return _Flat(blocks, np.flatnonzero(seen), noisy)


def _placed(sequence: LatentSequence) -> Tensor:
    """Positions of a sequence's latents, its items one after the other. (L, 3)"""
    placed, offset = [], 0.0
    for segment in sequence:
        placed.append(place(segment.positions_LA, offset))
        offset = next_offset(placed[-1])
    return torch.cat(placed)


class _Latents:
    """All latents of a batch, before they are copied: those of the segments end to end.

    One array operation for each stream, not some for each segment: a batch of short items would spend more time on
    packing than on its layers. M counts latents of the batch, S those of one stream.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        counts = [len(segment.block_lengths) for segment in segments]
        length_K = np.array([length for segment in segments for length in segment.block_lengths])
        t_K = [t for one, count in zip(segments, counts, strict=True) for t in (one.t_K or [0.0] * count)]
        pinned_K = [cut for one, count in zip(segments, counts, strict=True) for cut in (one.pinned_K or [0] * count)]
        place_M = np.arange(length_K.sum()) - np.repeat(np.cumsum(length_K) - length_K, length_K)
        self.pinned_M = place_M < np.repeat(np.array(pinned_K), length_K)
        t_M = torch.tensor(t_K).repeat_interleave(torch.from_numpy(length_K))
        self.t_M = t_M.masked_fill_(torch.from_numpy(self.pinned_M), 0.0)

    def rows(self, order_N: np.ndarray, noisy_N: np.ndarray) -> dict[str, StreamRows]:
        """The rows of each stream, where row n of the flat batch is a copy of latent `order_N[n]`."""
        names = list(dict.fromkeys(segment.stream for segment in self.segments))
        number_M = np.repeat(
            [names.index(segment.stream) for segment in self.segments], [len(s.z_LC) for s in self.segments]
        )
        number_N, found = number_M[order_N], {}
        for number, name in enumerate(names):
            rows_S = np.flatnonzero(number_N == number)
            if len(rows_S):
                within_M = np.cumsum(number_M == number) - 1
                found[name] = self._stream(name, rows_S, order_N[rows_S], within_M, noisy_N[rows_S])
        alone = len(found) == 1
        return {name: replace(rows, rows_S=None) if alone else rows for name, rows in found.items()}

    def _stream(
        self, name: str, rows_S: np.ndarray, latent_S: np.ndarray, within_M: np.ndarray, noisy_S: np.ndarray
    ) -> StreamRows:
        own = [segment for segment in self.segments if segment.stream == name]
        source_S, is_noisy_S = torch.from_numpy(within_M[latent_S]), torch.from_numpy(noisy_S)
        pinned_S = torch.from_numpy(self.pinned_M[latent_S] & noisy_S)
        z_SC = _gather([s.z_LC for s in own], source_S)
        if any(s.pinned_LC is not None for s in own):
            value_SC = _gather([s.z_LC if s.pinned_LC is None else s.pinned_LC for s in own], source_S)
            z_SC = torch.where(pinned_S[:, None], value_SC, z_SC)
        noise_SC = _gather([torch.zeros_like(s.z_LC) if s.noise_LC is None else s.noise_LC for s in own], source_S)
        ones = [torch.ones(len(s.z_LC)) if s.weight_L is None else s.weight_L.float() for s in own]
        return StreamRows(
            rows_S=torch.from_numpy(rows_S),
            z0_SC=z_SC,
            noise_SC=noise_SC.masked_fill(~is_noisy_S[:, None], 0.0),
            noisy_S=is_noisy_S,
            wanted_S=torch.from_numpy(np.flatnonzero(noisy_S)),
            weight_S=_gather(ones, source_S) * (is_noisy_S & ~pinned_S),
            t_S=self.t_M[latent_S].masked_fill_(~is_noisy_S, 0.0),
        )


def _gather(parts: Sequence[Tensor], source_S: Tensor) -> Tensor:
    return torch.cat(list(parts)).index_select(0, source_S)


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


def two_copy_layout(flats: Sequence[_Copies]) -> Layout:
    """Attention of a packed two-copy pass. Sequences that are nearly as long as one another share rectangles."""
    clean_lengths, noisy_lengths = [len(clean) for _, clean, _ in flats], [len(noisy) for _, _, noisy in flats]
    lengths = [a + b for a, b in zip(clean_lengths, noisy_lengths, strict=True)]
    starts = [int(start) for start in np.cumsum([0, *lengths[:-1]])]
    groups = alike(clean_lengths, noisy_lengths)
    parts = [_two_copies([flats[one] for one in group], [starts[one] for one in group]) for group in groups]
    return Layout(tuple(part for some in parts for part in some), sum(lengths))


def _two_copies(flats: Sequence[_Copies], starts: Sequence[int]) -> Iterator[AttentionPart]:
    """The clean copies of some sequences, if there are any, and their noisy ones; `starts`: the first row of each."""
    clean_lengths, noisy_lengths = [len(clean) for _, clean, _ in flats], [len(noisy) for _, _, noisy in flats]
    masks, clean_rows = _masks(flats), Rows(starts, clean_lengths)
    noisy_rows = Rows([start + count for start, count in zip(starts, clean_lengths, strict=True)], noisy_lengths)
    if max(clean_lengths):
        clean_mask = [mask[:count, :count] for mask, count in zip(masks, clean_lengths, strict=False)]
        yield AttentionPart(queries=clean_rows, keys=clean_rows, mask_BQK=stack_masks(clean_mask), history=True)
    own = _block_length(flats)
    if own is None:
        noisy_mask = [mask[count:] for mask, count in zip(masks, clean_lengths, strict=False)]
        keys = Rows(starts, [a + b for a, b in zip(clean_lengths, noisy_lengths, strict=True)])
    else:
        noisy_mask = [mask[count:, :count] for mask, count in zip(masks, clean_lengths, strict=False)]
        keys = clean_rows
    yield AttentionPart(queries=noisy_rows, keys=keys, mask_BQK=stack_masks(noisy_mask), own=own)


def _block_length(flats: Sequence[_Copies]) -> int | None:
    """The length that all noisy blocks of a batch have; None where they differ."""
    counts = np.concatenate([np.bincount(blocks.block_L[noisy]) for blocks, _, noisy in flats])
    found = set(counts[counts > 0].tolist())
    return found.pop() if len(found) == 1 else None


def _masks(flats: Sequence[_Copies]) -> list[np.ndarray]:
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
