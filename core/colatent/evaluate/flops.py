"""Model FLOPs: the matrix products that a training step or a generated item of these shapes cannot do without.

The prior is counted by formula, so that no implementation can raise the figure: attention by the pairs that may see
each other, and the last layer of rows whose velocity nobody asks for by their keys and values. What a mask throws away
or a pass computes for nothing is left out; `colatent.evaluate.cost` counts what the code does instead. Codecs belong to
their plugins, so theirs are counted while they run. A product and its sum are two FLOPs.

Axes: L latents of a sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from colatent.config.prior import PriorConfig
from colatent.latents.sequence import LatentSequence, blocks_of
from colatent.prior.backends.choose import counted
from colatent.prior.modulation import FEATURES
from colatent.prior.packed import counted_too


@dataclass(frozen=True, kw_only=True)
class PassWork:
    """What one pass of the prior is about.

    rows         rows of each stream
    asked        of these, rows whose velocity is asked for; of the others the last layer needs keys and values only
    pairs        how many pairs of a query and a key see each other
    asked_pairs  of these, pairs whose query is asked for
    """

    rows: Mapping[str, int]
    asked: Mapping[str, int]
    pairs: int
    asked_pairs: int


def pass_flops(config: PriorConfig, channels: Mapping[str, int], work: PassWork) -> int:
    """Of a forward pass, without modulation."""
    width, rows, asked = config.width, sum(work.rows.values()), sum(work.asked.values())
    whole = 2 * (4 + 2 * config.mlp_ratio) * width**2  # qkv 3, out 1, and the MLP
    keys_and_values, pair = 2 * 2 * width**2, 2 * 2 * width
    before_last = config.layers + config.dual_layers - 1
    trunk = before_last * (rows * whole + work.pairs * pair)
    last = asked * whole + (rows - asked) * keys_and_values + work.asked_pairs * pair
    return trunk + last + _enter_flops(config, channels, work.rows) + _enter_flops(config, channels, work.asked)


def _enter_flops(config: PriorConfig, channels: Mapping[str, int], rows: Mapping[str, int]) -> int:
    """Of the projections of these rows from channels to the width, or back."""
    return sum(2 * count * channels[name] * config.width for name, count in rows.items())


def modulation_flops(config: PriorConfig, streams: int, *, times: int) -> int:
    """Of the tables of so many distinct times."""
    width = config.width
    layers = 6 * (config.layers + config.dual_layers * streams) * width**2
    return 2 * times * (FEATURES * width + 2 * width**2 + layers + 2 * streams * width**2)


def training_flops(config: PriorConfig, channels: Mapping[str, int], sequences: Sequence[LatentSequence]) -> int:
    """Of the prior's forward and backward pass over these sequences, both copies."""
    work = two_copy_work(sequences)
    times = 1 + sum(len(segment.block_lengths) for some in sequences for segment in some if segment.generated)
    forward = pass_flops(config, channels, work) + modulation_flops(config, len(channels), times=times)
    # Backward is a product for the input and one for the weight; sinusoids and latents need no gradient.
    inputs = 2 * times * FEATURES * config.width + _enter_flops(config, channels, work.rows)
    return 3 * forward - inputs


def two_copy_work(sequences: Sequence[LatentSequence]) -> PassWork:
    """Of the pass over a clean and a noisy copy of each sequence."""
    rows, asked, pairs, asked_pairs = Counter[str](), Counter[str](), 0, 0
    for sequence in sequences:
        blocks = blocks_of(sequence)
        stream_L = np.repeat([one.stream for one in sequence], [len(one.z_LC) for one in sequence])
        noisy_L = blocks.generated_L
        clean_L = blocks.group_L < blocks.group_L[noisy_L].max()
        clean, noisy = blocks.group_L[clean_L], blocks.group_L[noisy_L]  # groups are numbered in order
        history = np.searchsorted(clean, noisy, side="left") * ~blocks.alone_L[noisy_L]
        own = np.bincount(blocks.block_L)[blocks.block_L[noisy_L]]
        asked.update(stream_L[noisy_L].tolist())
        rows.update([*stream_L[clean_L].tolist(), *stream_L[noisy_L].tolist()])
        pairs += int(np.searchsorted(clean, clean, side="right").sum())
        asked_pairs += int((history + own).sum())
    return PassWork(rows=rows, asked=asked, pairs=pairs + asked_pairs, asked_pairs=asked_pairs)


def generation_flops(
    config: PriorConfig,
    channels: Mapping[str, int],
    target: str,
    *,
    batch: int,
    given: Sequence[int],
    blocks: Sequence[int],
    evaluations: int,
    guided: bool,
    window: int,
) -> int:
    """Of the prior's passes for `batch` items that are continued.

    given        lengths of the blocks of each item's own beginning that are whole
    blocks       lengths of the blocks that are generated
    evaluations  velocities that the solver asks for in a block, each at a time of its own
    guided       whether a second branch sees each block alone, where the first has a history
    window       latents of history that a block sees at most
    """
    total, history = modulation_flops(config, len(channels), times=evaluations + 1), 0
    lengths = [*given, *blocks]
    for number, length in enumerate(lengths):
        seen = min(window, history)
        branches = [seen + length, length] if guided and history else [seen + length]
        if number >= len(given):
            work = _block_work(target, batch * length, branches, asked=True)
            total += evaluations * pass_flops(config, channels, work)
        if number + 1 < len(lengths):  # nothing looks back at the last
            total += pass_flops(config, channels, _block_work(target, batch * length, branches[:1], asked=False))
        history += length
    return total


def _block_work(target: str, rows: int, branches: Sequence[int], *, asked: bool) -> PassWork:
    """Of one block; `branches`: how many keys its rows see in each of them. Where nothing is asked for, only keys and
    values are kept (a prefix, a commit)."""
    found, pairs = {target: rows * len(branches)}, rows * sum(branches)
    return PassWork(rows=found, asked=found if asked else {}, pairs=pairs, asked_pairs=pairs if asked else 0)


def count_flops(work: Callable[[], Any]) -> int:
    """Of the matrix products that happen in `work()`."""
    # torch does not count its fused attention on a CPU, so attention is done as the products that it is.
    with (
        FlopCounterMode(display=False, custom_mapping=counted_too()) as counter,
        sdpa_kernel(SDPBackend.MATH),
        counted(),
    ):
        work()
    return int(counter.get_total_flops())
