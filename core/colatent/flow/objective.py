"""The flow-matching objective on a packed batch.

Noise levels and noise are drawn per block from (seed, purpose, epoch, sample key), then one two-copy pass gives the
velocity of all noisy rows. The loss is the mean squared error of velocity, averaged over the rows that count.

Where latents carry a gradient, it comes back through z_t alone: history and target are stop-gradient, for the loss must
not be lowered by making the past or the answer easier (Cola DLM, stage 2).

Axes: N rows, S rows of one stream, T distinct times, C channels, K blocks of a segment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from colatent.config.prior import FlowConfig
from colatent.flow.path import interpolate, target_velocity
from colatent.flow.time_law import draw_times
from colatent.latents.draws import Name, generator, normal
from colatent.latents.packing import PackedBatch
from colatent.plugins.latents import Encoded


class VelocityNetwork(Protocol):
    """What the objective needs of the prior."""

    def modulate(self, t_T: Tensor) -> object: ...

    def __call__(self, x: Mapping[str, Tensor], **context: object) -> dict[str, Tensor]: ...


def draw_cuts(config: FlowConfig, block_lengths: tuple[int, ...], *names: Name) -> tuple[int, ...]:
    """How many leading latents of each block are pinned clean: 1 to length - 1 for a share `ragged`, 0 for the rest."""
    rng = generator(*names, "ragged")
    chosen, place = rng.uniform(size=len(block_lengths)), rng.uniform(size=len(block_lengths))
    return tuple(
        1 + int(u * (length - 1)) if c < config.ragged and length > 1 else 0
        for c, u, length in zip(chosen, place, block_lengths, strict=True)
    )


def draw_noise(config: FlowConfig, stream: str, encoded: Encoded, *names: Name) -> dict[str, object]:
    """Times, noise and dropped histories of a generated segment, as the fields of `Segment`."""
    channels, blocks = encoded.mean_LC.shape[1], len(encoded.block_lengths)
    law = config.times.get(stream, config.time)
    dropped = generator(*names, "history").uniform(size=blocks) < config.history_dropout
    return {
        "t_K": draw_times(law, channels, blocks, generator(*names, "time")),
        "noise_LC": normal(encoded.mean_LC.shape, *names, "noise"),
        "alone_K": tuple(bool(flag) for flag in dropped),
    }


def draw_lone(config: FlowConfig, generated: Sequence[bool], *names: Name) -> int | None:
    """Which segment of a sequence is kept without all the others, for a share `condition_dropout`: one of the
    `generated` that have something before them. None: the sequence stays whole."""
    rng, later = generator(*names, "condition"), [index for index, flag in enumerate(generated) if flag and index]
    if not later or rng.uniform() >= config.condition_dropout:
        return None
    return later[int(rng.integers(len(later)))]


def velocity_errors(
    prior: VelocityNetwork, batch: PackedBatch, *, asked: Collection[str] = ()
) -> dict[str, tuple[Tensor, Tensor]]:
    """Squared error of velocity, mean over channels, and weight of every noisy row by stream: (S,), (S,). Those that
    are `asked` for are given also where they have no noisy row."""
    x, wanted = {}, {}
    for name, rows in batch.streams.items():
        z0_SC = torch.where(rows.noisy_S[:, None], rows.z0_SC, rows.z0_SC.detach())
        x[name] = interpolate(z0_SC, rows.noise_SC, rows.t_S[:, None])
        wanted[name] = rows.wanted_S
    velocity = prior(
        x,
        layout=batch.layout,
        rows={name: rows.rows_S for name, rows in batch.streams.items()},
        positions_N3=batch.positions_N3,
        t_index_N=batch.t_index_N,
        modulation=prior.modulate(batch.t_T),
        wanted={name: index for name, index in wanted.items() if len(index) or name in asked},
    )
    errors = {}
    for name, v_SC in velocity.items():
        rows, index = batch.streams[name], wanted[name]
        target_SC = target_velocity(rows.z0_SC[index].detach(), rows.noise_SC[index])
        errors[name] = ((v_SC.to(target_SC.dtype) - target_SC).square().mean(-1), rows.weight_S[index])
    return errors


def flow_counts(batch: PackedBatch) -> dict[str, Tensor]:
    """Over how many rows the loss of each generated stream is a mean: the sum of their weights."""
    return {name: rows.weight_S.sum() for name, rows in batch.streams.items() if len(rows.wanted_S)}


def flow_losses(
    prior: VelocityNetwork, batch: PackedBatch, counts: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Mean squared error of velocity per stream, over the rows that count.

    counts  `flow_counts` of all the batches that make up a step, where this is one of them: its share is given
    """
    counts = flow_counts(batch) if counts is None else counts
    return {
        name: (error_S * weight_S).sum() / counts[name].clamp(min=1e-9)
        for name, (error_S, weight_S) in velocity_errors(prior, batch, asked=counts).items()
    }


def total_loss(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The streams' losses, weighted."""
    return torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
