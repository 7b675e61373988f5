"""Settings of the dataset and of the task, with what each means and its default."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator

from colatent.config.schema import Settings
from colatent_gallery.digits.settings import Decibels
from colatent_gallery.speech.varying import Variation


class Takes(Settings):
    """Which recordings there are: what a dataset and a judge of its models must agree on."""

    path: str = Field(min_length=1)
    """The archive of recordings, a tar file of `DIGIT_SPEAKER_NUMBER.wav`."""
    heldout: PositiveInt = 5
    """Takes of each digit by each speaker that are held out: those with a smaller number."""


class SpokenDigitsConfig(Takes):
    """Recordings of spoken digits with captions."""

    varied: float = Field(default=0.9, ge=0.0, le=1.0)
    """Share of training recordings that are varied as follows; the others are as they were recorded."""
    speed: float = Field(default=0.08, ge=0.0, le=0.5)
    """Share by which a recording is made faster or slower, its pitch with it, at most."""
    gain: NonNegativeFloat = 6.0
    """Decibels by which it is made louder or fainter, at most."""
    lead: float = Field(default=0.03, ge=0.0, le=1.0)
    """Seconds of silence before and after it, at most."""
    snr: tuple[Decibels, Decibels] = (30.0, 60.0)
    """Least and most of a recording over the white noise that is added, in dB."""

    @field_validator("snr")
    @classmethod
    def _range(cls, snr: tuple[float, float]) -> tuple[float, float]:
        if snr[0] > snr[1]:
            raise ValueError(f"snr goes from {snr[0]} to {snr[1]}: the first must not be the larger one")
        return snr

    def variation(self) -> Variation:
        """How training recordings are varied."""
        return Variation(share=self.varied, speed=self.speed, gain=self.gain, lead=self.lead, snr=self.snr)


class SpokenDigitsTaskConfig(Takes):
    """Judges of a model of spoken digits. What it shares with the dataset must be as there."""

    samples: PositiveInt = 200
    """Samples of each direction; the first ones count."""
    text: str = "text"
    """Name of the stream of captions."""
    audio: str = "audio"
    """Name of the stream of recordings. Its codec's sample rate must be 8000."""
