"""The codec contract: what a codec does, and what it can do beyond that.

A codec is an `nn.Module` that turns items into records of latents and back; it owns its scale and its device, the core
owns packing, masks, positions and randomness. What a codec can do beyond `Codec` is a protocol that the core asks for
with `isinstance`, so that a frozen encoder needs the seven of `Codec` and nothing else.

The records and the protocols of streaming have modules of their own; plugins import the whole contract from here.

Axes: L latents of one item, C channels, K blocks of one item, A position axes of the modality, B items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import BaseModel
from torch import Tensor

from colatent.plugins.latents import BlockPlan, Encoded, Item, Latents, PlanRequest
from colatent.plugins.records import LatentSpec
from colatent.plugins.streaming import DecodeStream, Part, StreamingCodec

__all__ = [
    "BlockPlan",
    "Codec",
    "DecodeStream",
    "Encoded",
    "ExpectingCodec",
    "Item",
    "Latents",
    "MeasuredCodec",
    "OptionedCodec",
    "Part",
    "PlanRequest",
    "PreparedCodec",
    "Promptable",
    "RaggedCodec",
    "Scorable",
    "Spelled",
    "StreamingCodec",
    "TrainableCodec",
]


@runtime_checkable
class Codec(Protocol):
    """The least that a codec does. Implementations are `nn.Module`s, built as `Class(config)`."""

    def latent_spec(self) -> LatentSpec:
        """The spec of this codec's config."""
        ...

    def encode(self, items: Sequence[Item], *, generator: torch.Generator | None = None) -> list[Encoded]:
        """One record per item, each independent of the other items in the batch."""
        ...

    def decode(self, latents: Sequence[Latents]) -> list[Item]:
        """One item per record. Accepts whole blocks only."""
        ...

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        """The blocks to generate, in order. Open-ended for text; ends by itself for an image. A partial given block
        comes first, whole."""
        ...

    def finished(self, latents: Latents) -> bool:
        """Whether the item's end lies within these latents."""
        ...

    def example_batch(self, n: int) -> list[Item]:
        """`n` tiny items: offline, deterministic."""
        ...

    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None:
        """Fold the latents' measured mean and std (of what `encode` gives now) into the codec, so that `encode` gives
        unit scale from now on and `decode` undoes it. The scale is part of the state dict."""
        ...


@runtime_checkable
class PreparedCodec(Protocol):
    """A codec that needs files made or read before it can be built (a tokenizer). Built as `Class(config, assets)`."""

    @classmethod
    def prepare(cls, config: Any, items: Iterable[Item]) -> dict[str, bytes]:
        """Make the assets, by file name, from training items. They are saved beside the weights."""
        ...

    def assets(self) -> dict[str, bytes]:
        """The assets that this codec was built with."""
        ...


@runtime_checkable
class TrainableCodec(Protocol):
    """A codec that stages `codec` and `joint` can train: what `encode` gives carries a gradient to its weights."""

    def losses(
        self, items: Sequence[Item], latents: Sequence[Latents], *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Scalar losses by name (mean per data unit) for the sample that the core drew; the core adds the KL.
        Randomness comes from `latents[i].seed`, where it is set, or from `generator`, which is of this call: with the
        former, an item's loss does not hang on how a step is divided into calls."""
        ...

    def reconstruction_score(self, items: Sequence[Item], latents: Sequence[Latents]) -> tuple[int, int]:
        """(units reconstructed right, units in all)."""
        ...


@runtime_checkable
class RaggedCodec(Protocol):
    """A codec whose items may end anywhere inside a block (text)."""

    def cut(self, items: Sequence[Item], lengths: Sequence[int]) -> list[Item]:
        """Each item's first `lengths[i]` latents, as an item that has not ended (a prompt)."""
        ...

    def encode_cut(self, items: Sequence[Item], cuts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Posterior means (L, C) in which block k holds what `encode` would give if the item were cut after
        `cuts[i][k]` latents of that block (later blocks are not affected; 0 or the block's length: not cut)."""
        ...


@runtime_checkable
class MeasuredCodec(Protocol):
    """A codec that knows how many latents an item becomes without encoding it: where steps have a budget of latents
    (`stages.prior.budget`), that is asked of each item before a step is put together."""

    def lengths(self, items: Sequence[Item]) -> list[int]:
        """Latents that `encode` would give each item, whole blocks with their padding."""
        ...


@runtime_checkable
class Promptable(Protocol):
    """A codec that a bare string or a list of token ids prompts."""

    def prompt(self, prompt: str | Sequence[int]) -> Item:
        """The item that `prompt` begins, not ended. Raises `UserError` where it is of another kind or cannot be
        encoded."""
        ...


@runtime_checkable
class OptionedCodec(Protocol):
    """A codec whose generation has options of its own: an image's size, how tokens are chosen.

    There is one mapping of options for a request. The core checks it against this model, fills in the defaults, and
    hands it to `plan` and to `open_stream`; each reads what concerns it. A codec without this method takes no options.
    """

    @classmethod
    def options_model(cls) -> type[BaseModel]:
        """The options: a frozen pydantic model that refuses unknown keys and has a default for each."""
        ...


@runtime_checkable
class ExpectingCodec(Protocol):
    """A codec that takes for granted what its items do not show: at which rate a sound was sampled."""

    def expects(self) -> Mapping[str, Any]:
        """Facts of every item by name, `{"sample_rate": 8000}`. A run is refused where a dataset says another value of
        the field that the codec reads (`colatent.data.dataset.FactualDataset`)."""
        ...


@runtime_checkable
class Scorable(Protocol):
    """A codec whose decoder gives probabilities, so that the likelihood of an item can be estimated."""

    def log_likelihood(self, items: Sequence[Item], latents: Sequence[Latents]) -> list[Tensor]:
        """For each item the (K,) log-probabilities, in nats, of what of it lies in each block, given the latents of
        that block and of those before; the end of an item counts, padding does not."""
        ...


@runtime_checkable
class Spelled(Protocol):
    """A codec whose items a string can spell out; what it generates prints as `str(item)`."""

    def spelled(self, text: str) -> Item:
        """The whole item that `text` spells, which ends there."""
        ...
