"""Classifier-free guidance, and what tames it."""

from __future__ import annotations

import torch
from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: Tensor | float) -> Tensor:
    """u + s (c - u); s = 1 is no guidance. `scale` broadcasts."""
    return unconditional + scale * (conditional - unconditional)


def rescale(guided: Tensor, conditional: Tensor, z: Tensor, *, t: float, share: float, free_BK: Tensor) -> Tensor:
    """The guided velocity (B, K, C) with the spread of its estimate z0 = z_t - t v taken back to that of the
    conditional one, all the way at share = 1. Spread is the standard deviation over a sample's latents that are `free`.

    After Lin et al. 2023 (arXiv 2305.08891), who rescale what their network predicts. Here it is the data that shall
    keep their spread, so it is their estimate that is rescaled and not the velocity. At t = 0 every estimate is z.
    """
    if t == 0.0:
        return guided
    clean = z - t * guided
    ratio_B = spread(z - t * conditional, free_BK) / spread(clean, free_BK)
    return guided - clean * (share * (ratio_B - 1.0) / t)[:, None, None]


def spread(z_BKC: Tensor, free_BK: Tensor) -> Tensor:
    """Standard deviation of each sample over its free latents and all channels, (B,); more than 0."""
    count_B = free_BK.sum(1).clamp(min=1) * z_BKC.shape[-1]
    kept_BKC = z_BKC * free_BK[..., None]
    mean_B = kept_BKC.sum((1, 2)) / count_B
    square_B = ((z_BKC - mean_B[:, None, None]) * free_BK[..., None]).square().sum((1, 2)) / count_B
    return (square_B + torch.finfo(z_BKC.dtype).eps).sqrt()
