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


def rotate_interleaved(x_NHD: Tensor, cos_NP: Tensor, sin_NP: Tensor) -> Tensor:
    """Rotate channels (0, 1), (2, 3), ... of each head; channels past the last pair stay as they are."""
    pairs = cos_NP.shape[-1]
    cos, sin = cos_NP[:, None].to(x_NHD.dtype), sin_NP[:, None].to(x_NHD.dtype)
    even, odd = x_NHD[..., : 2 * pairs].unflatten(-1, (pairs, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
    return turned if 2 * pairs == x_NHD.shape[-1] else torch.cat([turned, x_NHD[..., 2 * pairs :]], dim=-1)


def rotate_halves(x_NHD: Tensor, cos_NP: Tensor, sin_NP: Tensor) -> Tensor:
    """Rotate channel j with channel j + D / 2 of each head."""
    cos, sin = cos_NP[:, None].to(x_NHD.dtype), sin_NP[:, None].to(x_NHD.dtype)
    first, second = x_NHD.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
