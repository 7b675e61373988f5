"""What the layers of one forward pass share: rows and whose they are, times, rotations, and what is wanted at the end.

Axes: N rows of the flat batch, S rows of one stream, T distinct times, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

    def turn(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rotary factors in the dtype that the layers compute in, converted once."""
        if self.rotation[0].dtype != dtype:
            self.rotation = (self.rotation[0].to(dtype), self.rotation[1].to(dtype))
        return self.rotation

    def look_up(self, table_TKD: Tensor, rows_S: Tensor | None) -> tuple[Tensor, ...]:
        """Modulation of each row of a stream, from the table of its times."""
        index_S = take(self.t_index_N, rows_S)
        return tuple(table_TD.index_select(0, index_S) for table_TD in table_TKD.unbind(1))


def ending_of(wanted: Mapping[str, Tensor | None], rows: Mapping[str, Tensor | None], layout: Layout) -> Ending:
    """From wanted rows within each stream to rows of the flat batch."""
    flat = {}
    for name, wanted_S in wanted.items():
        rows_S = rows[name]
        flat[name] = rows_S if wanted_S is None else wanted_S if rows_S is None else rows_S[wanted_S]
    return Ending(flat, [bool(wanted) and not part.history for part in layout.parts])
