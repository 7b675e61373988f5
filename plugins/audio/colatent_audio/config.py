"""Settings of the audio codec, with what each means and its default.

Torch-free: `latent_spec()` tells the engine the shape of the latents before anything heavy is imported.
"""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from colatent.config.schema import Settings
from colatent.plugins.records import LatentSpec


class AudioConfig(Settings):
    """The audio VAE."""

    sample_rate: PositiveInt = 8000
    """Samples a second of the codec's items. Files of another rate are resampled."""
    n_fft: PositiveInt = 256
    """Samples of a frame's window; sample_rate / n_fft is the distance of two frequencies that it tells apart."""
    hop: PositiveInt = 128
    """Samples from one frame to the next. At most half of n_fft, or frames would not tell each other's phases."""
    mels: PositiveInt | None = None
    """Mel bands of a frame, for speech; None keeps every frequency, which pure tones need."""
    floor_db: float = Field(default=-100.0, le=-20.0)
    """Level below which all is silence, in decibels of a full-scale sine."""
    frames_per_latent: PositiveInt = 2
    """Frames folded into one latent."""
    channels: PositiveInt = 16
    """Width of a latent."""
    block: PositiveInt = 8
    """Latents per block; see `block_seconds`."""
    width: PositiveInt = 128
    """Width of encoder and decoder."""
    depth: PositiveInt = 2
    """Layers of the encoder and of the decoder. Each sees one latent further: the encoder before and after, the decoder
    before only."""
    log_snr: float | None = 4.5
    """Log signal-to-noise ratio of a fixed posterior, ln(1 / sigma^2); None learns sigma under the weight of the KL."""
    mean_norm: bool = True
    """Whether the posterior's mean is normalised over its channels, without gain."""
    loud_weight: NonNegativeFloat = 4.0
    """How much more a frame's loudest band counts in the loss of the spectrum than its faint ones; e times less with
    every 20 dB below it."""
    end_weight: NonNegativeFloat = 0.5
    """Weight of the loss that teaches where a sound ends."""
    griffin_lim: NonNegativeInt = 32
    """Iterations that make the phases of a block agree with one another."""

    @model_validator(mode="after")
    def _frames_overlap(self) -> AudioConfig:
        if self.n_fft % (2 * self.hop) or self.hop % 2:
            raise ValueError(f"n_fft {self.n_fft} must be a multiple of 2 x hop ({self.hop}), and hop even")
        if self.mels is not None and self.mels > self.n_fft // 2:
            raise ValueError(f"mels {self.mels} must be at most half of n_fft {self.n_fft}")
        if self.block * self.samples_per_latent < self.n_fft:
            span = f"{self.block} x {self.frames_per_latent} x {self.hop} samples"
            raise ValueError(f"a block of {span} is shorter than the window, n_fft {self.n_fft}")
        return self

    @model_validator(mode="after")
    def _mean_is_free(self) -> AudioConfig:
        if self.mean_norm and self.channels < 3:
            raise ValueError(f"mean_norm leaves no freedom to {self.channels} channels: give 3 or more, or turn it off")
        return self

    @property
    def bands(self) -> int:
        """Numbers in a frame."""
        return self.mels or self.n_fft // 2 + 1

    @property
    def samples_per_latent(self) -> int:
        """Samples from one latent to the next."""
        return self.hop * self.frames_per_latent

    @property
    def block_seconds(self) -> float:
        """Span of a block."""
        return self.block * self.samples_per_latent / self.sample_rate

    def latent_spec(self) -> LatentSpec:
        """Shape of this configuration's latents."""
        return LatentSpec(channels=self.channels, block=self.block, units_per_latent=float(self.samples_per_latent))
