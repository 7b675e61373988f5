"""What the layers of one forward pass share: rows and whose they are, times, rotations, and what is wanted at the end.

Axes: N rows of the flat batch, S rows of one stream, T distinct times, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from colatent.latents.rows import Layout
from colatent.prior.cache import KVCache
from colatent.prior.modulation import Modulation

SHARED = ""
"""Key of a shared layer's parameters and modulation, where a stream's name would stand."""


def take(x_N: Tensor, rows_S: Tensor | None) -> Tensor:
    """Rows of one stream; None: all of them."""
    return x_N if rows_S is None else x_N.index_select(0, rows_S)


def join(parts: Mapping[str, Tensor], rows: Mapping[str, Tensor | None], length: int) -> Tensor:
    """The streams' rows back in flat order."""
    if len(parts) == 1 and next(iter(rows.values())) is None:
        return next(iter(parts.values()))
    source = torch.cat([rows[name] for name in parts])  # type: ignore[misc]
    joined = torch.cat(list(parts.values()))
    return torch.empty((length, *joined.shape[1:]), dtype=joined.dtype, device=joined.device).index_copy(
        0, source, joined
    )


@dataclass(frozen=True, eq=False)
class Ending:
    """What the last layer has to compute, where not all of it is wanted.

    rows      rows of the flat batch whose velocity is wanted, by stream; None: all
    answered  which parts of the layout have such queries
    """

    rows: Mapping[str, Tensor | None]
    answered: Sequence[bool]

    def kinds(self, shared: bool) -> Mapping[str, Tensor | None]:
        """The rows by whose parameters they are computed."""
        if not shared or not self.rows:
            return self.rows
        parts = [rows_S for rows_S in self.rows.values() if rows_S is not None]
        return {SHARED: torch.cat(parts) if len(parts) == len(self.rows) else None}


@dataclass(kw_only=True, eq=False)
class Pass:
    """What all layers of one forward pass share: where rows stand, who sees whom, their times and rotations."""

    layout: Layout
    rows: Mapping[str, Tensor | None]
    t_index_N: Tensor
    modulation: Modulation
    cache: KVCache | None
    rotation: tuple[Tensor, Tensor]
    ending: Ending | None
    layer: int = 0
    last: bool = False
    turned: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def turn(self, name: str, rows_S: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rotary factors of one kind of row, in the dtype that the layers compute in; made once for all layers."""
        if name not in self.turned:
            cos_N1D, sin_N1D = (take(x_N1D.to(dtype), rows_S) for x_N1D in self.rotation)
            self.turned[name] = (cos_N1D, sin_N1D)
        return self.turned[name]

    def look_up(self, table_TKD: Tensor, rows_S: Tensor | None) -> tuple[Tensor, ...]:
        """Modulation of each row of a stream, from the table of its times."""
        index_S = take(self.t_index_N, rows_S)
        if table_TKD.device.type == "cuda":  # one kernel for all
            return LookUp.apply(table_TKD.flatten(1), index_S).unflatten(1, table_TKD.shape[1:]).unbind(1)
        return tuple(table_TD.index_select(0, index_S) for table_TD in table_TKD.unbind(1))


class LookUp(torch.autograd.Function):
    """Rows of a table, whose gradient is summed in float32. torch's own sum adds row after row, on CUDA in the table's
    dtype: thousands of bfloat16 numbers at t = 0, each of which rounds the sum.

    A matrix product does it, as long as that is little beside the layer's own; it grows with rows times times. Of more
    times, the sum that embeddings have, which sorts the rows."""

    @staticmethod
    def forward(ctx: Any, table_TE: Tensor, index_S: Tensor) -> Tensor:
        ctx.save_for_backward(index_S)
        ctx.times = len(table_TE)
        return table_TE.index_select(0, index_S)

    @staticmethod
    def backward(ctx: Any, grad_SE: Tensor) -> tuple[Tensor, None]:
        (index_S,) = ctx.saved_tensors
        if 4 * ctx.times > grad_SE.shape[1]:
            return torch.ops.aten.embedding_dense_backward(grad_SE, index_S, ctx.times, -1, False), None
        is_time_TS = torch.arange(ctx.times, device=index_S.device)[:, None] == index_S
        return is_time_TS.to(grad_SE.dtype) @ grad_SE, None


def ending_of(wanted: Mapping[str, Tensor | None], rows: Mapping[str, Tensor | None], layout: Layout) -> Ending:
    """From wanted rows within each stream to rows of the flat batch."""
    flat = {}
    for name, wanted_S in wanted.items():
        rows_S = rows[name]
        flat[name] = rows_S if wanted_S is None else wanted_S if rows_S is None else rows_S[wanted_S]
    return Ending(flat, [bool(wanted) and not part.history for part in layout.parts])
