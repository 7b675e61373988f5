"""A prior so slow and plain that it can be read against the published arithmetic, to hold the real one against.

One sequence at a time, one row at a time: no packing, no cache, no tables of modulation, no attention kernel, float64.
It shares no code with `colatent` and reads nothing of it but a state dict and the fields of a segment. Frequencies are
rounded to float32 before use, because the rounding that a checkpoint was trained with is part of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Sees = Callable[[int, int], bool]
"""Whether row i may look at row j."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One latent as the network gets it, at noise level t, and what the rules of visibility and loss need to know."""

    stream: str
    z: Tensor
    t: float
    position: Tensor
    block: int
    group: int = 0
    clean: bool = True
    alone: bool = False
    target: Tensor | None = None
    weight: float = 0.0


class ReferencePrior:
    """The DiT, row by row. `weights` is a prior's state dict, or leaves of the same names to differentiate."""

    def __init__(self, weights: Mapping[str, Tensor], config: Any, *, dtype: torch.dtype = torch.float64) -> None:
        self.w = {name: tensor.to(dtype) for name, tensor in weights.items()}
        self.config, self.dtype = config, dtype
        self.head_dim = config.width // config.heads

    def velocity(self, rows: Sequence[Row], sees: Sees) -> list[Tensor]:
        """Velocity of every row."""
        mask = torch.tensor([[sees(i, j) for j in range(len(rows))] for i in range(len(rows))])
        times = [self._time(row.t) for row in rows]
        x = [self._linear(row.z, f"enter.{row.stream}") for row in rows]
        for number in range(self.config.dual_layers + self.config.layers):
            dual = number < self.config.dual_layers
            names = [f"layers.{number}.branches.{row.stream if dual else 'shared'}" for row in rows]
            x = self._layer(x, rows, times, names, mask)
        return [self._leave(one, row, time) for one, row, time in zip(x, rows, times, strict=True)]

    def _layer(
        self, x: list[Tensor], rows: Sequence[Row], times: list[Tensor], names: list[str], mask: Tensor
    ) -> list[Tensor]:
        modulation = [self._linear(e, f"{name}.modulation").chunk(6) for e, name in zip(times, names, strict=True)]
        queries, keys, values = [], [], []
        for one, row, name, (shift, scale, *_) in zip(x, rows, names, modulation, strict=True):
            qkv = self._linear(self._norm(one) * (1 + scale) + shift, f"{name}.qkv")
            q, k, v = qkv.reshape(3, self.config.heads, self.head_dim)
            queries.append(self._rotate(self._norm(q, f"{name}.norm_q"), row.position))
            keys.append(self._rotate(self._norm(k, f"{name}.norm_k"), row.position))
            values.append(v)
        out = []
        for i, (one, name, (_, _, gate, shift, scale, gate_mlp)) in enumerate(zip(x, names, modulation, strict=True)):
            seen = self._attend(queries[i], torch.stack(keys), torch.stack(values), mask[i])
            one = one + gate * self._linear(seen, f"{name}.attention_out")
            h = self._linear(self._norm(one) * (1 + scale) + shift, f"{name}.mlp_in")
            out.append(one + gate_mlp * self._linear(gelu_tanh(h), f"{name}.mlp_out"))
        return out

    def _attend(self, q_HD: Tensor, k_LHD: Tensor, v_LHD: Tensor, seen_L: Tensor) -> Tensor:
        heads = []
        for head in range(self.config.heads):
            scores = k_LHD[seen_L, head] @ q_HD[head] / math.sqrt(self.head_dim)
            share = torch.exp(scores - scores.max())
            heads.append(share / share.sum() @ v_LHD[seen_L, head])
        return torch.cat(heads)

    def _rotate(self, x_HD: Tensor, position: Tensor) -> Tensor:
        pairs = self.config.rope_dim // 2
        frequency = self.config.rope_theta ** (-torch.arange(pairs, dtype=torch.float32) / pairs)
        channels = list(x_HD.unbind(-1))
        for pair in range(pairs):
            angle = position[pair % 3].to(self.dtype) * frequency[pair].to(self.dtype)
            even, odd = x_HD[:, 2 * pair], x_HD[:, 2 * pair + 1]
            channels[2 * pair] = even * angle.cos() - odd * angle.sin()
            channels[2 * pair + 1] = even * angle.sin() + odd * angle.cos()
        return torch.stack(channels, dim=-1)

    def _time(self, t: float) -> Tensor:
        frequency = torch.exp(-math.log(10_000.0) * (torch.arange(128, dtype=torch.float32) / 128)).to(self.dtype)
        angle = 1000.0 * torch.tensor(t, dtype=self.dtype) * frequency
        e = self._linear(torch.cat([angle.sin(), angle.cos()]), "time.proj_in")
        e = self._linear(silu(e), "time.proj_hid")
        return silu(self._linear(silu(e), "time.proj_out"))

    def _leave(self, x: Tensor, row: Row, time: Tensor) -> Tensor:
        shift, scale = self._linear(time, f"exit_modulation.{row.stream}").chunk(2)
        h = self._norm(x, f"exit_norm.{row.stream}") * (1 + scale) + shift
        return self._linear(h, f"exit.{row.stream}")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        y = self.w[f"{name}.weight"] @ x.to(self.dtype)
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def _norm(self, x: Tensor, name: str | None = None) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        y = centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + self.config.norm_eps)
        return y if name is None else y * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x)."""
    return x / (1 + torch.exp(-x))


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh form of GELU."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def placed(position: Tensor, offset: float) -> Tensor:
    """Three positions of a latent whose item begins at `offset`."""
    values = [float(p) for p in position]
    three = {1: values * 3, 2: [0.0, *values], 3: values}[len(values)]
    return torch.tensor([value + offset for value in three], dtype=torch.float64)


def two_copy_rows(sequence: Sequence[Any]) -> list[Row]:
    """Every latent of a sequence of segments twice, clean and (where generated) noisy; nothing is left out."""
    clean, noisy, block, group, offset = [], [], -1, -1, 0.0
    for index, segment in enumerate(sequence):
        one_group = segment.same_group or (index + 1 < len(sequence) and sequence[index + 1].same_group)
        latent = 0
        for number, length in enumerate(segment.block_lengths):
            block += 1
            group += not (segment.same_group or (one_group and number))
            for inside in range(length):
                place = placed(segment.positions_LA[latent], offset)
                row = Row(
                    stream=segment.stream, z=segment.z_LC[latent], t=0.0, position=place, block=block, group=group
                )
                clean.append(row)
                if segment.generated:
                    noisy.append(_noisy(row, segment, latent=latent, number=number, inside=inside))
                latent += 1
        offset = max(float(row.position.max()) for row in clean) + 1.0
    return [*clean, *noisy]


def _noisy(row: Row, segment: Any, *, latent: int, number: int, inside: int) -> Row:
    pinned = bool(segment.pinned_K) and inside < segment.pinned_K[number]
    z0 = segment.pinned_LC[latent] if pinned else segment.z_LC[latent]
    z1, t = segment.noise_LC[latent], 0.0 if pinned else segment.t_K[number]
    weight = 1.0 if segment.weight_L is None else float(segment.weight_L[latent])
    alone = bool(segment.alone_K) and segment.alone_K[number]
    return replace(
        row, z=(1 - t) * z0 + t * z1, t=t, clean=False, alone=alone, target=z1 - z0, weight=0.0 if pinned else weight
    )


def two_copy_sees(rows: Sequence[Row]) -> Sees:
    """Clean: own group and earlier ones. Noisy: earlier clean groups (unless alone) and its own noisy block."""

    def sees(i: int, j: int) -> bool:
        me, other = rows[i], rows[j]
        if me.clean:
            return other.clean and other.group <= me.group
        if other.clean:
            return other.group < me.group and not me.alone
        return other.block == me.block

    return sees


def history_sees(rows: Sequence[Row], *, window: int | None = None) -> Sees:
    """Causal from group to group, looking back at most `window` latents before the own group begins."""
    start = {row.group: index for index, row in reversed(list(enumerate(rows)))}

    def sees(i: int, j: int) -> bool:
        reach = 0 if window is None else start[rows[i].group] - window
        return rows[j].group <= rows[i].group and j >= reach

    return sees


def reference_loss(prior: ReferencePrior, sequences: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
    """Mean squared error of velocity per stream, mean over channels, over the rows that count."""
    errors: dict[str, list[Tensor]] = {}
    weights: dict[str, float] = {}
    for sequence in sequences:
        rows = two_copy_rows(sequence)
        for row, v in zip(rows, prior.velocity(rows, two_copy_sees(rows)), strict=True):
            if row.target is not None:
                errors.setdefault(row.stream, []).append(row.weight * ((v - row.target) ** 2).mean())
                weights[row.stream] = weights.get(row.stream, 0.0) + row.weight
    return {name: torch.stack(some).sum() / weights[name] for name, some in errors.items()}


def latent_gradients(
    prior: ReferencePrior, sequences: Sequence[Sequence[Any]], *, history: bool = False
) -> list[Tensor]:
    """Gradient of the summed losses of all streams to each segment's latents, through z_t alone: history and target
    come from latents that carry none. With `history`, through what is looked back at too, which the method forbids."""
    dead = [tuple(replace(one, z_LC=one.z_LC.detach()) for one in some) for some in sequences]
    live = [tuple(replace(one, z_LC=one.z_LC.detach().clone().requires_grad_()) for one in some) for some in sequences]
    errors: dict[str, list[Tensor]] = {}
    weights: dict[str, float] = {}
    for fixed, moving in zip(dead, live, strict=True):
        pairs = zip(two_copy_rows(fixed), two_copy_rows(moving), strict=True)
        rows = [(m if history else f) if f.clean else replace(m, target=f.target) for f, m in pairs]
        for row, v in zip(rows, prior.velocity(rows, two_copy_sees(rows)), strict=True):
            if row.target is not None:
                errors.setdefault(row.stream, []).append(row.weight * ((v - row.target) ** 2).mean())
                weights[row.stream] = weights.get(row.stream, 0.0) + row.weight
    total = torch.stack([torch.stack(some).sum() / weights[name] for name, some in errors.items()]).sum()
    latents = [segment.z_LC for some in live for segment in some]
    found = torch.autograd.grad(total, latents, allow_unused=True)
    return [torch.zeros_like(z) if g is None else g for z, g in zip(latents, found, strict=True)]


def solve(
    velocity: Callable[[Tensor, float], Tensor], z: Tensor, *, solver: str, steps: int, shift: float = 1.0
) -> Tensor:
    """From t = 1 to t = 0 in steps that are equal before the shift, each solver written out."""
    before: tuple[float, Tensor] | None = None
    for step in range(steps):
        now, then = (shift * t / (1 + (shift - 1) * t) for t in (1 - step / steps, 1 - (step + 1) / steps))
        size = now - then
        slope = first = velocity(z, now)
        if solver == "midpoint":
            slope = velocity(z - size / 2 * slope, (now + then) / 2)
        if solver == "heun":
            slope = (slope + velocity(z - size * slope, then)) / 2
        if solver == "ab2" and before is not None:
            slope = slope + size / 2 * (slope - before[1]) / (before[0] - now)
        z, before = z - size * slope, (now, first)
    return z


def next_block(
    prior: ReferencePrior,
    past: Sequence[Row],
    noise: Tensor,
    *,
    stream: str,
    positions: Sequence[Tensor],
    pinned: Sequence[Tensor] = (),
    solver: str,
    steps: int,
    guidance: float,
    window: int | None = None,
    free: tuple[int, float] | None = None,
    shift: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
) -> list[Row]:
    """Generate one block after `past`; every velocity is computed from scratch, branch by branch.

    free      None: guidance compares with the block alone. Else with the item alone: number of its first block, and
              where it begins
    interval  the least and the largest t with guidance
    rescale   how far the deviation of the guided estimate's free latents is brought to that of the conditional one
    """
    number = past[-1].block + 1 if past else 0
    group = past[-1].group + 1 if past else 0

    def rows_at(z: Tensor, t: float) -> list[Row]:
        times = [0.0] * len(pinned) + [t] * (len(z) - len(pinned))
        parts = zip(z, times, positions, strict=True)
        return [Row(stream=stream, z=one, t=time, position=p, block=number, group=group) for one, time, p in parts]

    def velocity(z: Tensor, t: float) -> Tensor:
        block = rows_at(z, t)
        rows = [*past, *block]
        v = torch.stack(prior.velocity(rows, history_sees(rows, window=window))[len(past) :])
        if past and guidance != 1.0 and interval[0] <= t <= interval[1]:
            kept, origin = [row for row in past if free and row.block >= free[0]], free[1] if free else positions[0]
            moved = [replace(row, position=row.position - origin) for row in (*kept, *block)]
            without = prior.velocity(moved, history_sees(moved, window=window) if free else lambda i, j: True)
            alone = torch.stack(without[len(kept) :])
            plain, v = v, alone + guidance * (v - alone)
            if rescale and t:
                estimates = [z - t * one for one in (plain, v)]
                true, wide = (one[len(pinned) :].std(correction=0) for one in estimates)
                v = (z - estimates[1] * ((1 - rescale) + rescale * true / wide)) / t
        return torch.cat([torch.zeros_like(v[: len(pinned)]), v[len(pinned) :]])

    start = torch.cat([*(one[None].to(prior.dtype) for one in pinned), noise[len(pinned) :].to(prior.dtype)])
    return rows_at(solve(velocity, start, solver=solver, steps=steps, shift=shift), 0.0)
