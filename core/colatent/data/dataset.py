"""The dataset contract: numbered samples, each a mapping from field names to items.

A dataset is map-style and pure: a sample is a function of its index and of the generator handed in, so the order of
training, resume and world size never depend on state that a dataset keeps. Built as `Class(config, split=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Sample = Mapping[str, Any]
Split = Literal["train", "heldout"]


@runtime_checkable
class Dataset(Protocol):
    """A finite collection of samples."""

    def __len__(self) -> int:
        """Number of samples in one epoch, at least 1."""
        ...

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Sample `index` (0 <= index < len). `rng` is the only source of randomness (where to cut a window, ...)."""
        ...


@runtime_checkable
class FieldedDataset(Protocol):
    """A dataset whose settings decide which fields its samples have; what it says stands in place of the declared
    fields."""

    def fields(self) -> Sequence[str]:
        """The fields of every sample."""
        ...


@runtime_checkable
class FactualDataset(Protocol):
    """A dataset that says of its items what they do not show: the rate of a sound that is an array of samples."""

    def facts(self) -> Mapping[str, Mapping[str, Any]]:
        """Facts by field and name, `{"audio": {"sample_rate": 8000}}`: numbers, strings, or tuples of them. A run is
        refused where a codec expects another value (`colatent.plugins.contract.ExpectingCodec`)."""
        ...
