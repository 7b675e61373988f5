"""From a noise level to the shifts, scales and gates of every layer (adaptive layer norm).

A batch holds far fewer distinct times than rows, so modulation is computed once per time and looked up per row;
computing it per row would cost a third of the trunk's matrix work. In generation the table is that of the schedule.

Axes: T distinct times, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIME_SCALE = 1000.0
"""The network is given 1000 t, as published."""

FEATURES = 256


def time_features(t_T: Tensor) -> Tensor:
    """Sinusoids of 1000 t, [sin | cos], (T, 256), with frequencies 10000^(-k / 128)."""
    half = FEATURES // 2
    exponent = torch.arange(half, dtype=torch.float32, device=t_T.device) / half
    angle = (TIME_SCALE * t_T)[:, None] * torch.exp(-math.log(10_000.0) * exponent).to(t_T.dtype)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """Three linear layers over the sinusoids; returns SiLU of the last, which is all that modulations read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(FEATURES, width)
        self.proj_hid = nn.Linear(width, width)
        self.proj_out = nn.Linear(width, width)

    def forward(self, t_T: Tensor) -> Tensor:
        """(T,) in [0, 1] -> (T, D)."""
        features = time_features(t_T).to(self.proj_in.weight.dtype)
        return F.silu(self.proj_out(F.silu(self.proj_hid(F.silu(self.proj_in(features))))))


@dataclass(frozen=True, eq=False)
class Modulation:
    """Modulation tables of one set of times: per layer and stream (T, 6, D), at the exit per stream (T, 2, D).

    The six are attention shift, scale, gate and MLP shift, scale, gate; the two are shift and scale. Where `layers` is
    None each layer makes its own from `embedding_TD` when it is run.
    """

    layers: list[dict[str, Tensor]] | None
    exits: dict[str, Tensor]
    embedding_TD: Tensor
