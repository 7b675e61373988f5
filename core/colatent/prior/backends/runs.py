"""Masks as runs of keys: what a row sees is nearly always one stretch of consecutive keys, or two.

A prefix of history is one run, a noisy block beside it is another. Kernels for blocks and for unequal lengths take
numbers where such runs begin and end, and no mask; a mask that needs more than two runs a row is not for them.

Axes: N rows of the flat batch, B samples, Q queries, K keys, M queries of all samples, R runs of a row, E their ends
(start, stop).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colatent.latents.rows import AttentionPart, Layout

RUNS = 2
"""Runs of keys that a row can have."""


def runs_of(part: AttentionPart) -> np.ndarray | None:
    """Where the runs of keys that each query sees start and stop, (B or 1, Q, R, E) in columns of the mask; None: some
    row has more than R. The part has a mask."""
    if "runs" not in part.made:
        assert part.mask_BQK is not None
        part.made["runs"] = _runs_of(part.mask_BQK.numpy())
    return part.made["runs"]


def _runs_of(mask_BQK: np.ndarray) -> np.ndarray | None:
    batch, queries, keys = mask_BQK.shape
    row_MK = mask_BQK.reshape(batch * queries, keys).astype(np.int8)
    turn_MK = np.diff(row_MK, axis=1, prepend=np.int8(0), append=np.int8(0))
    row, start = np.nonzero(turn_MK == 1)
    stop = np.nonzero(turn_MK == -1)[1]
    count_M = np.bincount(row, minlength=len(row_MK))
    if count_M.max(initial=0) > RUNS:
        return None
    rank = np.arange(len(row)) - (np.cumsum(count_M) - count_M)[row]
    runs_MRE = np.zeros((len(row_MK), RUNS, 2), dtype=np.int64)
    runs_MRE[row, rank] = np.stack([start, stop], axis=1)
    return runs_MRE.reshape(batch, queries, RUNS, 2)


def flat_runs(layout: Layout, answered: Sequence[bool]) -> np.ndarray | None:
    """The runs of all rows of a flat batch, (N, R, E) in rows of it; none for rows of parts that are not answered.
    None where runs cannot say who sees whom."""
    seen_NRE = np.zeros((layout.length, RUNS, 2), dtype=np.int64)
    for part in (part for part, needed in zip(layout.parts, answered, strict=True) if needed):
        runs_BQRE = _in_rows(part)
        if runs_BQRE is None:
            return None
        valid_BQ = part.queries.valid_BL.numpy()
        seen_NRE[part.queries.index_BL.numpy()[valid_BQ]] = runs_BQRE[valid_BQ]
    return seen_NRE


def _in_rows(part: AttentionPart) -> np.ndarray | None:
    """The runs of a part's queries, (B, Q, R, E) in rows of the flat batch."""
    shape = (part.queries.batch, part.queries.width, RUNS, 2)
    if part.mask_BQK is None:
        runs_BQRE = np.zeros(shape, dtype=np.int64)
        runs_BQRE[:, :, 0, 1] = part.keys.width
    else:
        found = runs_of(part)
        if found is None:
            return None
        runs_BQRE = np.broadcast_to(found, shape)
    runs_BQRE = runs_BQRE + part.keys.origin_B[:, None, None, None]
    return runs_BQRE if part.own is None else _with_own(part, part.own, runs_BQRE)


def _with_own(part: AttentionPart, length: int, runs_BQRE: np.ndarray) -> np.ndarray | None:
    """The same with the run of `length` queries that each of them stands in as its second run."""
    if (runs_BQRE[:, :, 1, 1] > runs_BQRE[:, :, 1, 0]).any():
        return None
    start_Q = np.arange(part.queries.width) // length * length
    start_BQ = part.queries.origin_B[:, None] + start_Q
    runs_BQRE[:, :, 1] = np.stack([start_BQ, start_BQ + length], axis=-1)
    return runs_BQRE
