"""What a codec can do with its items outside the engine: read and write files, open them in shards, show them.

Protocols like those of the contract, asked for with `isinstance`. The core moves bytes and never looks at what they
mean, so that a report of a modality that nobody has thought of yet needs no line of the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from colatent.plugins.latents import Item


@runtime_checkable
class FileCodec(Protocol):
    """A codec whose items live in files: `colatent generate --given STREAM=PATH ... --out DIR`."""

    def read_item(self, path: Path) -> Item:
        """The item in a file. Raises `UserError` that names the file where there is none or it cannot be used."""
        ...

    def write_item(self, item: Item, path: Path) -> Path:
        """Write an item to `path` with the suffix of its format appended, and return that path."""
        ...


@runtime_checkable
class StoredCodec(Protocol):
    """A codec whose items can lie in shards, as the bytes of files. Its class is asked, before a codec is built."""

    @classmethod
    def suffixes(cls) -> Sequence[str]:
        """How the names of such files end, in small letters and without the dot."""
        ...

    @classmethod
    def open_item(cls, config: Any, data: bytes, *, name: str) -> Item:
        """The item in a file's bytes, as a codec with the settings `config` takes it. Raises `UserError` where they are
        damaged or hold another kind of thing; `name` is how it calls them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An item as a browser takes it.

    media  its media type: text/plain (UTF-8), image/png, image/svg+xml, audio/wav, ...
    data   the bytes
    """

    media: str
    data: bytes


@runtime_checkable
class Showable(Protocol):
    """A codec whose items a report can show."""

    def show(self, item: Item) -> Shown:
        """The item as self-contained bytes."""
        ...
