"""Settings of the wrapped PCA and of its dataset. Torch-free."""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from colatent.config.schema import Settings
from colatent.plugins import LatentSpec


class PCAConfig(Settings):
    """Principal components as latents."""

    features: PositiveInt = 64
    """Numbers in a vector."""
    channels: PositiveInt = 16
    """Components that are kept: the width of a latent."""

    @model_validator(mode="after")
    def _fits(self) -> PCAConfig:
        if self.channels > self.features:
            raise ValueError(f"channels {self.channels} must be at most features ({self.features})")
        return self

    def latent_spec(self) -> LatentSpec:
        """A vector is one latent, and that is one block."""
        return LatentSpec(channels=self.channels, block=1, units_per_latent=float(self.features))


class DigitVectorsConfig(Settings):
    """Scanned digits as vectors."""

    heldout: int = Field(default=5, ge=2)
    """One of so many is held out."""
