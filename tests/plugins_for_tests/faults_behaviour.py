"""Slips in encoding, decoding and training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from plugins_for_tests.faults import breaks, changing
from plugins_for_tests.wave_codec import WaveCodec

# Items in batches, odd items, the same item twice.


@breaks("independence", "mean_LC differs by")
class SeesNeighbours(WaveCodec):
    def encode(self, items, *, generator=None):
        return super().encode([item + 0.01 * len(items) for item in items])


@breaks("independence", "in a batch and in its reverse")
class SeesOrder(WaveCodec):
    def encode(self, items, *, generator=None):
        first = float(items[0][0]) if len(items) > 1 else 0.0
        return super().encode([item + first for item in items])


@breaks("independence", "logvar_LC differs by")
class SpreadsByBatch(WaveCodec):
    def encode(self, items, *, generator=None):
        return [replace(record, logvar_LC=record.logvar_LC + len(items)) for record in super().encode(items)]


@breaks("independence", "decode to another item")
class DecodesTogether(WaveCodec):
    def decode(self, latents):
        return [item + len(latents) for item in super().decode(latents)]


@breaks("lengths", "decode([]) raises")
class NeedsItems(WaveCodec):
    def decode(self, latents):
        torch.cat([record.z_LC for record in latents])
        return super().decode(latents)


@breaks("lengths", "7 items give 4 records")
class SmallBatches(WaveCodec):
    def encode(self, items, *, generator=None):
        return super().encode(items[:4])


@breaks("cuts", "cut after 0 latents has 1")
class CutsLate(WaveCodec):
    def cut(self, items, lengths):
        return super().cut(items, [length + 1 for length in lengths])


@breaks("cuts", "encode_cut and encode of the cut item differ")
class CutsNothing(WaveCodec):
    def encode_cut(self, items, cuts):
        return [record.mean_LC for record in self.encode(items)]


@breaks("determinism", "mean_LC differs by")
class Noisy(WaveCodec):
    def encode(self, items, *, generator=None):
        return super().encode([item + np.float32(np.random.normal()) for item in items])


@breaks("determinism", "losses differ the second time")
class OtherRandomness(WaveCodec):
    def losses(self, items, latents, *, generator):
        return {
            name: loss + torch.rand(()) for name, loss in super().losses(items, latents, generator=generator).items()
        }


@breaks("round-trip", "encode takes ndarray, decode gives list")
class DecodesLists(WaveCodec):
    def decode(self, latents):
        return [item.tolist() for item in super().decode(latents)]


@breaks("round-trip", "float32 comes back as float64")
class DecodesDoubles(WaveCodec):
    def decode(self, latents):
        return [item.astype(np.float64) for item in super().decode(latents)]


@breaks("round-trip", "comes back as (1, 4)")
class DecodesRows(WaveCodec):
    def decode(self, latents):
        return [item[None] for item in super().decode(latents)]


# Training.


@breaks("losses", "is not one finite number")
class LossPerItem(WaveCodec):
    def losses(self, items, latents, *, generator):
        return {"reconstruction": torch.stack([self.errors(*pair).mean() for pair in zip(items, latents, strict=True)])}


@breaks("losses", "there is no loss")
class NoLoss(WaveCodec):
    def losses(self, items, latents, *, generator):
        return {}


@breaks("losses", "and the items have 12 units")
class CountsPadding(WaveCodec):
    def reconstruction_score(self, items, latents):
        return 0, sum(2 * len(record.z_LC) for record in latents)


@breaks("gradients", "no gradient reaches unused")
class UnusedWeights(WaveCodec):
    def __init__(self, config, assets) -> None:
        super().__init__(config, assets)
        self.unused = nn.Parameter(torch.zeros(()))


@breaks("gradients", "means carry no gradient")
class Detached(changing(mean_LC=lambda mean: mean.detach())):
    pass


@breaks("gradients", "reaches no parameter")
class ConstantLoss(WaveCodec):
    def losses(self, items, latents, *, generator):
        found = super().losses(items, latents, generator=generator)
        return {name: loss.detach() for name, loss in found.items()}


@breaks("gradients", "losses change encoder.bias themselves")
class StepsAlone(WaveCodec):
    def losses(self, items, latents, *, generator):
        found = super().losses(items, latents, generator=generator)
        self.encoder.bias.data += 1.0
        return found


@breaks("gradients", "trainable again")
class Thaws(WaveCodec):
    def encode(self, items, *, generator=None):
        self.encoder.weight.requires_grad_(True)
        return super().encode(items)
