"""Attention by FlexAttention: one kernel over the flat batch, which skips all blocks of keys that nobody sees.

No rectangle is cut and no mask is built. Each row has the runs of keys that it sees (`runs.py`); the table of blocks
follows from them once per layout, in time that grows with rows, not with their square. The kernel is compiled at first
use, for any number of rows. On a CPU it has no backward pass, and runs uncompiled: for comparison, not for speed.

Axes: N rows of the flat batch, H heads, D head channels, R runs of a row, E their ends (start, stop), M blocks of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colatent.latents.rows import Layout
from colatent.prior.backends.records import Case, Refusal
from colatent.prior.backends.runs import flat_runs

BLOCK = 128
"""Rows of a block, the kernel's own default."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LEAST_HEAD = 16
"""Channels of the narrowest head that the CUDA kernel takes."""


@cache
def why_not(case: Case) -> Refusal | None:
    """Why this backend cannot work in a case."""
    if case.device.type == "cpu":
        return Refusal(what="has no backward pass on a CPU", do="set auto or matrix") if case.gradient else None
    if case.device.type != "cuda" or not torch.cuda.is_available():
        return Refusal(what=f"does not work on {case.device.type} here", do="set auto")
    if torch.cuda.get_device_capability(case.device) < (8, 0):
        return Refusal(what="needs a card of compute capability 8.0 or later", do="set auto or sdpa")
    if find_spec("triton") is None:
        return Refusal(what="needs Triton, which is not installed", do="set auto, or pip install triton")
    if case.dtype not in DTYPES:
        return Refusal(what=f"does not compute in {str(case.dtype).removeprefix('torch.')}", do="set auto or sdpa")
    if case.head_dim < LEAST_HEAD:
        what = f"needs heads of {LEAST_HEAD} channels or more, not {case.head_dim}"
        return Refusal(what=what, do="set auto or sdpa, or fewer heads")
    return None


def takes(layout: Layout) -> bool:
    """Whether this backend can do a layout: no cache, and runs say who sees whom."""
    if "flex takes" not in layout.made:
        cached = any(part.cache is not None for part in layout.parts)
        layout.made["flex takes"] = not cached and flat_runs(layout, [True] * len(layout.parts)) is not None
    return layout.made["flex takes"]


def attend_layout(q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, *, layout: Layout, answered: Sequence[bool]) -> Tensor:
    """Attention of a whole layout, (N, H, D); zeros for queries that are not answered."""
    block_mask = block_mask_of(layout, answered, q_NHD.device)
    q_1HND, k_1HND, v_1HND = (x.transpose(0, 1)[None] for x in (q_NHD, k_NHD, v_NHD))
    return _kernel(q_NHD.device.type)(q_1HND, k_1HND, v_1HND, block_mask=block_mask)[0].transpose(0, 1)


@cache
def _kernel(device: str) -> Callable[..., Any]:
    """The kernel, compiled for any number of rows. fullgraph: uncompiled it would keep all N x N scores, unasked."""
    from torch.nn.attention.flex_attention import flex_attention

    backend = "inductor" if device == "cuda" else "eager"
    return torch.compile(flex_attention, backend=backend, dynamic=True, fullgraph=True)


def block_mask_of(layout: Layout, answered: Sequence[bool], device: torch.device) -> Any:
    """Who sees whom, as a `BlockMask` over the flat batch; made once per layout."""
    key = ("block mask", tuple(answered), device)
    if key not in layout.made:
        runs_NRE = flat_runs(layout, answered)
        assert runs_NRE is not None
        layout.made[key] = _block_mask(runs_NRE, device)
    return layout.made[key]


def _block_mask(runs_NRE: np.ndarray, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import BlockMask

    ends = torch.from_numpy(runs_NRE).to(device, torch.int32)
    near_N, near_end_N, own_N, own_end_N = (ends[:, run, end].contiguous() for run in range(2) for end in range(2))

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((k >= near_N[q]) & (k < near_end_N[q])) | ((k >= own_N[q]) & (k < own_end_N[q]))

    some_MM, all_MM = blocks_seen(runs_NRE)
    return BlockMask.from_kv_blocks(
        *_ordered(some_MM & ~all_MM, device),
        *_ordered(all_MM, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(len(runs_NRE), len(runs_NRE)),
    )


def blocks_seen(runs_NRE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether any row of a block (M) sees any key of another (M), and whether all rows see all of it in one run. A run
    counts one up where it begins and one down where it has ended, so that sums along a line count rows."""
    blocks = -(-len(runs_NRE) // BLOCK)
    touched, covered = (np.zeros((blocks, blocks + 1), dtype=np.int64) for _ in range(2))
    for start_N, stop_N in runs_NRE.transpose(1, 2, 0):
        row_N = np.flatnonzero(stop_N > start_N)
        start, stop, row = start_N[row_N], stop_N[row_N], row_N // BLOCK
        np.add.at(touched, (row, start // BLOCK), 1)
        np.add.at(touched, (row, (stop - 1) // BLOCK + 1), -1)
        first, last = -(-start // BLOCK), stop // BLOCK
        whole = last > first
        np.add.at(covered, (row[whole], first[whole]), 1)
        np.add.at(covered, (row[whole], last[whole]), -1)
    return touched.cumsum(1)[:, :-1] > 0, covered.cumsum(1)[:, :-1] == BLOCK


def _ordered(seen_MM: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """How many blocks each block of rows sees, and their numbers first in its line, as the kernel wants them."""
    count_M, order_MM = seen_MM.sum(1), np.argsort(~seen_MM, axis=1, kind="stable")
    count_11M, order_11MM = (torch.from_numpy(x).to(device, torch.int32)[None, None] for x in (count_M, order_MM))
    return count_11M, order_11MM
