"""Solvers of dz/dt = v(z, t), as free functions named after their algorithm, and the grids of times that they walk.

Each takes a velocity, a start, and a decreasing grid of times, and yields its steps one by one, so that who wants to
look on between them sees the very solution. They know nothing of networks, guidance or pinned latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Move:
    """One step: where it begins (t and z), the velocity there, and z after it."""

    t: float
    z: Tensor
    velocity: Tensor
    after: Tensor


Moves = Iterator[Move]


def shifted_grid(steps: int, shift: float = 1.0, *, start: float = 1.0) -> tuple[float, ...]:
    """`steps` steps from t = 1 (noise) to t = 0 (clean). They are equal, as published, where the shift is 1; else each
    time is moved so that logit(t) grows by ln(shift): above 1 steps near the noise are short, below 1 those near the
    data. From another `start` there are as many as keep each, before the shift, no longer than those from 1."""
    first = start / (start + shift * (1.0 - start))
    count = max(1, math.ceil(first * steps - 1e-9))
    equal = torch.linspace(first, 0.0, count + 1, dtype=torch.float64).tolist()
    return tuple(shift * t / ((1.0 - t) + shift * t) for t in equal)


def euler(velocity: Velocity, z: Tensor, times: Sequence[float]) -> Moves:
    """First order, one evaluation a step."""
    for now, then in pairwise(times):
        slope = velocity(z, now)
        after = z + (then - now) * slope
        yield Move(t=now, z=z, velocity=slope, after=after)
        z = after


def midpoint(velocity: Velocity, z: Tensor, times: Sequence[float]) -> Moves:
    """Second order, two evaluations a step."""
    for now, then in pairwise(times):
        slope = velocity(z, now)
        half = z + 0.5 * (then - now) * slope
        after = z + (then - now) * velocity(half, 0.5 * (now + then))
        yield Move(t=now, z=z, velocity=slope, after=after)
        z = after


def heun(velocity: Velocity, z: Tensor, times: Sequence[float]) -> Moves:
    """Second order (explicit trapezoid), two evaluations a step."""
    for now, then in pairwise(times):
        slope = velocity(z, now)
        ahead = velocity(z + (then - now) * slope, then)
        after = z + 0.5 * (then - now) * (slope + ahead)
        yield Move(t=now, z=z, velocity=slope, after=after)
        z = after


def ab2(velocity: Velocity, z: Tensor, times: Sequence[float]) -> Moves:
    """Second order (Adams and Bashforth, for unequal steps), one evaluation a step: how the velocity changes is told by
    that of the step before. The first step is Euler's."""
    last: tuple[float, Tensor] | None = None
    for now, then in pairwise(times):
        slope = mean = velocity(z, now)
        if last is not None:
            mean = slope + 0.5 * (then - now) / (now - last[0]) * (slope - last[1])
        after = z + (then - now) * mean
        yield Move(t=now, z=z, velocity=slope, after=after)
        z, last = after, (now, slope)


SOLVERS: dict[str, Callable[[Velocity, Tensor, Sequence[float]], Moves]] = {
    "euler": euler,
    "midpoint": midpoint,
    "heun": heun,
    "ab2": ab2,
}


def solve(solver: str, velocity: Velocity, z: Tensor, times: Sequence[float]) -> Tensor:
    """Where all steps lead."""
    for move in SOLVERS[solver](velocity, z, times):
        z = move.after
    return z


def times_visited(solver: str, grid: Sequence[float]) -> tuple[float, ...]:
    """Every time at which `solver` asks for a velocity on this grid, so that a table can be made of them at once."""
    if solver == "midpoint":
        middles = (0.5 * (now + then) for now, then in pairwise(grid))
        return tuple(sorted({*grid[:-1], *middles}, reverse=True))
    return tuple(grid if solver == "heun" else grid[:-1])
