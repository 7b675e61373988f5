"""Who sees whom inside the text codec, for whole items, cut items and streams.

The masks are those of `colatent.latents`: block-causal attention over a run of blocks, or the two-copy rule with cut
blocks in the place of noisy ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from colatent.latents.packing import stack_masks
from colatent.latents.rows import AttentionPart, Layout, Rows, alike
from colatent.latents.sequence import history_mask


def starts_of(lengths: Sequence[int]) -> list[int]:
    """Where each of several runs begins when they lie end to end."""
    return [int(start) for start in np.cumsum([0, *lengths[:-1]])]


def item_mask(length: int, *, block: int, window: int, attention: str) -> np.ndarray:
    """Self-attention within one item of `length` latents; `attention` as in `TextConfig`."""
    if attention == "full":
        return np.ones((length, length), dtype=bool)
    column = np.arange(length)
    mask = history_mask(column // block, window=window)
    return mask & (column[:, None] >= column[None]) if attention == "causal" else mask


@lru_cache(maxsize=64)
def items_layout(
    lengths: tuple[int, ...], *, block: int, window: int, attention: str, cache: str | None = None
) -> Layout:
    """Whole items end to end; with cache="fill", right-aligned so that their keys can be kept."""
    align, starts, parts = "right" if cache else "left", starts_of(lengths), []
    for group in [list(range(len(lengths)))] if cache else alike(lengths):
        some = [lengths[one] for one in group]
        distinct = some[:1] if len(set(some)) == 1 else some
        masks = [item_mask(length, block=block, window=window, attention=attention) for length in distinct]
        rows = Rows([starts[one] for one in group], some, align=align)
        parts.append(AttentionPart(queries=rows, keys=rows, mask_BQK=stack_masks(masks, align=align), cache=cache))
    return Layout(tuple(parts), sum(lengths))


def cut_layout(lengths: Sequence[int], cut_blocks: Sequence[Sequence[int]], *, block: int, window: int) -> Layout:
    """Each item's latents followed by its cut blocks, which see the whole blocks before them and themselves."""
    masks, totals = [], []
    for length, cuts in zip(lengths, cut_blocks, strict=True):
        number = np.concatenate([np.arange(length) // block, np.repeat(np.array(cuts, dtype=int), block)])
        copy = np.arange(len(number)) >= length
        before = number[:, None] > number[None]
        before &= (np.arange(len(number))[None] >= number[:, None] * block - window) | copy[None]
        same = (number[:, None] == number[None]) & (copy[:, None] == copy[None])
        masks.append((before & ~copy[None]) | same)
        totals.append(len(number))
    starts, parts = starts_of(totals), []
    for group in alike(totals):
        rows = Rows([starts[one] for one in group], [totals[one] for one in group])
        mask_BQK = stack_masks([masks[one] for one in group])
        parts.append(AttentionPart(queries=rows, keys=rows, mask_BQK=mask_BQK))
    return Layout(tuple(parts), sum(totals))
