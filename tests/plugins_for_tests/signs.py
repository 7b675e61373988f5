"""A toy model whose every fault can be switched on by itself, for the findings of a diagnosis.

Items are signs, latents are the signs with Gaussian noise, and the exact velocity of such latents is known: each
channel is a mixture of two Gaussians at -1 and 1. The healthy prior has it, and knows less once its history is hidden.

Axes: L latents of an item, C channels, S rows, N rows of the flat batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from colatent.config.sampling import SampleConfig
from colatent.plugins.contract import Encoded, Item, Latents

CHANNELS, BLOCK = 2, 4


@dataclass(kw_only=True)
class SignCodec:
    """A codec, healthy as it stands.

    spread  the posterior means are +-spread
    std     posterior standard deviation
    dull    leading channels that are always 0 in the mean
    radius  a latent is read right only within this distance of its sign; None: anywhere on the right side of 0
    until   latents from here on in an item are read wrong
    """

    spread: float = 1.0
    std: float = 0.1
    dull: int = 0
    radius: float | None = None
    until: int | None = None

    def encode(self, items: Sequence[Item], *, generator: torch.Generator | None = None) -> list[Encoded]:
        return [self._encode_one(item) for item in items]

    def losses(self, items: Any, latents: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError

    def reconstruction_score(self, items: Sequence[Item], latents: Sequence[Latents]) -> tuple[int, int]:
        right = [self._right(item, record.z_LC) for item, record in zip(items, latents, strict=True)]
        return sum(int(each.sum()) for each in right), sum(len(each) for each in right)

    def cut(self, items: Sequence[Item], lengths: Sequence[int]) -> list[Item]:
        return [item[:length] for item, length in zip(items, lengths, strict=True)]

    def encode_cut(self, items: Sequence[Item], cuts: Sequence[Sequence[int]]) -> list[Tensor]:
        return [record.mean_LC for record in self.encode(items)]

    # What a diagnosis never asks for, so that this is a codec.

    def latent_spec(self) -> Any: ...
    def decode(self, latents: Any) -> Any: ...
    def plan(self, request: Any) -> Any: ...
    def finished(self, latents: Any) -> Any: ...
    def example_batch(self, n: int) -> Any: ...
    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None: ...

    def _encode_one(self, item: Tensor) -> Encoded:
        padded = torch.cat([item, torch.ones(-len(item) % BLOCK, CHANNELS)])
        mean_LC = self.spread * padded
        mean_LC[:, : self.dull] = 0.0
        return Encoded(
            mean_LC=mean_LC,
            logvar_LC=torch.full_like(mean_LC, 2 * math.log(self.std)),
            block_lengths=(BLOCK,) * (len(padded) // BLOCK),
            positions_LA=torch.arange(len(padded), dtype=torch.float32)[:, None],
            units_L=(torch.arange(len(padded)) < len(item)).long(),
        )

    def _right(self, item: Tensor, z_LC: Tensor) -> Tensor:
        z_LC, item = z_LC[: len(item), self.dull :], item[:, self.dull :]
        near = z_LC * item > 0 if self.radius is None else (z_LC - item).abs() < self.radius
        return near.all(1) & (torch.arange(len(item)) < (self.until or len(item)))


class SignPrior:
    """Exact velocity of the healthy codec's latents; a Gaussian's where history is hidden.

    gaussian  knows mean and variance only, always
    deaf      does not notice that history is hidden
    lost      gives nonsense where history is hidden
    drift     added to the velocity
    """

    def __init__(
        self, *, gaussian: bool = False, deaf: bool = False, lost: bool = False, drift: float = 0.0, std: float = 0.1
    ) -> None:
        self.gaussian, self.deaf, self.lost, self.drift, self.variance = gaussian, deaf, lost, drift, std**2

    def modulate(self, t_T: Tensor) -> Tensor:
        return t_T

    def __call__(
        self, x: Mapping[str, Tensor], *, layout: Any, t_index_N: Tensor, modulation: Tensor, wanted: Any, **rest: Any
    ) -> dict[str, Tensor]:
        ((name, z_SC),) = x.items()
        t_S1 = modulation[t_index_N][:, None]
        mask = layout.parts[-1].mask_BQK
        hidden = mask is not None and not bool(mask.any())
        if hidden and self.lost:
            return {name: 5.0 * torch.ones_like(z_SC)[wanted[name]]}
        plain = self.gaussian or (hidden and not self.deaf)
        centre_SC = torch.zeros_like(z_SC) if plain else self._sign(z_SC, t_S1)
        velocity_SC = self._regress(z_SC, t_S1, centre_SC, self.variance + plain)
        return {name: (velocity_SC + self.drift)[wanted[name]]}

    def _sign(self, z_SC: Tensor, t_S1: Tensor) -> Tensor:
        """E[sign | z_t] of two equally likely Gaussians."""
        return torch.tanh((1 - t_S1) * z_SC / self._noise(t_S1, self.variance))

    def _regress(self, z_SC: Tensor, t_S1: Tensor, centre_SC: Tensor, variance: float) -> Tensor:
        """E[z1 - z0 | z_t, centre], averaged over the centre (it is linear in it)."""
        gain = (t_S1 - (1 - t_S1) * variance) / self._noise(t_S1, variance)
        return -centre_SC + gain * (z_SC - (1 - t_S1) * centre_SC)

    @staticmethod
    def _noise(t_S1: Tensor, variance: float) -> Tensor:
        return (1 - t_S1) ** 2 * variance + t_S1**2


@dataclass(kw_only=True)
class SignModel:
    """What a diagnosis looks at."""

    prior: Any
    codecs: dict[str, Any]
    sample: SampleConfig = field(default_factory=lambda: SampleConfig(steps=8))


def signs(count: int, *, length: int = 16) -> list[Tensor]:
    """Random items."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 2, (length, CHANNELS), generator=generator).float() * 2 - 1 for _ in range(count)]
