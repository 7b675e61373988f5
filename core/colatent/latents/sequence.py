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
    weight_L       loss weight of each latent, 0 for padding
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

    @property
    def axes(self) -> int:
        """Number of position axes."""
        return self.positions_LA.shape[1]


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


def blocks_of(sequence: Sequence[Segment]) -> Blocks:
    """Number the blocks and groups of a sequence. Segments joined by `same_group` are one group, whole."""
    lengths: list[int] = []
    groups: list[int] = []
    generated: list[bool] = []
    alone: list[bool] = []
    for index, segment in enumerate(sequence):
        follower = sequence[index + 1] if index + 1 < len(sequence) else None
        shared = segment.same_group or (follower is not None and follower.same_group)
        count = len(segment.block_lengths)
        first = (groups[-1] + 1 if groups else 0) - bool(segment.same_group and groups)
        groups.extend([first] * count if shared else range(first, first + count))
        lengths.extend(segment.block_lengths)
        generated.extend([segment.generated] * count)
        alone.extend(segment.alone_K or [False] * count)
    repeat = np.array(lengths)
    return Blocks(
        block_L=np.repeat(np.arange(len(lengths)), repeat),
        group_L=np.repeat(np.array(groups), repeat),
        generated_L=np.repeat(np.array(generated), repeat),
        alone_L=np.repeat(np.array(alone), repeat),
    )


def two_copy_mask(blocks: Blocks, *, clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Who sees whom in a two-copy pass: rows and columns are [clean latents ; noisy latents], given as indices."""
    group, block = blocks.group_L, blocks.block_L
    clean_clean = group[clean][:, None] >= group[clean][None, :]
    clean_noisy = np.zeros((len(clean), len(noisy)), dtype=bool)
    noisy_clean = (group[noisy][:, None] > group[clean][None, :]) & ~blocks.alone_L[noisy][:, None]
    noisy_noisy = block[noisy][:, None] == block[noisy][None, :]
    return np.block([[clean_clean, clean_noisy], [noisy_clean, noisy_noisy]])


def history_mask(block_L: np.ndarray, *, window: int | None = None) -> np.ndarray:
    """Block-causal self-attention over one run of blocks; with `window`, only the last so many latents before a block
    are seen, exactly what a cache of that size still holds."""
    seen = block_L[:, None] >= block_L[None, :]
    if window is not None:
        start_L = np.searchsorted(block_L, block_L, side="left")
        seen &= np.arange(len(block_L))[None, :] >= (start_L - window)[:, None]
    return seen
