"""The decoder by itself: which units it gets right from true latents, by length, by place, and under noise.

A codec says how many units of whole items it gets right, not where. So place is measured by prefixes: the units in the
first k blocks are those of the item cut after k blocks, decoded from the same latents, and a stretch of blocks is the
difference of two prefixes. That needs a codec that can cut (`RaggedCodec`) and decodes no block by later ones.

Axes: L latents of an item, C channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from colatent.evaluate.heldout import BATCH, HeldItem, encode_items, noise_of
from colatent.plugins.contract import Codec, RaggedCodec, TrainableCodec
from colatent.plugins.latents import Item, Latents

NOISE_LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
"""Standard deviations, in units of the latents' own."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """Units right and units in all; `share` is None where there are none."""

    right: int = 0
    total: int = 0

    @property
    def share(self) -> float | None:
        return self.right / self.total if self.total else None

    def __add__(self, other: Count) -> Count:
        return Count(right=self.right + other.right, total=self.total + other.total)

    def __sub__(self, other: Count) -> Count:
        return Count(right=self.right - other.right, total=self.total - other.total)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Units of items (or of a stretch of an item's blocks) numbered `low` to `high`, both included."""

    low: int
    high: int
    items: int
    right: int
    total: int
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Units right from posterior samples.

    share, units  of the held-out items as they are
    by_length     of the items by latents that hold data, in bins 1, 2 to 3, 4 to 7, ...
    beginnings    of the items cut to 1, 2, 4, ... latents, as a prompt is; None where the codec cannot cut
    by_block      by number of the block in the item, from 0; None where the codec cannot cut
    """

    share: float
    units: int
    by_length: tuple[Bin, ...]
    beginnings: tuple[Bin, ...] | None
    by_block: tuple[Bin, ...] | None


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Share of units right when noise of standard deviation `noise` is added to the posterior mean.

    posterior_std  root mean square of the posterior's own: the noise that the decoder was trained with
    """

    noise: tuple[float, ...]
    share: tuple[float, ...]
    posterior_std: float | None


@torch.no_grad()
def count_right(codec: TrainableCodec, items: Sequence[Item], latents: Sequence[Latents]) -> Count:
    """Units that decode right, in batches."""
    found = Count()
    for start in range(0, len(items), BATCH):
        some = slice(start, start + BATCH)
        right, total = codec.reconstruction_score(items[some], latents[some])
        found += Count(right=right, total=total)
    return found


def reconstruction(codec: TrainableCodec, held: Sequence[HeldItem], *, seed: int) -> Reconstruction | None:
    """Units right of held-out items; None where they have no units."""
    whole = count_right(codec, [one.item for one in held], [one.latents(one.z_LC) for one in held])
    if whole.share is None:
        return None
    return Reconstruction(
        share=whole.share,
        units=whole.total,
        by_length=_by_length(codec, held),
        beginnings=_by_length(codec, cut_short(codec, held, seed=seed)) if isinstance(codec, RaggedCodec) else None,
        by_block=_by_block(codec, held) if isinstance(codec, RaggedCodec) else None,
    )


@torch.no_grad()
def cut_short(codec: RaggedCodec, held: Sequence[HeldItem], *, seed: int) -> list[HeldItem]:
    """Each item cut to 1, 2, 4, ... latents, fewer than it has, and encoded as such."""
    assert isinstance(codec, Codec)
    cuts = [(one, length) for one in held for length in _powers(int(one.holds_L.sum()) - 1)]
    items = codec.cut([one.item for one, _ in cuts], [length for _, length in cuts])
    return encode_items(codec, items, [f"{one.key}/first-{length}" for one, length in cuts], seed=seed)


def _powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`."""
    return [2**power for power in range(max(0, most).bit_length())]


def _by_length(codec: TrainableCodec, held: Sequence[HeldItem]) -> tuple[Bin, ...]:
    bins = defaultdict[int, list[HeldItem]](list)
    for one in held:
        bins[int(one.holds_L.sum()).bit_length()].append(one)
    return tuple(
        _bin(power, len(some), count_right(codec, [one.item for one in some], [one.latents(one.z_LC) for one in some]))
        for power, some in sorted(bins.items())
    )


def _by_block(codec: TrainableCodec, held: Sequence[HeldItem]) -> tuple[Bin, ...]:
    """Differences of prefixes of 1, 2, 4, ... blocks: blocks 0, 1, 2 to 3, 4 to 7, ..."""
    groups = defaultdict[int, list[HeldItem]](list)
    for one in held:
        groups[len(one.record.block_lengths)].append(one)
    bins = defaultdict[int, tuple[int, Count]](lambda: (0, Count()))
    for blocks, some in groups.items():
        ends = [*_powers(blocks - 1), blocks]
        counts = [Count(), *(_prefix(codec, some, end) for end in ends)]
        for power, (before, after) in enumerate(pairwise(counts)):
            number, known = bins[power]
            bins[power] = (number + len(some), known + (after - before))
    return tuple(_bin(power, number, count) for power, (number, count) in sorted(bins.items()))


def _prefix(codec: TrainableCodec, held: Sequence[HeldItem], blocks: int) -> Count:
    """Units right in the first so many blocks, decoded from the item's own latents."""
    assert isinstance(codec, RaggedCodec)
    ends = [list(accumulate(one.record.block_lengths))[blocks - 1] for one in held]
    latents = [
        Latents(
            z_LC=one.z_LC[:end],
            block_lengths=one.record.block_lengths[:blocks],
            positions_LA=one.record.positions_LA[:end],
        )
        for one, end in zip(held, ends, strict=True)
    ]
    return count_right(codec, codec.cut([one.item for one in held], ends), latents)


def _bin(power: int, items: int, count: Count) -> Bin:
    """The bin of the numbers that have `power` binary digits: 0, 1, 2 to 3, 4 to 7, ..."""
    low, high = 2**power // 2, 2**power - 1
    return Bin(low=low, high=high, items=items, right=count.right, total=count.total, share=count.share)


def robustness(codec: TrainableCodec, held: Sequence[HeldItem], *, seed: int) -> Robustness:
    """Reconstruction from posterior means with noise added, the same noise at every level."""
    items, shares = [one.item for one in held], []
    for level in NOISE_LEVELS:
        latents = [one.latents(one.record.mean_LC + level * noise_of(one, seed, "robustness")) for one in held]
        shares.append(count_right(codec, items, latents).share or 0.0)
    logvars = [one.record.logvar_LC[one.holds_L] for one in held if one.record.logvar_LC is not None]
    std = float(torch.cat(logvars).exp().mean().sqrt()) if logvars else None
    return Robustness(noise=NOISE_LEVELS, share=tuple(shares), posterior_std=std)
