"""What the audio plugin calls an item, and how it lies in frames and latents.

An item is a mono array of samples, and it ends. Frame f is centred on samples f * hop to (f + 1) * hop, so that n
samples have ceil(n / hop) frames and no more. One frame follows that says "here it has ended", the only thing that
tells an end from silence; padding then fills the latent and the block.

Axes: L latents of an item, P frames per latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colatent.errors import UserError
from colatent_audio.config import AudioConfig

Sound = np.ndarray
"""float32, (samples,)"""
LOUDEST = 16.0
"""Largest value of a sample. Recordings may pass full scale, 1, but not like whole numbers that were never divided."""


def checked(item: Any) -> Sound:
    """The item as float32 samples, if it is a sound."""
    samples = np.asarray(item)
    if samples.ndim != 1 or samples.dtype.kind not in "fiu":
        what = f"a sound is an array of samples, this is of shape {samples.shape} and type {samples.dtype}"
        raise UserError(what, do="give one channel of float32 samples between -1 and 1")
    if samples.dtype.kind != "f":
        what = f"a sound has samples between -1 and 1, these are whole numbers ({samples.dtype})"
        raise UserError(what, do="divide by the largest value of their type")
    if not len(samples):
        raise UserError("a sound of no samples cannot be encoded", do="leave it out")
    if not np.isfinite(samples).all():
        raise UserError("a sound holds NaN or infinity", do="repair or leave out the recording")
    if (peak := np.abs(samples).max()) > LOUDEST:
        raise UserError(f"a sound has samples between -1 and 1, this one's go up to {peak:g}", do="scale it down")
    return samples.astype(np.float32, copy=False)


@dataclass(frozen=True, kw_only=True)
class Span:
    """How many samples of an item there are, and the frames, latents and units that they come to."""

    samples: int
    config: AudioConfig

    @property
    def frames(self) -> int:
        """Frames that hold sound; the next one is the end."""
        return -(-self.samples // self.config.hop)

    @property
    def latents(self) -> int:
        """Latents in whole blocks, so that the end is within."""
        block = self.config.frames_per_latent * self.config.block
        return -(-(self.frames + 1) // block) * self.config.block

    def present_LP(self) -> Tensor:
        """Which frames hold sound."""
        frames = torch.arange(self.latents * self.config.frames_per_latent)
        return (frames < self.frames).view(-1, self.config.frames_per_latent)

    def units_LP(self) -> Tensor:
        """Samples in each frame, and 1 for the end; 0 marks padding."""
        frames = torch.arange(self.latents * self.config.frames_per_latent)
        units = (self.samples - frames * self.config.hop).clamp(0, self.config.hop)
        units[self.frames] = 1
        return units.view(-1, self.config.frames_per_latent)
