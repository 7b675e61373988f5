"""Settings of the dataset and of the task, with what each means and its default."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from colatent.config.schema import Settings
from colatent_gallery.digits.tones import Line

Seconds = Annotated[float, Field(ge=0.03, le=10.0)]
Loudness = Annotated[float, Field(ge=-60.0, le=0.0)]
Decibels = Annotated[float, Field(ge=-20.0, le=120.0)]


class Material(Settings):
    """Which digits there are: what a dataset and a judge of its models must agree on."""

    heldout: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the scans of each digit that is held out."""
    seed: NonNegativeInt = 0
    """Seed of the permutation that picks them."""
    sample_rate: int = Field(default=8000, ge=4000, le=192_000)
    """Samples a second of the tones; that of the audio codec."""
    seconds: tuple[Seconds, Seconds] = (0.12, 0.3)
    """Shortest and longest tone."""
    level: tuple[Loudness, Loudness] = (-20.0, 0.0)
    """Peak of the faintest and of the loudest tone, in dB of full scale."""
    twist: NonNegativeFloat = 4.0
    """Decibels by which one of a tone's two frequencies is louder than the other, at most."""
    snr: tuple[Decibels, Decibels] = (15.0, 40.0)
    """Least and most of a tone over its white noise, in dB."""

    @model_validator(mode="after")
    def _ranges(self) -> Material:
        for name in ("seconds", "level", "snr"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name} goes from {least} to {most}: the first must not be the larger one")
        return self

    def line(self) -> Line:
        """The telephone line of these settings."""
        return Line(rate=self.sample_rate, seconds=self.seconds, level=self.level, twist=self.twist, snr=self.snr)


class DigitsConfig(Material):
    """Digits as captions, scans and telephone tones."""

    shift: float = Field(default=0.5, ge=0.0, le=2.0)
    """Pixels by which a training scan is moved, each way, at most; moving between pixels blurs."""
    gain: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share by which a training scan's ink is made lighter or darker, at most."""
    varied: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of training scans that are moved and scaled; the others are as they were scanned."""


class DigitsTaskConfig(Material):
    """Judges of a model of digits. What it shares with the dataset must be as there."""

    samples: PositiveInt = 200
    """Samples of each direction; the first ones count."""
    text: str = "text"
    """Name of the stream of captions."""
    image: str = "image"
    """Name of the stream of scans."""
    audio: str = "audio"
    """Name of the stream of tones."""
    twin: str | None = None
    """A run on text alone: its held-out flow losses are set beside this run's, to show what mixing costs."""
