"""log p(z) of a trained prior, block by block, for all blocks of a batch in one solve.

The prior factorises over blocks, log p(z) = sum over b of log p(z_b | z_<b), and each factor has a flow of its own. The
two-copy pass of training solves all of them at once: the clean copy holds z, the noisy one the states of the ODE. A
noisy block sees earlier clean blocks and itself, so the Jacobian over noisy rows is block diagonal, and one
vector-Jacobian product gives the trace of every block.

The flow is the unguided one: guidance changes samples, and has no normalised density.

Axes: E entries (all channels of all noisy rows, stream after stream), N rows of the flat batch, S rows of one stream, C
channels, K generated blocks of one sequence, T distinct times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from colatent.errors import UserError
from colatent.evaluate.packed_flow import PackedFlow
from colatent.flow.likelihood import Probes, exact_probes, fixed_probe, likelihood_grid, log_density
from colatent.flow.solvers import SOLVERS, times_visited
from colatent.latents.draws import Name, generator, normal
from colatent.latents.packing import pack
from colatent.latents.sequence import LatentSequence, Segment

Probe = Literal["rademacher", "gaussian", "exact"]


@dataclass(frozen=True, kw_only=True)
class Solve:
    """How log p(z) is computed.

    steps   of the grid from t = 0 to t = 1
    solver  one of `colatent.flow.solvers.SOLVERS`; midpoint and heun evaluate the prior twice a step
    probe   rademacher or gaussian: Hutchinson's estimate with one probe for the whole solve; exact: as many products as
            the largest block has numbers
    """

    steps: int = 32
    solver: str = "midpoint"
    probe: Probe = "rademacher"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"is {self.steps}, it must be at least 1", where="steps")
        for where, value, known in (("solver", self.solver, SOLVERS), ("probe", self.probe, get_args(Probe))):
            if value not in known:
                raise UserError(f"unknown {where} {value!r}", do=f"use one of {', '.join(known)}")


def block_log_densities(
    prior: Any, sequences: Sequence[LatentSequence], names: Sequence[tuple[Name, ...]], *, solve: Solve
) -> list[Tensor]:
    """log p(z_b | z_<b) of the generated blocks of each sequence in order, (K,) each, in nats.

    `z_LC` of a segment is what is scored (or looked at, where it is given); its noise and times play no role, and
    `names[i]` is what the probe of sequence i is drawn from.
    """
    plain = [tuple(_still(segment) for segment in sequence) for sequence in sequences]
    device = next(prior.parameters()).device
    flow = PackedFlow(prior, pack(plain).to(device), times=times_visited(solve.solver, likelihood_grid(solve.steps)))
    probes = _probes(plain, names, solve.probe, flow, device)
    found_E = log_density(flow.velocity, flow.start(0.0), probes=probes, steps=solve.steps, solver=solve.solver)
    counts = [sum(len(s.block_lengths) for s in sequence if s.generated) for sequence in plain]
    total = torch.zeros(sum(counts), dtype=torch.float64)
    total.index_add_(0, _block_of_entries(plain, flow.streams), found_E.double().cpu())
    return list(total.split(counts))


def _still(segment: Segment) -> Segment:
    """The segment at t = 0: its noisy copy is where the ODE starts."""
    return Segment(
        stream=segment.stream,
        z_LC=segment.z_LC,
        block_lengths=segment.block_lengths,
        positions_LA=segment.positions_LA,
        generated=segment.generated,
        same_group=segment.same_group,
        noise_LC=torch.zeros_like(segment.z_LC),
        t_K=(0.0,) * len(segment.block_lengths),
    )


def _generated(sequences: Sequence[LatentSequence], stream: str) -> list[tuple[int, int, Segment]]:
    """(sequence, segment number, segment) of a stream's generated segments, in the order of its noisy rows."""
    return [
        (number, index, segment)
        for number, sequence in enumerate(sequences)
        for index, segment in enumerate(sequence)
        if segment.stream == stream and segment.generated
    ]


def _block_of_entries(sequences: Sequence[LatentSequence], streams: Sequence[str]) -> Tensor:
    """The number of each entry's block, counted through all sequences in their own order. (E,)"""
    first, total = {}, 0
    for number, sequence in enumerate(sequences):
        for index, segment in enumerate(sequence):
            first[number, index] = total
            total += len(segment.block_lengths) * segment.generated
    parts = []
    for stream in streams:
        for number, index, segment in _generated(sequences, stream):
            blocks = first[number, index] + torch.arange(len(segment.block_lengths))
            parts.append(blocks.repeat_interleave(torch.tensor(segment.block_lengths) * segment.z_LC.shape[1]))
    return torch.cat(parts)


def _probes(
    sequences: Sequence[LatentSequence],
    names: Sequence[tuple[Name, ...]],
    probe: Probe,
    flow: PackedFlow,
    device: torch.device,
) -> Probes:
    parts = []
    for stream in flow.streams:
        for number, index, segment in _generated(sequences, stream):
            if probe == "exact":
                sizes = [length * segment.z_LC.shape[1] for length in segment.block_lengths]
                parts += [torch.arange(size) for size in sizes]
            else:
                parts.append(_draw(probe, segment.z_LC.shape, *names[number], "probe", index).flatten())
    joined = torch.cat(parts).to(device)
    return exact_probes(joined) if probe == "exact" else fixed_probe(joined)


def _draw(probe: Probe, shape: Sequence[int], *names: Name) -> Tensor:
    if probe == "gaussian":
        return normal(shape, *names)
    return torch.from_numpy(2.0 * generator(*names).integers(0, 2, size=tuple(shape)) - 1.0).float()
