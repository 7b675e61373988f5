"""Settings of the dataset and of the task, with what each means and its default."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt

from colatent.config.schema import Settings


class Combinations(Settings):
    """Which combinations are held out: what a dataset and a judge of its models must agree on."""

    heldout: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the combinations of a letter and a mark that is kept out of training."""
    seed: NonNegativeInt = 0
    """Seed of the choice of those."""


class GlyphsConfig(Combinations):
    """Names and pictures of 32 x 32 pixels."""

    shift: NonNegativeInt = Field(default=0, le=4)
    """Pixels by which a training picture is moved at most, either way along both axes."""


class GlyphsTaskConfig(Combinations):
    """Judges of a model of glyphs. What it shares with the dataset must be as there."""

    seen: PositiveInt = 300
    """Names of the training set that are asked for, drawn at random; held-out ones are all asked for."""
    tries: int = Field(default=5, ge=1, le=5)
    """Names that are written for a picture: the first counts alone as top 1, all of them as top 5."""
    text: str = "text"
    """Name of the stream of names."""
    image: str = "image"
    """Name of the stream of pictures."""
