"""What crosses the seam between the engine and a modality: the latents of items, and plans of those to be generated.

The engine sees these records and never an item. They are plain: a codec has encoded or will decode them, but nothing in
them says which, so that latents of any modality are packed into one sequence.

Axes: L latents of one item, C channels, K blocks of one item, A position axes of the modality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Item = Any
"""What a modality calls one thing: a string, a picture, a sound. The core never looks inside."""


@dataclass(frozen=True, kw_only=True)
class Latents:
    """The latents of one item at unit scale, with the layout that is needed to decode them.

    z_LC           float32, (L, C)
    block_lengths  latents per block, sums to L
    positions_LA   float32, (L, A), counted from the item's own start
    seed           of whatever else is drawn for this item here, 0 to 2**63 - 1, where the core drew the latents to
                   train on; None elsewhere. It hangs on sample and epoch, not on who else is in the batch
    """

    z_LC: Tensor
    block_lengths: tuple[int, ...]
    positions_LA: Tensor
    seed: int | None = None

    def __post_init__(self) -> None:
        assert sum(self.block_lengths) == len(self.z_LC) == len(self.positions_LA)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What `encode` gives for one item: a diagonal Gaussian posterior over its latents, and their layout.

    mean_LC        posterior mean at unit scale, (L, C)
    logvar_LC      posterior log-variance in the same space, (L, C); None for a deterministic encoder
    block_lengths  latents per block (K,), sums to L
    positions_LA   float32, (L, A), counted from the item's own start
    units_L        int64, (L,): data units in each latent; 0 marks padding, which only `flow.padding` gives a weight
    """

    mean_LC: Tensor
    logvar_LC: Tensor | None
    block_lengths: tuple[int, ...]
    positions_LA: Tensor
    units_L: Tensor

    def __post_init__(self) -> None:
        length = len(self.mean_LC)
        assert sum(self.block_lengths) == length == len(self.positions_LA) == len(self.units_L)

    def on_cpu(self) -> Encoded:
        """The record without gradient, float32 on the CPU, where sequences are built."""
        return Encoded(
            mean_LC=self.mean_LC.detach().float().cpu(),
            logvar_LC=None if self.logvar_LC is None else self.logvar_LC.detach().float().cpu(),
            block_lengths=self.block_lengths,
            positions_LA=self.positions_LA.float().cpu(),
            units_L=self.units_L.cpu(),
        )

    def sample(self, noise_LC: Tensor | None, *, seed: int | None = None) -> Latents:
        """The posterior's draw `mean + std * noise`; its mean where `noise_LC` is None. `seed` is handed on."""
        z_LC = self.mean_LC
        if noise_LC is not None and self.logvar_LC is not None:
            z_LC = z_LC + torch.exp(0.5 * self.logvar_LC) * noise_LC
        return Latents(z_LC=z_LC, block_lengths=self.block_lengths, positions_LA=self.positions_LA, seed=seed)


@dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """One block that is to be generated: its length and the positions (length, A) of its latents in the item."""

    length: int
    positions_LA: Tensor


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What is known before an item is generated.

    given      the item's own first latents (a text prompt), None where it starts from nothing. Its last block may be
               partial: latents whose units are 0 are still to be generated
    max_units  budget in data units (tokens, ...), None for the codec's default
    options    what the user asked of this modality (an image's height and width, ...): every field of the codec's
               options with its value, empty for a codec that is no `OptionedCodec`
    """

    given: Encoded | None = None
    max_units: int | None = None
    options: Mapping[str, Any]
