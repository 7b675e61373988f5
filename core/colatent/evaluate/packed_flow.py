"""The velocity of all noisy rows of a packed batch as one flat field, for whoever solves an ODE over it.

Clean rows stay at t = 0 and are never moved: history is given. Modulation is computed once for all times of the solve.

Axes: E entries (all channels of all noisy rows, stream after stream), N rows of the flat batch, S rows of one stream, C
channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from colatent.flow.path import interpolate
from colatent.latents.packing import PackedBatch


class PackedFlow:
    """dz/dt of the noisy rows, given the clean ones.

    streams  those with noisy rows, in the order of their entries
    """

    def __init__(self, prior: Any, batch: PackedBatch, *, times: Sequence[float]) -> None:
        """`times`: those at which a velocity will be asked for."""
        self.prior, self.batch = prior, batch
        self.noisy = {name: rows.wanted_S for name, rows in batch.streams.items() if len(rows.wanted_S)}
        self.streams = tuple(self.noisy)
        shapes = {name: (len(index_S), batch.streams[name].z0_SC.shape[1]) for name, index_S in self.noisy.items()}
        self.shapes, self.sizes = shapes, [rows * channels for rows, channels in shapes.values()]
        self.index = {t: number for number, t in enumerate(times, start=1)}
        with torch.no_grad():
            self.modulation = prior.modulate(torch.tensor([0.0, *times], device=batch.t_T.device))
        self.noisy_N = torch.zeros_like(batch.t_index_N)
        for rows in batch.streams.values():
            rows_S = slice(None) if rows.rows_S is None else rows.rows_S
            self.noisy_N[rows_S] = rows.noisy_S.to(self.noisy_N)

    def start(self, t: float) -> Tensor:
        """z_t of every noisy row, from the batch's own latents and noise. (E,)"""
        parts = {name: self.batch.streams[name] for name in self.streams}
        z = {name: interpolate(rows.z0_SC, rows.noise_SC, torch.as_tensor(t)) for name, rows in parts.items()}
        return torch.cat([z_SC[self.noisy[name]].flatten() for name, z_SC in z.items()])

    def split(self, z_E: Tensor) -> dict[str, Tensor]:
        """The state by stream, (S, C) each."""
        parts = zip(self.streams, z_E.split(self.sizes), strict=True)
        return {name: part_E.view(self.shapes[name]) for name, part_E in parts}

    def velocity(self, z_E: Tensor, t: float) -> Tensor:
        """(E,) -> (E,), at one of the times given."""
        x = {name: rows.z0_SC for name, rows in self.batch.streams.items()}
        for name, z_SC in self.split(z_E).items():
            x[name] = x[name].index_copy(0, self.noisy[name], z_SC)
        found = self.prior(
            x,
            layout=self.batch.layout,
            rows={name: rows.rows_S for name, rows in self.batch.streams.items()},
            positions_N3=self.batch.positions_N3,
            t_index_N=self.noisy_N * self.index[t],
            modulation=self.modulation,
            wanted=self.noisy,
        )
        return torch.cat([found[name].to(z_E.dtype).flatten() for name in self.streams])
