"""Rotary positions on three axes.

Rotary pairs are dealt to the axes in a fixed pattern (pair j to axis j mod 3) and a latent with one axis repeats its
position, so text alone has exactly the published one-dimensional rotary embedding.

Axes: N rows, P rotary pairs, H heads, D head channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frequencies(pairs: int, *, theta: float, device: torch.device | None = None) -> Tensor:
    """Angular frequencies theta^(-j / pairs) of the rotary pairs, float32 (P,)."""
    return theta ** (-torch.arange(pairs, dtype=torch.float32, device=device) / pairs)


def angles(positions_N3: Tensor, *, rope_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine (N, P) of the rotation of each pair; float32, or float64 for float64 positions."""
    pairs = rope_dim // 2
    axis_P = torch.arange(pairs, device=positions_N3.device) % 3
    frequency_P = frequencies(pairs, theta=theta, device=positions_N3.device).to(positions_N3.dtype)
    angle_NP = positions_N3[:, axis_P] * frequency_P
    return angle_NP.cos(), angle_NP.sin()


def interleave(cos_NP: Tensor, sin_NP: Tensor, *, head_dim: int) -> tuple[Tensor, Tensor]:
    """The factors of `rotate_interleaved` for whole heads, (N, 1, D) each: every pair's cosine twice, its sine with
    either sign, and one and zero for the channels past the last pair."""
    rest = (cos_NP.shape[0], head_dim - 2 * cos_NP.shape[1])
    cos_ND = torch.cat([cos_NP.repeat_interleave(2, dim=1), cos_NP.new_ones(rest)], dim=1)
    signed_ND = torch.stack([-sin_NP, sin_NP], dim=-1).flatten(1)
    return cos_ND[:, None], torch.cat([signed_ND, sin_NP.new_zeros(rest)], dim=1)[:, None]


def rotate_interleaved(x_NHD: Tensor, cos_N1D: Tensor, sin_N1D: Tensor) -> Tensor:
    """Rotate channels (0, 1), (2, 3), ... of each head by the factors of `interleave`."""
    swapped = x_NHD.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x_NHD * cos_N1D, swapped, sin_N1D)


def rotate_halves(x_NHD: Tensor, cos_NP: Tensor, sin_NP: Tensor) -> Tensor:
    """Rotate channel j with channel j + D / 2 of each head."""
    cos, sin = cos_NP[:, None].to(x_NHD.dtype), sin_NP[:, None].to(x_NHD.dtype)
    first, second = x_NHD.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
