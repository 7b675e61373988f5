"""Settings of codec, generation, data and task. Torch-free: shapes are asked for before torch is loaded."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from colatent.config.schema import Settings
from colatent.plugins import LatentSpec


class SignalConfig(Settings):
    """A small VAE over the vectors of an array."""

    features: PositiveInt = 2
    """Numbers in a vector."""
    channels: PositiveInt = 2
    """Width of a latent, one for each vector."""
    width: PositiveInt = 32
    """Width of the hidden layer of encoder and decoder."""
    tolerance: PositiveFloat = 0.1
    """How far off a number may be to count as reconstructed."""

    def latent_spec(self) -> LatentSpec:
        """A block is a whole item. Where items have no end of their own, say `block=N` and give N latents at a time."""
        return LatentSpec(channels=self.channels, block=None, units_per_latent=float(self.features))


class SignalOptions(Settings):
    """What a user may say when an item is generated."""

    shape: tuple[PositiveInt] = (24,)
    """Shape of the item: length."""


class WavesSettings(Settings):
    """Arrays of waves."""

    size: PositiveInt = 1000
    """Samples of an epoch."""
    longest: PositiveInt = 24
    """Longest side; the shortest is half of it."""
    noise: NonNegativeFloat = 0.02
    """Standard deviation of the noise on every number."""


class PaceSettings(Settings):
    """Whether waves and captions agree."""

    samples: PositiveInt = 20
    """Samples of each direction."""
    text: str = "text"
    """Name of the stream of captions."""
    waves: str = "signal"
    """Name of the stream of waves."""
