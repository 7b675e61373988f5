"""Shards for tests: packed ones, ones made as strangers make them, and a dataset that opens their texts."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colatent.data.dataset import Opener
from colatent.data.pack import pack
from colatent.data.raw import Raw
from colatent.data.shards import Shards, ShardsConfig
from colatent_text.codec import TextCodec
from colatent_text.config import TextConfig

TEXT = Opener(codec=TextCodec, config=TextConfig())


def packed(folder: Path, count: int = 40, *, shard_bytes: int = 12_000) -> Path:
    """`count` short texts in shards of about ten."""
    samples = ((f"{number:04d}", {"txt": text_of(number).encode()}) for number in range(count))
    return pack(Raw(samples=samples), folder, shard_bytes=shard_bytes).path


def text_of(number: int) -> str:
    return f"text {number} of many"


def archive(path: Path, members: Sequence[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    """A tar file as any program might write it."""
    with tarfile.open(path, "w") as tar:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            data = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def opened(
    path: Path | str, *, split: Any = "train", openers: Mapping[str, Opener] | None = None, **rest: Any
) -> Shards:
    """The dataset, whose field `text` is opened."""
    dataset = Shards(ShardsConfig(path=str(path), **rest), split=split)
    openers = {"text": TEXT} if openers is None else openers
    dataset.name_fields({field: opener.codec.suffixes() for field, opener in openers.items()})
    for field, opener in openers.items():
        dataset.open_with(field, opener)
    return dataset


def texts(dataset: Shards) -> list[str]:
    """Every sample's text, in order."""
    rng = np.random.default_rng(0)
    return [dataset.sample(index, rng)["text"] for index in range(len(dataset))]
