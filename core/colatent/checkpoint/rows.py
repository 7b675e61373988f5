"""A group of tensors in one file or in several, each written by a process that held a share of it.

A tensor is its rows in all files, one file after the other; a file that has none of its rows leaves it out. So a share
is a run of rows, as FSDP2 cuts, and whoever holds other shares, or none, reads the rows that it needs. Nothing but
names and shapes is read before a tensor is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from colatent.checkpoint.manifest import DAMAGED
from colatent.errors import UserError

_FILE = re.compile(r"(.+?)(?:\.shard-(\d{4})-of-(\d{4}))?\.safetensors")


def file_name(group: str, *, number: int = 0, of: int = 1) -> str:
    """The file of a group, or of its share `number`, counted from 0."""
    shard = f".shard-{number:04d}-of-{of:04d}" if of > 1 else ""
    return f"{group}{shard}.safetensors"


def files_by_group(names: Iterable[str]) -> dict[str, list[str]]:
    """All files that groups of tensors should have, in order, by what is known of some of them."""
    found = {}
    for name in names:
        if match := _FILE.fullmatch(name):
            count = int(match[3] or 1)
            found[match[1]] = [file_name(match[1], number=number, of=count) for number in range(count)]
    return found


class Rows(Mapping[str, Tensor]):
    """The tensors of a group by name, each read when it is asked for, on the CPU."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._held: dict[str, list[tuple[Any, Path]]] = {}
        for path in paths:
            with _readable(path):
                file = safe_open(path, framework="pt")
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                self._held.setdefault(name, []).append((file, path))

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, name: str) -> Tensor:
        pieces = []
        for file, path in self._held[name]:
            with _readable(path):
                pieces.append(file.get_tensor(name))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def shape(self, name: str) -> torch.Size:
        """The shape of a whole tensor."""
        shapes = [file.get_slice(name).get_shape() for file, _ in self._held[name]]
        return torch.Size([sum(shape[0] for shape in shapes), *shapes[0][1:]] if shapes[0] else ())

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows start <= number < stop of a tensor."""
        found, first = [], 0
        for file, path in self._held[name]:
            piece = file.get_slice(name)
            count = piece.get_shape()[0]
            here = slice(max(0, start - first), max(0, min(stop - first, count)))
            with _readable(path):
                found.append(piece[here])
            first += count
        return torch.cat([rows for rows in found if len(rows)] or found[:1])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path), do=DAMAGED) from error
