"""Attention by xFormers' memory-efficient kernels, for generation on CUDA: every query sees one run of keys.

Runs of queries with the same keys become the sequences of a variable-length call, whose keys lie in the cache with gaps
between them: nothing is padded, masked or copied. The kernels for such gaps have no backward pass.

xFormers is imported at first use. Beside a torch that it was not built for it prints a warning, its extension does not
load, and then none of its operators takes a tensor on a card, those that rest on PyTorch's own kernels neither.

Axes: B samples, H heads, Q queries, K keys, D head channels, S sequences, M rows of all samples' keys.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colatent.latents.rows import AttentionPart
from colatent.prior.backends.records import Case, Operands, Refusal
from colatent.prior.backends.runs import runs_of

DTYPES = (torch.bfloat16, torch.float16)
WIDEST_HEAD = 256
"""Channels of the widest head that the flash kernel takes; they are a multiple of 8."""


@cache
def why_not(case: Case) -> Refusal | None:
    """Why this backend cannot work in a case."""
    if case.device.type != "cuda" or not torch.cuda.is_available():
        return Refusal(what="needs CUDA", do="set auto or sdpa")
    if find_spec("xformers") is None:
        return Refusal(what="is not installed", do="set auto, or pip install xformers")
    if torch.cuda.get_device_capability(case.device) < (8, 0):
        return Refusal(what="needs a card of compute capability 8.0 or later", do="set auto or sdpa")
    if case.dtype not in DTYPES:
        what = f"computes in bfloat16 and float16, not in {str(case.dtype).removeprefix('torch.')}"
        return Refusal(what=what, do="set auto or sdpa")
    if case.head_dim > WIDEST_HEAD or case.head_dim % 8:
        what = f"needs heads of a multiple of 8 channels, {WIDEST_HEAD} at most, not {case.head_dim}"
        return Refusal(what=what, do="set auto or sdpa")
    if not _extension():
        what = f"has no kernels beside torch {torch.__version__}: its extension does not load"
        return Refusal(what=what, do="set auto or sdpa, or install the xformers that was built for this torch")
    return None


@cache
def _extension() -> bool:
    """Whether xFormers' own kernels are there: on a card, all of its operators ask for them. What it logs of that is
    said in the refusal."""
    logger = logging.getLogger("xformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from xformers import _has_cpp_library
    finally:
        logger.setLevel(level)
    return bool(_has_cpp_library)


def takes(part: AttentionPart) -> bool:
    """Whether this backend can do a part: each query sees one run of keys."""
    if part.own is not None:
        return False
    if part.mask_BQK is None:
        return True
    runs_BQRE = runs_of(part)
    return runs_BQRE is not None and not (runs_BQRE[:, :, 1, 1] > runs_BQRE[:, :, 1, 0]).any()


def attend_part(given: Operands) -> Tensor:
    """Attention of one part, (B, H, Q, D)."""
    from xformers.ops import memory_efficient_attention

    q_BQHD, k_BKHD, v_BKHD = (x.transpose(1, 2) for x in (given.q_BHQD, given.k_BHKD, given.v_BHKD))
    apart = _rows_apart(k_BKHD)
    if apart is None or _rows_apart(v_BKHD) != apart:
        k_BKHD, v_BKHD, apart = k_BKHD.contiguous(), v_BKHD.contiguous(), k_BKHD.shape[1]
    key = ("gaps", apart, k_BKHD.shape[1], k_BKHD.device)
    if key not in given.part.made:
        given.part.made[key] = bias_of(given.part, keys=k_BKHD.shape[1], apart=apart, device=k_BKHD.device)
    k_1MHD, v_1MHD = (_end_to_end(x, apart)[None] for x in (k_BKHD, v_BKHD))
    o_1SHD = memory_efficient_attention(q_BQHD.flatten(0, 1)[None], k_1MHD, v_1MHD, attn_bias=given.part.made[key])
    return o_1SHD[0].unflatten(0, q_BQHD.shape[:2]).transpose(1, 2)


def _rows_apart(x_BKHD: Tensor) -> int | None:
    """How many rows of storage lie between two samples; None where that is not a whole number."""
    if len(x_BKHD) == 1:
        return x_BKHD.shape[1]
    apart, rest = divmod(x_BKHD.stride(0), x_BKHD.stride(1))
    return None if rest or apart < x_BKHD.shape[1] else apart


def _end_to_end(x_BKHD: Tensor, apart: int) -> Tensor:
    """All samples' rows and the gaps between them, (M, H, D), without a copy."""
    rows = (len(x_BKHD) - 1) * apart + x_BKHD.shape[1]
    return x_BKHD.as_strided((rows, *x_BKHD.shape[2:]), x_BKHD.stride()[1:])


def bias_of(part: AttentionPart, *, keys: int, apart: int, device: torch.device) -> Any:
    """Who sees whom, as an xFormers bias over all queries (B * Q) and keys (M): samples' keys begin `apart` rows from
    one another."""
    from xformers.ops.fmha.attn_bias import BlockDiagonalGappyKeysMask

    batch, width = part.queries.batch, part.queries.width
    runs_BQE = np.broadcast_to(np.array([0, keys]), (batch, width, 2))
    if part.mask_BQK is not None:
        found = runs_of(part)
        assert found is not None
        runs_BQE = np.broadcast_to(found[:, :, 0], (batch, width, 2))
    ends_TE = (runs_BQE + apart * np.arange(batch)[:, None, None]).reshape(-1, 2)
    sample_T = np.repeat(np.arange(batch), width)
    new_T = (np.diff(ends_TE, axis=0, prepend=-1) != 0).any(1) | (np.diff(sample_T, prepend=-1) != 0)
    first_S = np.flatnonzero(new_T)
    start_S, stop_S = ends_TE[first_S].T
    return BlockDiagonalGappyKeysMask.from_seqlens(
        np.diff(first_S, append=len(ends_TE)).tolist(),
        [*start_S.tolist(), (batch - 1) * apart + keys],
        (stop_S - start_S).tolist(),
        device=device,
    )
