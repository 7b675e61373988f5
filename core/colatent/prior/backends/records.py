"""What a backend is, and what it is given.

Axes: B samples, H heads, Q queries, K keys, D head channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from colatent.latents.rows import AttentionPart


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the choice of a backend turns on, beside who sees whom.

    gradient  whether a backward pass will follow
    """

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    gradient: bool

    @classmethod
    def of(cls, q_NHD: Tensor) -> Case:
        """The case of these queries."""
        return cls(device=q_NHD.device, dtype=q_NHD.dtype, head_dim=q_NHD.shape[-1], gradient=q_NHD.requires_grad)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a backend cannot work in a case, and what its user can do."""

    what: str
    do: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Operands:
    """One part of a layout as rectangles; what the cache holds is among the keys.

    own  keys and values of the queries' own rows, where `part.own` is given
    """

    part: AttentionPart
    q_BHQD: Tensor
    k_BHKD: Tensor
    v_BHKD: Tensor
    own: tuple[Tensor, Tensor] | None = None

    @property
    def mask_BQK(self) -> Tensor | None:
        """The part's mask where the queries are, moved there once for all layers."""
        if self.part.mask_BQK is None:
            return None
        key = ("mask", self.q_BHQD.device)
        if key not in self.part.made:
            self.part.made[key] = self.part.mask_BQK.to(self.q_BHQD.device)
        return self.part.made[key]
