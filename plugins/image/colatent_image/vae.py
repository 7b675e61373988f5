"""The network of the image VAE: residual convolutions down to the rate of latents, and the same back up to pixels.

Both kinds are one network. `conv` starts from pixels and halves the picture until a latent is left of each square;
`patch` folds each square into the channels at once. Norms see one place of one picture at a time: statistics over a
batch would make latents depend on other pictures, statistics over a picture would lose the colour of an even one.

Axes: B pictures of one size, P bands, H and W rows and columns (of pixels or of latents), C channels, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colatent_image.config import ImageConfig

LOGVAR_RANGE = (-30.0, 20.0)
NARROWEST = 16
"""Least width of the layers near the pixels, where the network is not narrower still."""


def widths(config: ImageConfig) -> list[int]:
    """Width of the network at each rate, from the first layer's to that of latents."""
    halvings = int(math.log2(config.downsample)) if config.kind == "conv" else 0
    return [max(config.features >> left, min(NARROWEST, config.features)) for left in range(halvings, -1, -1)]


def patch_of(config: ImageConfig) -> int:
    """Side of the square of pixels that the first layer folds into channels."""
    return config.downsample if config.kind == "patch" else 1


class Norm(nn.LayerNorm):
    """Over the channels of each place by itself: an even picture keeps its colour, and no place looks at another."""

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return super().forward(x_BDHW.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """Two normalised convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Norm(width), nn.SiLU(), conv(width), Norm(width), nn.SiLU(), conv(width))
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]  # a new block changes nothing

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return x_BDHW + self.layers(x_BDHW)


class Encoder(nn.Module):
    """Pixels to the posterior's mean and log-variance."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        rates, patch = widths(config), patch_of(config)
        self.config = config
        layers: list[nn.Module] = [nn.PixelUnshuffle(patch), edge(config.bands * patch**2, rates[0], patch)]
        for width, wider in zip(rates, [*rates[1:], None], strict=True):
            layers += [Block(width) for _ in range(config.depth)]
            if wider is not None:
                layers += [nn.Conv2d(width, wider, 2, stride=2)]
        self.trunk = nn.Sequential(*layers, Norm(rates[-1]), nn.SiLU())
        learned = config.log_snr is None
        self.final_layer = nn.Conv2d(rates[-1], config.channels * (2 if learned else 1), 1)
        if learned:
            # Start at the log SNR that training should end near: a posterior as wide as the prior drowns the first
            # steps.
            with torch.no_grad():
                self.final_layer.bias[config.channels :].fill_(-4.5)  # type: ignore[index]

    def forward(self, x_BPHW: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels from 0 to 1 -> mean and log-variance, (B, H, W, C) float32 each, at the rate of latents."""
        config = self.config
        out_BHWC = self.final_layer(self.trunk(2 * x_BPHW - 1)).float().movedim(1, -1)
        mean_BHWC = out_BHWC[..., : config.channels]
        if config.mean_norm:
            mean_BHWC = F.layer_norm(mean_BHWC, mean_BHWC.shape[-1:], eps=1e-6)
        if config.log_snr is not None:
            return mean_BHWC, torch.full_like(mean_BHWC, -config.log_snr).clamp(*LOGVAR_RANGE)
        return mean_BHWC, out_BHWC[..., config.channels :].clamp(*LOGVAR_RANGE)


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        rates, patch = widths(config)[::-1], patch_of(config)
        layers: list[nn.Module] = [nn.Conv2d(config.channels, rates[0], 1)]
        for width, narrower in zip(rates, [*rates[1:], None], strict=True):
            layers += [Block(width) for _ in range(config.depth)]
            if narrower is not None:
                layers += [nn.Conv2d(width, 4 * narrower, 1), nn.PixelShuffle(2)]
        last = edge(rates[-1], config.bands * patch**2, patch)
        self.trunk = nn.Sequential(*layers, Norm(rates[-1]), nn.SiLU(), last, nn.PixelShuffle(patch))

    def forward(self, z_BHWC: Tensor) -> Tensor:
        """Latents as the encoder gives them -> pixels (B, P, H, W) about 0 to 1, not clamped."""
        return 0.5 * self.trunk(z_BHWC.movedim(-1, 1)).float() + 0.5


def conv(width: int) -> nn.Conv2d:
    """A convolution that keeps size and width."""
    return nn.Conv2d(width, width, 3, padding=1)


def edge(inner: int, outer: int, patch: int) -> nn.Conv2d:
    """The layer at the pixels' end: it looks round a pixel, or at one folded square alone."""
    return nn.Conv2d(inner, outer, 3, padding=1) if patch == 1 else nn.Conv2d(inner, outer, 1)
