"""Checks of what a codec does with its items outside the engine: files, reports, and likelihoods."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from colatent.errors import UserError
from colatent.plugins.contract import Scorable
from colatent.plugins.items import FileCodec, Showable, Shown, StoredCodec
from colatent.testing.requiring import SkippedError, is_array, require, same, tensor_like
from colatent.testing.running import check
from colatent.testing.subject import Subject

MEDIA = re.compile(r"[a-z]+/[a-z0-9.+-]+")
SIGNATURES = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "audio/wav": b"RIFF",
    "audio/flac": b"fLaC",
}
"""How files of some media types begin."""
SUFFIX = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*")
BROKEN = b"\xff\x00\xfe broken \x00\xff"
ROUNDING = 0.01
"""Largest difference that a file format of 8 bits may make to values in -1..1."""


@check()
def files(subject: Subject) -> None:
    """An item is the same after writing and reading, once reading has fitted its size, and a file that is missing or
    broken is a `UserError` that names it."""
    codec = subject.codec
    if not isinstance(codec, FileCodec):
        raise SkippedError("its items have no files (FileCodec)")
    with tempfile.TemporaryDirectory() as folder:
        for number, item in enumerate(subject.items):
            path, again = _through(codec, item, Path(folder) / f"item.{number}")
            fitted = is_array(item) and is_array(again) and item.shape != again.shape
            require(fitted or same(item, again, within=ROUNDING), "an item is another one after writing and reading")
            _, third = _through(codec, again, Path(folder) / f"again.{number}")
            require(same(again, third, within=ROUNDING), "an item that was read is another one the second time")
        path.write_bytes(BROKEN)
        for kind, file in (("missing", path.with_name(f"missing{path.suffix}")), ("broken", path)):
            read = partial(codec.read_item, file)
            _check_refused(read, f"read_item takes a {kind} file", name=file.name)


@check()
def stored(subject: Subject) -> None:
    """The bytes of a file are the item that the file is, suffixes have small letters and no dot, and broken bytes are a
    `UserError` that names them."""
    codec, cls = subject.codec, subject.cls
    if not isinstance(cls, StoredCodec):
        raise SkippedError("its items do not lie in shards (StoredCodec)")
    suffixes = cls.suffixes()
    wrong = [suffix for suffix in suffixes if not SUFFIX.fullmatch(suffix)]
    require(bool(suffixes) and not wrong, f"suffixes {list(suffixes)} are not of small letters and without a dot")
    name = f"broken.{suffixes[0]}"
    _check_refused(lambda: cls.open_item(subject.config, BROKEN, name=name), "open_item takes broken bytes", name=name)
    if not isinstance(codec, FileCodec):
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, item in enumerate(subject.items):
            path, again = _through(codec, item, Path(folder) / f"item.{number}")
            ending = path.suffix.removeprefix(".")
            require(ending in suffixes, f"write_item writes .{ending}, which suffixes does not name")
            opened = cls.open_item(subject.config, path.read_bytes(), name=path.name)
            require(same(opened, again), "the bytes of a file are another item than the file")


@check()
def show(subject: Subject) -> None:
    """An item is shown as the bytes of a media type."""
    if not isinstance(subject.codec, Showable):
        raise SkippedError("its items are not shown (Showable)")
    for item in subject.items:
        shown = subject.codec.show(item)
        require(isinstance(shown, Shown), f"gives {type(shown).__name__}, not Shown")
        require(bool(MEDIA.fullmatch(shown.media)), f"media {shown.media!r} is no media type such as text/plain")
        require(isinstance(shown.data, bytes) and len(shown.data) > 0, "there are no bytes")
        begins = shown.data.startswith(SIGNATURES.get(shown.media, b""))
        require(begins, f"the bytes do not begin as {shown.media} does")
        if shown.media.startswith("text/") or shown.media.endswith(("+xml", "json")):
            shown.data.decode("utf-8")


@check()
def likelihood(subject: Subject) -> None:
    """`log_likelihood` gives one finite number per block, for a posterior that has a variance."""
    codec = subject.codec
    if not isinstance(codec, Scorable):
        raise SkippedError("its decoder gives no probabilities (Scorable)")
    require(all(record.logvar_LC is not None for record in subject.encoded), "the posterior has no log-variance")
    found = codec.log_likelihood(subject.items, subject.latents())
    require(len(found) == len(subject.items), f"{len(subject.items)} items give {len(found)} likelihoods")
    for record, logp_K in zip(subject.encoded, found, strict=True):
        tensor_like("log_likelihood", logp_K, (len(record.block_lengths),), torch.float32)


def _through(codec: FileCodec, item: Any, asked: Path) -> tuple[Path, Any]:
    """The file that an item was written to, and the item that is read from there."""
    path = codec.write_item(item, asked)
    said = isinstance(path, Path) and path.name.startswith(f"{asked.name}.") and path.parent == asked.parent
    require(said, f"write_item gives {path!r}, not the path with a suffix appended")
    require(path.is_file(), f"write_item gives {path.name!r}, and there is no such file")
    return path, codec.read_item(path)


def _check_refused(read: Callable[[], Any], what: str, *, name: str) -> None:
    """What cannot be used is a user's mistake, said in one line that names it."""
    try:
        read()
    except UserError as error:
        require(name in str(error), f"the error for what cannot be read does not name it: {error}")
    else:
        require(False, f"{what} for an item")
