"""Which rows of a flat batch form a rectangle, and which of them see one another.

All tokens of a batch lie end to end in one (N, ...) tensor; only attention needs rectangles (B, L). `Rows` cuts them
out: as a view where samples are equally long, by index with padding where they are not, so that neither case shows
elsewhere. An `AttentionPart` is one attention call; a `Layout` is all of them, covering each row once as a query.

Axes: N rows of the flat batch, B rectangles' rows, Q queries, K keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

LONG = 192
"""Rows up to which all samples share one rectangle: attention over so few is little beside the work on each row."""
ALIKE = 0.8
"""Share of the longest sample of a rectangle that the others have at least; one shorter than `LONG` counts as that."""


class Rows:
    """B runs of consecutive rows in a flat tensor, as one (B, L) rectangle; padding stands at the end, or at the start
    with align="right"."""

    def __init__(self, starts: Sequence[int], lengths: Sequence[int], *, align: str = "left") -> None:
        assert len(starts) == len(lengths) > 0
        self.starts, self.lengths = tuple(starts), tuple(lengths)
        self.batch, self.width = len(starts), max(lengths)
        steps = {after - before for before, after in pairwise(starts)}
        self.stride = steps.pop() if len(steps) == 1 else (self.width if not steps else 0)
        self.uniform = len(set(lengths)) == 1 and self.stride >= self.width
        self._align = align
        self._index_BL: Tensor | None = None
        self._moved_BL: Tensor | None = None

    @property
    def valid_BL(self) -> Tensor:
        """False where the rectangle is padding."""
        column_L, length_B1 = np.arange(self.width), np.array(self.lengths)[:, None]
        inside = column_L >= self.width - length_B1 if self._align == "right" else column_L < length_B1
        return torch.from_numpy(inside)

    @property
    def origin_B(self) -> np.ndarray:
        """The row that column 0 is, or would be where padding stands at the start."""
        start_B, length_B = np.array(self.starts), np.array(self.lengths)
        return start_B - (self.width - length_B) if self._align == "right" else start_B

    @property
    def index_BL(self) -> Tensor:
        """Row numbers; padding points at a row that exists."""
        if self._index_BL is None:
            column_L, length_B1 = np.arange(self.width)[None], np.array(self.lengths)[:, None]
            offset_BL = column_L - (self.width - length_B1) if self._align == "right" else column_L
            offset_BL = np.where((offset_BL >= 0) & (offset_BL < length_B1), offset_BL, 0)
            # An empty run may begin past the last row; its padding points at the first.
            start_B1 = np.where(length_B1 > 0, np.array(self.starts)[:, None], 0)
            self._index_BL = torch.from_numpy(offset_BL + start_B1)
        return self._index_BL

    def gather(self, x_N: Tensor) -> Tensor:
        """The rectangle (B, L, ...) of a flat tensor: a view where runs are equally long."""
        if not self.uniform:
            if self._moved_BL is None or self._moved_BL.device != x_N.device:
                self._moved_BL = self.index_BL.to(x_N.device)
            return x_N.index_select(0, self._moved_BL.flatten()).unflatten(0, (self.batch, self.width))
        first, span = self.starts[0], self.batch * self.stride
        if first + span > len(x_N):  # the last run ends before a whole stride does
            size, steps = x_N.shape[1:], x_N.stride()
            return x_N.as_strided(
                (self.batch, self.width, *size),
                (self.stride * steps[0], *steps),
                x_N.storage_offset() + first * steps[0],
            )
        return x_N[first : first + span].unflatten(0, (self.batch, self.stride))[:, : self.width]


def alike(*lengths: Sequence[int]) -> list[list[int]]:
    """The numbers of the samples that share rectangles, by one length or several of each. So the cells of rectangles
    grow with the sum of the samples' squares: where there are long samples, others share theirs only if they are nearly
    as long. Where none is long, all share one."""
    sizes = [[max(LONG, length) for length in some] for some in zip(*lengths, strict=True)]
    groups: list[list[int]] = []
    for number in sorted(range(len(sizes)), key=lambda number: sizes[number], reverse=True):
        for group in groups:
            both = zip(*(sizes[one] for one in (*group, number)), strict=True)
            if all(min(some) >= ALIKE * max(some) for some in both):
                group.append(number)
                break
        else:
            groups.append([number])
    return sorted(sorted(group) for group in groups)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionPart:
    """One attention call: rows that ask, rows that answer, and who may see whom.

    queries, keys  rectangles with the same B
    mask_BQK       bool, True where seen; (1, Q, K) where all samples agree; None: everything is seen. Padding queries
                   must see something, for a softmax over nothing is not a number
    own            where given, queries come in runs of this length that also see one another, beside `keys`: a noisy
                   block and the clean history, without a column for any other noisy block
    cache          "read": the rows' own keys and values follow those in the cache; "fill": they are left in the cache
                   for later passes (its content is not looked at); None: the cache is not touched
    history        whether its queries are only looked at by others: no velocity of them will be asked for, so that the
                   last layer needs their keys and values alone
    made           what kernels make of it, by names of their own: once for all layers of a pass
    """

    queries: Rows
    keys: Rows
    mask_BQK: Tensor | None = None
    own: int | None = None
    cache: str | None = None
    history: bool = False
    made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)


@dataclass(frozen=True, eq=False)
class Layout:
    """Attention of one forward pass over a flat batch: parts whose queries cover each of the N rows exactly once.
    `made` is as that of a part."""

    parts: tuple[AttentionPart, ...]
    length: int
    made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    _merge: str | Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        assert sum(sum(part.queries.lengths) for part in self.parts) == self.length
        object.__setattr__(self, "_merge", self._plan_merge())

    def _plan_merge(self) -> str | Tensor:
        """How outputs return to flat order: "end to end", "side by side" or an index."""
        queries = [part.queries for part in self.parts]
        if all(rows.uniform for rows in queries):
            order = np.concatenate([rows.index_BL.numpy().ravel() for rows in queries])
            if np.array_equal(order, np.arange(self.length)):
                return "end to end"
            if len({rows.batch for rows in queries}) == 1:
                order = np.concatenate([rows.index_BL.numpy() for rows in queries], axis=1).ravel()
                if np.array_equal(order, np.arange(self.length)):
                    return "side by side"
        source = np.empty(self.length, dtype=np.int64)
        offset = 0
        for rows in queries:
            valid, index = rows.valid_BL.numpy().ravel(), rows.index_BL.numpy().ravel()
            source[index[valid]] = offset + np.flatnonzero(valid)
            offset += index.size
        return torch.from_numpy(source)

    def merge(self, outputs: Sequence[Tensor]) -> Tensor:
        """The parts' outputs (B, Q, ...) as one flat tensor (N, ...)."""
        how = self._merge
        if isinstance(how, str):
            side_by_side = how == "side by side" and len(outputs) > 1
            return (
                torch.cat(list(outputs), dim=1).flatten(0, 1)
                if side_by_side
                else torch.cat([output.flatten(0, 1) for output in outputs])
            )
        return torch.cat([output.flatten(0, 1) for output in outputs]).index_select(0, how.to(outputs[0].device))
