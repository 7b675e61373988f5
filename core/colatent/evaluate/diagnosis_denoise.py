"""Whose fault a wrong unit is: held-out blocks are noised to t, denoised by the prior, and decoded.

Every block starts from its own true z_t, sees the true latents of its history, and is integrated to t = 0 without
guidance; all blocks of a batch move at once, as the noisy rows of one two-copy pass, in steps no longer than those of
generation. What the decoder gets wrong from the true latents is its own share of the errors; the rest is the prior's.

Near t = 1 a perfect prior of open-ended data writes another continuation than the held-out one, which is no error. So
the split is stated where z_t still shows the content (`readable_t`), and the curve beside it.

Axes: S rows of one stream, L latents of an item, C channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from colatent.evaluate.diagnosis_decoder import Count, count_right
from colatent.evaluate.heldout import BATCH, Diagnosable, HeldItem, HeldOut, HeldSequence, noise_of
from colatent.evaluate.packed_flow import PackedFlow
from colatent.flow.objective import VelocityNetwork
from colatent.flow.path import interpolate
from colatent.flow.solvers import shifted_grid, solve, times_visited
from colatent.latents.packing import pack
from colatent.plugins.contract import TrainableCodec

START_TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
READABLE = 0.95
"""z_t shows its content where decoding it as it is gets this share of what decoding z_0 gets."""


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """Share of units right, by the t that the solve starts from.

    clean        from the true latents (posterior samples): 1 - clean is the decoder's share of the errors
    t            starts of the solve
    denoised     after the solve from z_t
    undenoised   z_t decoded as it is
    readable_t   largest t up to which z_t itself decodes at least READABLE of `clean`; the smallest t where none does
    prior_share  of the units that are wrong after the solve from `readable_t`, those that decode right from the true
                 latents: (clean - denoised) / (1 - denoised), at least 0; None where nothing is wrong
    decoder_share  the rest, 1 - prior_share
    """

    clean: float
    t: tuple[float, ...]
    denoised: tuple[float, ...]
    undenoised: tuple[float, ...]
    readable_t: float
    prior_share: float | None
    decoder_share: float | None


@torch.no_grad()
def denoise(
    prior: VelocityNetwork,
    sequences: Sequence[HeldSequence],
    *,
    seed: int,
    t: float,
    solver: str,
    steps: int,
    shift: float = 1.0,
    device: torch.device,
) -> list[dict[int, Tensor]]:
    """Latents (L, C) of every generated segment of each sequence, by number of the segment, solved from z_t to 0 on the
    grid of generation, begun at t."""
    times = shifted_grid(steps, shift, start=t)
    batch = pack([one.at(0.5, seed=seed) for one in sequences]).to(device)
    flow = PackedFlow(prior, batch, times=times_visited(solver, times))
    state = flow.split(solve(solver, flow.velocity, flow.start(t), times))
    return _by_segment(sequences, {name: z_SC.cpu() for name, z_SC in state.items()})


def _by_segment(sequences: Sequence[HeldSequence], state: Mapping[str, Tensor]) -> list[dict[int, Tensor]]:
    """Noisy rows back to their segments: a packed batch holds them sequence by sequence, segment by segment."""
    begun, found = dict.fromkeys(state, 0), []
    for sequence in sequences:
        latents = {}
        for number, stream, one in sequence.generated():
            start = begun[stream]
            stop = begun[stream] = start + len(one.z_LC)
            latents[number] = state[stream][start:stop]
        found.append(latents)
    return found


def denoising(
    model: Diagnosable, held: HeldOut, *, device: torch.device, times: Sequence[float] = START_TIMES
) -> dict[str, Denoising]:
    """Curves of every generated stream whose codec can tell how many units are right."""
    scored = {name: one for name in held.generated() if isinstance(one := model.codecs[name], TrainableCodec)}
    clean = _counts(scored, held.sequences, [_noised(sequence, 0.0, held.seed) for sequence in held.sequences])
    solved = {t: _solved(model, scored, held, t, device=device) for t in times if scored}
    as_it_is = {t: _counts(scored, held.sequences, [_noised(s, t, held.seed) for s in held.sequences]) for t in times}
    return {
        name: summary(
            clean=clean[name].share or 0.0,
            t=times,
            denoised=[solved[t][name].share or 0.0 for t in times],
            undenoised=[as_it_is[t][name].share or 0.0 for t in times],
        )
        for name in scored
        if clean[name].total
    }


def summary(*, clean: float, t: Sequence[float], denoised: Sequence[float], undenoised: Sequence[float]) -> Denoising:
    """The curves with the split at the largest readable t."""
    readable = 0
    while readable + 1 < len(t) and undenoised[readable + 1] >= READABLE * clean:
        readable += 1
    wrong = 1.0 - denoised[readable]
    share = min(1.0, max(0.0, clean - denoised[readable]) / wrong) if wrong > 0 else None
    return Denoising(
        clean=clean,
        t=tuple(t),
        denoised=tuple(denoised),
        undenoised=tuple(undenoised),
        readable_t=t[readable],
        prior_share=share,
        decoder_share=None if share is None else 1.0 - share,
    )


def _solved(
    model: Diagnosable, scored: Mapping[str, TrainableCodec], held: HeldOut, t: float, *, device: torch.device
) -> dict[str, Count]:
    """After a solve from t, each stream as it is generated: all together, unless some have settings of their own."""
    alike = defaultdict[tuple[str, int, float], dict[str, TrainableCodec]](dict)
    for name, codec in scored.items():
        own = model.sample.of(name)
        alike[own.solver, own.steps, own.shift][name] = codec
    found: dict[str, Count] = {}
    for (solver, steps, shift), some in alike.items():
        how = {"seed": held.seed, "t": t, "solver": solver, "steps": steps, "shift": shift, "device": device}
        latents: list[dict[int, Tensor]] = []
        for start in range(0, len(held.sequences), BATCH):
            latents += denoise(model.prior, held.sequences[start : start + BATCH], **how)  # type: ignore[arg-type]
        found |= _counts(some, held.sequences, latents)
    return found


def _noised(sequence: HeldSequence, t: float, seed: int) -> dict[int, Tensor]:
    path = torch.as_tensor(t)
    return {number: interpolate(one.z_LC, noise_of(one, seed), path) for number, _, one in sequence.generated()}


def _counts(
    scored: Mapping[str, TrainableCodec], sequences: Sequence[HeldSequence], latents: Sequence[Mapping[int, Tensor]]
) -> dict[str, Count]:
    """Units right by stream, where each sequence's generated segments have these latents."""
    decoded = defaultdict[str, list[tuple[HeldItem, Tensor]]](list)
    for sequence, some in zip(sequences, latents, strict=True):
        for number, stream, one in sequence.generated():
            decoded[stream].append((one, some[number]))
    return {
        name: count_right(codec, [one.item for one, _ in decoded[name]], [one.latents(z) for one, z in decoded[name]])
        for name, codec in scored.items()
    }
