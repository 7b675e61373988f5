"""Sequences: segments of streams in order, cut into blocks, with their place in time and space.

One rule covers every task. A block belongs to a group; a clean block sees its group and all earlier groups, a noisy
block sees the earlier clean groups and itself. "This caption, then that picture" is two segments; nothing else in the
engine knows tasks.

Axes: L latents of a segment, C channels, K blocks, A position axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """The latents of one item in a sequence.

    stream         name of the stream
    z_LC           clean latents at unit scale
    block_lengths  (K,), sums to L
    positions_LA   counted from the item's start
    generated      False: given, only looked at, without loss
    same_group     whether it shares the group of the segment before
    units          data units (tokens, ...) that its latents hold
    weight_L       loss weight of each latent: 1, and `flow.padding` for padding
    noise_LC       z1 of the noisy copy
    t_K            noise level of each block, 0 clean to 1 noise
    pinned_K       leading latents of each block that are given clean in the noisy copy (clean repaint)
    pinned_LC      their values; None where nothing is pinned
    alone_K        blocks whose noisy copy sees only itself
    """

    stream: str
    z_LC: Tensor
    block_lengths: tuple[int, ...]
    positions_LA: Tensor
    generated: bool = True
    same_group: bool = False
    units: int = 0
    weight_L: Tensor | None = None
    noise_LC: Tensor | None = None
    t_K: tuple[float, ...] = ()
    pinned_K: tuple[int, ...] = ()
    pinned_LC: Tensor | None = None
    alone_K: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        assert sum(self.block_lengths) == len(self.z_LC) == len(self.positions_LA) > 0
        if self.generated:
            assert self.noise_LC is not None
            assert len(self.t_K) == len(self.block_lengths)


LatentSequence = tuple[Segment, ...]


def place(positions_LA: Tensor, offset: float) -> Tensor:
    """Three positions per latent, the item moved to `offset`: a 1-axis latent repeats its position, a 2-axis one stands
    still in time. (L, A) -> (L, 3)."""
    axes = positions_LA.shape[1]
    if axes == 1:
        return (positions_LA + offset).expand(-1, 3)
    if axes == 2:
        return torch.cat([torch.zeros_like(positions_LA[:, :1]), positions_LA], dim=1) + offset
    return positions_LA + offset


def next_offset(placed_L3: Tensor) -> float:
    """Where the item after these positions begins."""
    return float(placed_L3.max()) + 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """The blocks of one sequence, row by row; the input of every mask. All arrays are (L,) over its latents.

    block_L, group_L  number of the latent's block and group, from 0
    generated_L       whether the latent's block is generated
    alone_L           whether the noisy copy of its block sees only itself
    """

    block_L: np.ndarray
    group_L: np.ndarray
    generated_L: np.ndarray
    alone_L: np.ndarray

    def key(self) -> tuple[bytes, ...]:
        """Equal for sequences of equal layout."""
        return tuple(array.tobytes() for array in (self.block_L, self.group_L, self.generated_L, self.alone_L))


def groups_of(counts: Sequence[int], joined: Sequence[bool]) -> list[int]:
    """Group of each block, where segment i has `counts[i]` blocks. A joined segment and the one before it are one
    group, whole; else each block is its own."""
    groups: list[int] = []
    for index, count in enumerate(counts):
        shared = joined[index] or any(joined[index + 1 : index + 2])
        first = (groups[-1] + 1 if groups else 0) - bool(joined[index] and groups)
        groups.extend([first] * count if shared else range(first, first + count))
    return groups


def blocks_of(sequence: Sequence[Segment]) -> Blocks:
    """Number the blocks and groups of a sequence."""
    lengths: list[int] = []
    generated: list[bool] = []
    alone: list[bool] = []
    for segment in sequence:
        count = len(segment.block_lengths)
        lengths.extend(segment.block_lengths)
        generated.extend([segment.generated] * count)
        alone.extend(segment.alone_K or [False] * count)
    repeat = np.array(lengths)
    groups = groups_of([len(segment.block_lengths) for segment in sequence], [one.same_group for one in sequence])
    return Blocks(
        block_L=np.repeat(np.arange(len(lengths)), repeat),
        group_L=np.repeat(np.array(groups), repeat),
        generated_L=np.repeat(np.array(generated), repeat),
        alone_L=np.repeat(np.array(alone), repeat),
    )


def two_copy_mask(blocks: Blocks, *, clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Who sees whom in a two-copy pass: rows and columns are [clean latents ; noisy latents], given as indices."""
    group, block = blocks.group_L, blocks.block_L
    count = len(clean)
    mask = np.zeros((count + len(noisy), count + len(noisy)), dtype=bool)
    mask[:count, :count] = group[clean][:, None] >= group[clean][None, :]
    mask[count:, :count] = (group[noisy][:, None] > group[clean][None, :]) & ~blocks.alone_L[noisy][:, None]
    mask[count:, count:] = block[noisy][:, None] == block[noisy][None, :]
    return mask


def history_mask(group_L: np.ndarray, *, window: int | None = None) -> np.ndarray:
    """Self-attention over clean latents, causal from group to group; with `window`, only the last so many latents
    before a group are seen, exactly what a cache of that size still holds."""
    seen = group_L[:, None] >= group_L[None, :]
    if window is not None:
        start_L = np.searchsorted(group_L, group_L, side="left")
        seen &= np.arange(len(group_L))[None, :] >= (start_L - window)[:, None]
    return seen
