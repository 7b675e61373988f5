"""What a model costs: parameters, and the FLOPs of a training step as this code does it.

FLOPs are counted by running the real forward and backward pass, on the meta device where nothing is computed, and
adding up its matrix products (2 per multiplication and addition, as everywhere). So the doubled sequence, the codec and
what a mask throws away are in the figure; rules of thumb such as 6 x parameters x tokens leave them out.

Axes: L latents, C channels, K blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from colatent.evaluate.flops import count_flops
from colatent.flow.objective import flow_losses
from colatent.latents.packing import pack
from colatent.latents.sequence import Segment
from colatent.plugins.contract import TrainableCodec
from colatent.plugins.latents import Item, Latents
from colatent.prior.dit import Prior


def parameters(module: nn.Module) -> int:
    """Parameters of a network; buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def prior_flops(prior: Prior, stream: str, *, block_lengths: Sequence[int]) -> int:
    """FLOPs of one training step of the prior on one sequence with these blocks, each with a time of its own."""
    length, channels = sum(block_lengths), prior.channels[stream]
    segment = Segment(
        stream=stream,
        z_LC=torch.zeros(length, channels),
        block_lengths=tuple(block_lengths),
        positions_LA=torch.arange(length, dtype=torch.float32)[:, None],
        noise_LC=torch.zeros(length, channels),
        t_K=tuple((number + 1) / (len(block_lengths) + 1) for number in range(len(block_lengths))),
        weight_L=torch.ones(length),
    )
    batch = pack([(segment,)]).to(next(prior.parameters()).device)
    return count_flops(lambda: flow_losses(prior, batch)[stream].backward())


def codec_flops(codec: TrainableCodec, items: Sequence[Item]) -> int:
    """FLOPs of one training step of a codec on these items, with all its losses."""

    def step() -> None:
        records = codec.encode(items)  # type: ignore[attr-defined]
        latents: list[Latents] = [record.sample(torch.zeros_like(record.mean_LC)) for record in records]
        losses = codec.losses(items, latents, generator=torch.Generator())
        torch.stack(list(losses.values())).sum().backward()

    return count_flops(step)
