"""The codec contract: what crosses the seam between the engine and a modality.

A codec is an `nn.Module` that turns items into records of latents and back; it owns its scale and its device, the core
owns packing, masks, positions and randomness. What a codec can do beyond `Codec` is a protocol that the core asks for
with `isinstance`, so that a frozen encoder needs the seven of `Codec` and nothing else.

Axes: L latents of one item, C channels, K blocks of one item, A position axes of the modality, B items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import BaseModel
from torch import Tensor

from colatent.plugins.records import LatentSpec

Item = Any
"""What a modality calls one thing: a string, a picture, a sound. The core never looks inside."""


@dataclass(frozen=True, kw_only=True)
class Latents:
    """The latents of one item at unit scale, with the layout that is needed to decode them.

    z_LC           float32, (L, C)
    block_lengths  latents per block, sums to L
    positions_LA   float32, (L, A), counted from the item's own start
    """

    z_LC: Tensor
    block_lengths: tuple[int, ...]
    positions_LA: Tensor

    def __post_init__(self) -> None:
        assert sum(self.block_lengths) == len(self.z_LC) == len(self.positions_LA)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What `encode` gives for one item: a diagonal Gaussian posterior over its latents, and their layout.

    mean_LC        posterior mean at unit scale, (L, C)
    logvar_LC      posterior log-variance in the same space, (L, C); None for a deterministic encoder
    block_lengths  latents per block (K,), sums to L
    positions_LA   float32, (L, A), counted from the item's own start
    units_L        int64, (L,): data units in each latent; 0 marks padding, which only `flow.padding` gives a weight
    """

    mean_LC: Tensor
    logvar_LC: Tensor | None
    block_lengths: tuple[int, ...]
    positions_LA: Tensor
    units_L: Tensor

    def __post_init__(self) -> None:
        length = len(self.mean_LC)
        assert sum(self.block_lengths) == length == len(self.positions_LA) == len(self.units_L)

    def on_cpu(self) -> Encoded:
        """The record without gradient, float32 on the CPU, where sequences are built."""
        return Encoded(
            mean_LC=self.mean_LC.detach().float().cpu(),
            logvar_LC=None if self.logvar_LC is None else self.logvar_LC.detach().float().cpu(),
            block_lengths=self.block_lengths,
            positions_LA=self.positions_LA.float().cpu(),
            units_L=self.units_L.cpu(),
        )

    def sample(self, noise_LC: Tensor | None) -> Latents:
        """The posterior's draw `mean + std * noise`; its mean where `noise_LC` is None."""
        z_LC = self.mean_LC
        if noise_LC is not None and self.logvar_LC is not None:
            z_LC = z_LC + torch.exp(0.5 * self.logvar_LC) * noise_LC
        return Latents(z_LC=z_LC, block_lengths=self.block_lengths, positions_LA=self.positions_LA)


@dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """One block that is to be generated: its length and the positions (length, A) of its latents in the item."""

    length: int
    positions_LA: Tensor


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What is known before an item is generated.

    given      the item's own first latents (a text prompt), None where it starts from nothing. Its last block may be
               partial: latents whose units are 0 are still to be generated
    max_units  budget in data units (tokens, ...), None for the codec's default
    options    what the user asked of this modality (an image's height and width, ...): every field of the codec's
               options with its value, empty for a codec that is no `OptionedCodec`
    """

    given: Encoded | None = None
    max_units: int | None = None
    options: Mapping[str, Any]


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
        `generator` is the only source of randomness."""
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


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is new of an item that is being decoded.

    item     to be appended to the parts before (text: a string, which may be empty); None where the item comes whole
             at its end and that is not reached yet
    details  the same facts as in `DecodeStream.details`, of this part
    """

    item: Item | None
    details: Mapping[str, Any]


@runtime_checkable
class DecodeStream(Protocol):
    """Conditional decoding of B items, block after block."""

    def push(self, blocks: Sequence[Latents]) -> None:
        """Decode the next block of each item."""
        ...

    def finished(self) -> list[bool]:
        """Which items have ended (end of item, or the unit budget)."""
        ...

    def items(self) -> list[Item]:
        """What was generated so far, without the given part and without what follows an end."""
        ...

    def details(self) -> list[dict[str, Any]]:
        """JSON-able facts per item for `--json` (token ids, ...)."""
        ...

    def news(self, *, final: bool = False) -> list[Part]:
        """What can be said of each item that was not said before. Parts joined are what `items` gives in the end, so
        what a later block may still change is held back, until the item has ended or with `final` (no block comes)."""
        ...

    def preview(self, blocks: Sequence[Latents]) -> list[Item]:
        """What `items` would give if these were the next blocks. Changes nothing."""
        ...


@runtime_checkable
class StreamingCodec(Protocol):
    """A codec that decodes block by block, each conditioned on what came before."""

    def open_stream(
        self,
        given: Sequence[Encoded | None],
        *,
        max_units: int | None,
        options: Mapping[str, Any],
        names: Sequence[tuple[int | str, ...]],
    ) -> DecodeStream:
        """Start decoding B items, each after its own given latents.

        max_units  budget in data units of each item, None for none
        options    see `OptionedCodec`
        names      of each item, by which all randomness of its decoding is drawn (`colatent.latents.draws`), so that an
                   item depends on them and never on its neighbours
        """
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
