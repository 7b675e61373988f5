"""Records of samples as one safetensors file, and back.

What belongs to one stream is laid end to end, item after item, with the lengths beside it: a file has a few tensors
however many items it holds, and a reader takes a record as a view of the mapped file.

Axes: N latents of all items of a stream, L of one item, C channels, A position axes, I items, M blocks of all items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from colatent.checkpoint.storage import atomic_write_chunks
from colatent.checkpoint.tensors import read_safetensors, safetensors_chunks
from colatent.data.cache import DAMAGED
from colatent.errors import UserError
from colatent.plugins.latents import Encoded


@dataclass(frozen=True, kw_only=True, eq=False)
class CachedSample:
    """The records of one sample by stream, on the CPU; `index` in its dataset, and which of its draws it is."""

    index: int
    draw: int
    records: Mapping[str, Encoded]

    @property
    def size(self) -> int:
        """Bytes that it takes in a shard, about."""
        return sum(tensor.nbytes for record in self.records.values() for tensor in _tensors(record).values())


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """What a shard says of itself: the digest of its plan, the draws start <= number < stop of a source that it holds,
    counted in the order of training."""

    plan: str
    source: str
    start: int
    stop: int


def write_shard(path: Path, samples: Sequence[CachedSample], facts: ShardFacts) -> None:
    """Write samples, which have the same streams, in a file that is there as a whole or not at all."""
    tensors = {
        "index": torch.tensor([sample.index for sample in samples]),
        "draw": torch.tensor([sample.draw for sample in samples]),
    }
    for name in samples[0].records:
        records = [sample.records[name] for sample in samples]
        tensors |= {f"{name}.{key}": value for key, value in _joined(records).items()}
    metadata = {key: str(value) for key, value in vars(facts).items()}
    atomic_write_chunks(path, safetensors_chunks(tensors, metadata=metadata))


def read_facts(path: Path) -> ShardFacts:
    """What a shard says of itself; its tensors are not read."""
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
        return ShardFacts(plan=said["plan"], source=said["source"], start=int(said["start"]), stop=int(said["stop"]))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError("is no shard of a latent cache", where=str(path), do="remove it, and encode again") from error


class Shard:
    """A shard, open to read."""

    def __init__(self, path: Path, streams: Sequence[str]) -> None:
        self._tensors = _load(path)
        self.index, self.draw = self._count(path, "index"), self._count(path, "draw")
        self._starts = {name: self._begin(path, name) for name in streams}

    def record(self, stream: str, row: int) -> Encoded:
        """The record of one stream of the sample in this row."""
        starts, blocks = self._starts[stream]
        here, there = slice(*starts[row : row + 2].tolist()), slice(*blocks[row : row + 2].tolist())
        logvar_NC = self._tensors.get(f"{stream}.logvar")
        return Encoded(
            mean_LC=self._tensors[f"{stream}.mean"][here],
            logvar_LC=None if logvar_NC is None else logvar_NC[here],
            block_lengths=tuple(self._tensors[f"{stream}.blocks"][there].tolist()),
            positions_LA=self._tensors[f"{stream}.positions"][here],
            units_L=self._tensors[f"{stream}.units"][here],
        )

    def _take(self, path: Path, name: str) -> Tensor:
        if name not in self._tensors:
            raise UserError(f"has no {name!r}", where=str(path), do=DAMAGED)
        return self._tensors[name]

    def _count(self, path: Path, name: str) -> Tensor:
        """A tensor of whole numbers, none below 0."""
        numbers = self._take(path, name)
        if numbers.dtype != torch.int64 or numbers.ndim != 1 or bool((numbers < 0).any()):
            raise UserError(f"its {name!r} are no counts", where=str(path), do=DAMAGED)
        return numbers

    def _begin(self, path: Path, stream: str) -> tuple[Tensor, Tensor]:
        """Where the latents and the blocks of each item begin, and where the last ones end."""
        lengths, blocks, counts = (
            _starts(self._count(path, f"{stream}.{key}")) for key in ("lengths", "blocks", "counts")
        )
        tall = {len(self._take(path, f"{stream}.{key}")) for key in ("mean", "positions", "units")}
        whole = counts[-1] == len(blocks) - 1 and torch.equal(blocks[counts], lengths)
        if tall != {int(lengths[-1])} or not whole or not len(counts) == len(self.index) + 1 == len(self.draw) + 1:
            raise UserError(f"its tensors of stream {stream!r} do not fit together", where=str(path), do=DAMAGED)
        return lengths, counts


def _tensors(record: Encoded) -> dict[str, Tensor]:
    """The tensors of a record by their names in a shard."""
    named = {"mean": record.mean_LC, "logvar": record.logvar_LC, "positions": record.positions_LA}
    return {name: value for name, value in {**named, "units": record.units_L}.items() if value is not None}


def _joined(records: Sequence[Encoded]) -> dict[str, Tensor]:
    """The tensors of one stream."""
    every = [_tensors(record) for record in records]
    joined = {name: torch.cat([one[name] for one in every]) for name in every[0]}
    blocks = [record.block_lengths for record in records]
    return joined | {
        "lengths": torch.tensor([len(record.mean_LC) for record in records]),
        "blocks": torch.tensor([length for lengths in blocks for length in lengths], dtype=torch.int64),
        "counts": torch.tensor([len(lengths) for lengths in blocks]),
    }


def _starts(lengths_I: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths_I.cumsum(0)])


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return read_safetensors(path)
    except UserError as error:
        raise UserError(error.what, where=error.where, do=DAMAGED) from error
