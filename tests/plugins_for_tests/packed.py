"""A prior over two streams with every weight at work, and a packed batch for it, without any codec."""

from __future__ import annotations

import torch
from torch import Tensor

from colatent.config.prior import PriorConfig
from colatent.latents.packing import PackedBatch, pack
from colatent.latents.sequence import Segment
from colatent.prior.dit import Prior

CHANNELS = {"text": 3, "image": 5}


def make_prior(layers: int, *, recompute: bool = False) -> Prior:
    """A layer per stream and shared ones, every weight at work: as they start, gates are shut."""
    prior = Prior(PriorConfig(width=32, heads=2, dual_layers=1, layers=layers), CHANNELS)
    generator = torch.Generator().manual_seed(0)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    prior.recompute = recompute
    return prior


def make_batch(*captions: tuple[int, ...]) -> tuple[PackedBatch, list[Tensor]]:
    """Samples of a caption, of blocks of these lengths, and a picture, and their latents, which ask for gradients
    too."""
    generator = torch.Generator().manual_seed(1)
    samples, latents = [], []
    for blocks in captions or ((4, 4), (4,)):
        segments = []
        for name, lengths in (("text", blocks), ("image", (6,))):
            noise_LC, z_LC = torch.randn(2, sum(lengths), CHANNELS[name], generator=generator)
            latents.append(z_LC.requires_grad_())
            segments.append(
                Segment(
                    stream=name,
                    z_LC=z_LC,
                    block_lengths=lengths,
                    positions_LA=torch.arange(len(z_LC), dtype=torch.float32)[:, None],
                    noise_LC=noise_LC,
                    t_K=tuple(torch.rand(len(lengths), generator=generator).tolist()),
                )
            )
        samples.append(tuple(segments))
    return pack(samples), latents
