"""Settings of generation: those of a run, and those in which a single stream differs.

A stream's settings are all optional: what it leaves out is as the run says.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from colatent.config.settings import Fraction, Interval, Settings

SolverName = Literal["euler", "midpoint", "heun", "ab2"]


class StreamSampleConfig(Settings):
    """How items of one stream are generated, where that differs."""

    steps: PositiveInt | None = None
    solver: SolverName | None = None
    shift: PositiveFloat | None = None
    guidance: NonNegativeFloat | None = None
    guidance_interval: Interval | None = None
    guidance_rescale: Fraction | None = None
    unconditional: Literal["auto", "alone", "condition"] | None = None
    max_units: PositiveInt | None = None


class SampleConfig(Settings):
    """How a trained model generates, unless the call says otherwise."""

    steps: PositiveInt = 16
    solver: SolverName = "ab2"
    shift: PositiveFloat = 1.0
    """How the steps are spread over t (1 noise, 0 clean): 1 equally, as published; above 1 they are short near the
    noise, below 1 near the data. logit(t) grows by ln(shift)."""
    guidance: NonNegativeFloat = 1.0
    """Scale s of classifier-free guidance u + s (c - u); 1 is off."""
    guidance_interval: Interval = (0.0, 1.0)
    """The least and the largest t at which there is guidance. Elsewhere its second branch is not computed."""
    guidance_rescale: Fraction = 0.0
    """How far the spread of the guided estimate is taken back to that of the conditional one: 0 not, 1 all the way."""
    unconditional: Literal["auto", "alone", "condition"] = "auto"
    """What u sees. alone: the block by itself; condition: the item's own earlier blocks, and nothing that is given.
    auto: condition where items are given, else alone."""
    max_units: PositiveInt = 128
    """Data units (tokens, ...) to generate where an item does not end before."""
    options: dict[str, dict[str, Any]] = Field(default={})
    """Options of the codecs' generation by stream (text: temperature, top_k, ...)."""
    streams: dict[str, StreamSampleConfig] = Field(default={})
    """The settings above for items of single streams."""

    def of(self, stream: str | None) -> SampleConfig:
        """The settings for items of one stream."""
        own = None if stream is None else self.streams.get(stream)
        return self if own is None else self.model_copy(update=own.model_dump(exclude_none=True))
