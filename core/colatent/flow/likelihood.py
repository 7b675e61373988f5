"""The log-density that a flow gives to its data, by the probability-flow ODE.

Along dz/dt = v(z, t) the density changes by d log p_t(z_t) / dt = -div v (the continuity equation), so that from data
at t = 0 to noise at t = 1

    log p(z0) = log N(z1; 0, I) + integral from 0 to 1 of div v(z_t, t) dt.

The divergence comes from vector-Jacobian products with probes e: the sum of e * (J^T e) is the trace where the probes
are all unit vectors, and has it as its mean where one probe is drawn with E[e e^T] = I (Hutchinson's estimate). One
probe is kept for the whole solve, so that the field that the solver sees is smooth in t.

All is returned entry by entry and not summed. Entries that do not influence one another (blocks of a sequence, samples
of a batch) then share one product, and the caller sums over each. What surprises: the grid is not the generator's. Data
with fine structure bend the flow near t = 0, where equal steps are ten times worse.

Axes: none; z has any shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from colatent.flow.solvers import Velocity, solve

Probes = Callable[[], Iterable[Tensor]]
"""Gives the probes of one evaluation, each shaped like z; called again at every time."""


def likelihood_grid(steps: int) -> tuple[float, ...]:
    """From t = 0 (clean) to t = 1 (noise), (k / steps)^2: dense where the data's fine structure is resolved."""
    return tuple((step / steps) ** 2 for step in range(steps + 1))


def fixed_probe(probe: Tensor) -> Probes:
    """Hutchinson's estimate: this one probe at every time."""
    return lambda: (probe,)


def exact_probes(place: Tensor) -> Probes:
    """The exact trace. `place` numbers the entries of each independent block from 0: entry i of every block shares a
    probe, because the Jacobian has nothing between blocks."""

    def probes() -> Iterator[Tensor]:
        for number in range(int(place.max()) + 1):
            yield place == number

    return probes


def velocity_and_divergence(velocity: Velocity, z: Tensor, t: float, probes: Probes) -> tuple[Tensor, Tensor]:
    """v(z, t), and the sum over probes of e * (J^T e), whose sum over a block's entries is the (estimated) trace."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        v = velocity(z, t)
        trace = torch.zeros_like(v.detach())
        for probe in (one.to(v) for one in probes()):
            (pulled,) = torch.autograd.grad(v, z, probe, retain_graph=True)
            trace += probe * pulled
    return v.detach(), trace


def log_density(velocity: Velocity, z0: Tensor, *, probes: Probes, steps: int, solver: str = "midpoint") -> Tensor:
    """log p(z0) in nats, shaped like `z0`: its sum over the entries of an independent block is the block's."""

    def both(state: Tensor, t: float) -> Tensor:
        return torch.stack(velocity_and_divergence(velocity, state[0], t, probes))

    start = torch.stack([z0, torch.zeros_like(z0)])
    z1, change = solve(solver, both, start, likelihood_grid(steps))
    return log_normal(z1) + change


def log_normal(noise: Tensor) -> Tensor:
    """log N(noise; 0, 1), entry by entry."""
    return -0.5 * (noise.square() + math.log(2 * math.pi))
