"""Settings of the drawing codec and of its dataset. Torch-free."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from colatent.config.schema import Settings
from colatent.plugins import LatentSpec


class StrokesConfig(Settings):
    """A small VAE over groups of pen points."""

    points: PositiveInt = 32
    """Points in one latent."""
    block: PositiveInt = 1
    """Latents in one block: what is drawn at once."""
    channels: PositiveInt = 16
    """Width of a latent."""
    width: PositiveInt = 256
    """Width of the hidden layers of encoder and decoder."""
    precision: PositiveFloat = 0.03
    """Distance by which a decoded point may miss: scales its loss, and a miss of more is one in the score."""

    def latent_spec(self) -> LatentSpec:
        """Blocks are of fixed length, and a drawing has as many as it needs."""
        return LatentSpec(channels=self.channels, block=self.block, units_per_latent=float(self.points))


class DrawnShapesConfig(Settings):
    """Drawings of shapes with captions."""

    size: PositiveInt = 4000
    """Samples of an epoch. Each is drawn anew every time."""
    spacing: PositiveFloat = 0.2
    """Distance between points; a drawing spans 1 to 2."""
    tilt: float = Field(default=15.0, ge=0.0, le=45.0)
    """Largest rotation in degrees."""
    tremor: float = Field(default=0.01, ge=0.0, le=0.1)
    """Standard deviation of each point's noise."""
