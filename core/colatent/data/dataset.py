"""The dataset contract: numbered samples, each a mapping from field names to items.

A dataset is map-style and pure: a sample is a function of its index and of the generator handed in, so the order of
training, resume and world size never depend on state that a dataset keeps. Built as `Class(config, split=...)`.

A dataset of files does not know what the files mean. Which of them holds a field, and how its bytes become an item, is
said by the codec that reads the field (`colatent.plugins.items.StoredCodec`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from colatent.plugins.items import StoredCodec

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


@dataclass(frozen=True, kw_only=True)
class Opener:
    """How the bytes of a file become an item: the class of the codec that reads it, and that codec's settings."""

    codec: StoredCodec
    config: Any

    def __call__(self, data: bytes, *, name: str) -> Any:
        """The item. Raises `UserError` where there is none in the bytes; `name` is how it calls them."""
        return self.codec.open_item(self.config, data, name=name)


@runtime_checkable
class StoredDataset(Protocol):
    """A dataset of files. Its fields are named once, before they are asked for; a sample has those that can be opened
    by then."""

    def name_fields(self, suffixes: Mapping[str, Sequence[str]]) -> None:
        """Find the files of these fields, each by how the names of its files may end."""
        ...

    def fields(self) -> Sequence[str]:
        """See `FieldedDataset.fields`."""
        ...

    def open_with(self, field: str, opener: Opener) -> None:
        """Open the files of a field in this way from now on. Raises `UserError` where another way was said before."""
        ...


@runtime_checkable
class ScoutedDataset(Protocol):
    """A dataset that passes over damaged samples and counts them. Where copies of it read ahead in other processes,
    they only note what they find, and the one that the run has counts it when the samples are used."""

    def scout(self) -> None:
        """Note what is damaged from now on, and neither tell nor stop."""
        ...

    def news(self) -> list[Any]:
        """What is known to be damaged."""
        ...

    def learn(self, news: Sequence[Any]) -> None:
        """Count what a copy noted and is not known yet, as if it had been found here."""
        ...
