"""The network of the audio VAE: frames to a Gaussian posterior per latent, latents to frames and where the sound ends.

Both are stacks of small convolutions at the rate of latents over a flat batch. The encoder looks to both sides; the
decoder looks back only, so that a block can be decoded before the next one exists, and what is generated after an end
changes nothing before it.

Axes: N latents of the flat batch, P frames per latent, M bands, D width, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colatent_audio.config import AudioConfig

LOGVAR_RANGE = (-30.0, 20.0)


class Layer(nn.Module):
    """A residual convolution over a latent and its neighbours, as a feed-forward."""

    def __init__(self, width: int, *, looks: Sequence[int]) -> None:
        """`looks`: distances of the neighbours, negative ones before."""
        super().__init__()
        self.looks = tuple(looks)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear((1 + len(self.looks)) * width, 2 * width)
        self.reduce = nn.Linear(2 * width, width)

    def forward(self, x_ND: Tensor, *, item_N: Tensor) -> Tensor:
        """(N, D) -> (N, D); `item_N` says which item a latent is of, and no latent sees another item's."""
        normed_ND = self.norm(x_ND)
        seen = [normed_ND, *(neighbour(normed_ND, look, item_N=item_N) for look in self.looks)]
        return x_ND + self.reduce(F.silu(self.expand(torch.cat(seen, dim=-1))))


def neighbour(x_ND: Tensor, look: int, *, item_N: Tensor) -> Tensor:
    """Each row's neighbour at a distance, zeros where that is none of its own item."""
    same_N = item_N.roll(-look) == item_N
    if look > 0:
        same_N[-look:] = False
    else:
        same_N[:-look] = False
    return x_ND.roll(-look, 0) * same_N[:, None]


class Encoder(nn.Module):
    """Frames to the posterior's mean and log-variance."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.in_layer = nn.Linear(config.frames_per_latent * (config.bands + 1), config.width)
        self.layers = nn.ModuleList([Layer(config.width, looks=(-1, 1)) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.width)
        self.final_layer = nn.Linear(config.width, config.channels * (1 if config.log_snr is not None else 2))
        if config.log_snr is None:
            # A posterior as wide as the prior would drown the first steps.
            with torch.no_grad():
                self.final_layer.bias[config.channels :].fill_(-4.5)

    def forward(self, levels_NPM: Tensor, present_NP: Tensor, *, item_N: Tensor) -> tuple[Tensor, Tensor]:
        """Levels, and which frames hold sound -> mean and log-variance, (N, C) float32 each."""
        frames_NPM = torch.cat([levels_NPM, present_NP[..., None].to(levels_NPM)], dim=-1)
        x_ND = self.in_layer(frames_NPM.flatten(1))
        for layer in self.layers:
            x_ND = layer(x_ND, item_N=item_N)
        out_N = self.final_layer(self.norm(x_ND)).float()
        mean_NC = out_N[:, : self.config.channels]
        if self.config.mean_norm:
            mean_NC = F.layer_norm(mean_NC, mean_NC.shape[-1:])
        if self.config.log_snr is not None:
            return mean_NC, torch.full_like(mean_NC, -self.config.log_snr)
        return mean_NC, out_N[:, self.config.channels :].clamp(*LOGVAR_RANGE)


class Decoder(nn.Module):
    """Latents to levels and to the log-odds that a frame holds sound."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.in_layer = nn.Linear(config.channels, config.width)
        self.layers = nn.ModuleList([Layer(config.width, looks=(-1,)) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.width)
        self.final_layer = nn.Linear(config.width, config.frames_per_latent * (config.bands + 1))

    def forward(self, z_NC: Tensor, *, item_N: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> levels (N, P, M) and log-odds (N, P)."""
        x_ND = self.in_layer(z_NC)
        for layer in self.layers:
            x_ND = layer(x_ND, item_N=item_N)
        out_NPM = self.final_layer(self.norm(x_ND)).float().unflatten(-1, (self.config.frames_per_latent, -1))
        return out_NPM[..., :-1], out_NPM[..., -1]
