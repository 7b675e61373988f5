"""What happens on the way of a batch of items: steps of the solver, and finished blocks.

Axes: B samples, K latents of a block, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from colatent.plugins.latents import BlockPlan, Latents


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One step of the solver: the block's number and its own, both from 0; where it begins (t and z_t); and the guided
    velocity there. `plans` are those of the block."""

    block: int
    number: int
    t: float
    z_BKC: Tensor
    velocity_BKC: Tensor
    plans: Sequence[BlockPlan]

    def clean(self) -> list[Latents]:
        """The block if the velocity were the same all the way: z0 = z_t - t v, since z_t = (1 - t) z0 + t z1 and
        v = z1 - z0."""
        return latents_of(self.z_BKC - self.t * self.velocity_BKC, self.plans)


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """A finished block: its number, and its latents for every sample."""

    block: int
    latents: list[Latents]


def latents_of(z_BKC: Tensor, plans: Sequence[BlockPlan]) -> list[Latents]:
    """A block of every sample, on the CPU, laid out as planned."""
    return [
        Latents(z_LC=z_KC, block_lengths=(plan.length,), positions_LA=plan.positions_LA)
        for z_KC, plan in zip(z_BKC.cpu(), plans, strict=True)
    ]
