"""What a command line asks of a model: `--given STREAM=VALUE` and `--prompt TEXT`, read by the codecs of their streams.

A value is a file where the codec reads files, and text where a string spells an item. Which of them holds is asked of
the codec and never looked up by modality.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colatent.errors import UserError

if TYPE_CHECKING:
    from colatent.generate.requests import Given, Prompt
    from colatent.plugins.contract import Codec
    from colatent.plugins.latents import Item

JOINED = "+"
"""Stands before the stream of a given item that shares its group with the one before."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One thing that is asked.

    facts   how it was said, for records
    prompt  the same as the model takes it
    begun   text with which the generated item begins, printed before it
    """

    facts: Mapping[str, Any]
    prompt: Prompt
    begun: str


def questions(
    codecs: Mapping[str, Codec], *, given: Sequence[str], prompts: Sequence[str], target: str | None
) -> tuple[str, list[Question]]:
    """The stream to generate, and a question for each prompt (one where there is none), all after the same items."""
    from colatent.generate.prompts import prompted, target_of
    from colatent.generate.requests import Given

    if given and not prompts and target is None:
        raise UserError("does not say what to generate", where="--given", do=f"add --target {'|'.join(codecs)}")
    if given and given[0].startswith(JOINED):
        what = "has none before it to share a group with"
        raise UserError(what, where=f"--given {given[0]}", do=f"leave out its {JOINED}")
    items = [read_given(codecs, one) for one in given]
    stream = target_of(codecs, target)
    asked = []
    for prompt in prompts or [""]:
        spoken = prompted(codecs, target) if prompt else stream
        facts = {"prompt": prompt, "given": list(given)} if given else {"prompt": prompt}
        last = [Given(spoken, prompt, ends=spoken != stream)] if prompt else []
        begun = prompt if spoken == stream else ""
        asked.append(Question(facts=facts, prompt=[*items, *last] if items else prompt, begun=begun))
    return stream, asked


def read_given(codecs: Mapping[str, Codec], spelling: str) -> Given:
    """The given item that `STREAM=VALUE` or `+STREAM=VALUE` stands for."""
    from colatent.generate.requests import Given

    name, equals, value = spelling.removeprefix(JOINED).partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{spelling!r} is not STREAM=VALUE", param_hint="--given")
    if name not in codecs:
        raise UserError(f"this model has no stream {name!r}", where="--given", do=f"use one of {', '.join(codecs)}")
    return Given(name, _read(codecs[name], value, stream=name), same_group=spelling.startswith(JOINED))


def _read(codec: Codec, value: str, *, stream: str) -> Item:
    from colatent.plugins.contract import Spelled
    from colatent.plugins.items import FileCodec

    file, spelled = os.path.isfile(value), isinstance(codec, Spelled)  # which is False for a text too long to be a name
    if isinstance(codec, FileCodec) and (file or not spelled):
        return codec.read_item(Path(value))
    if isinstance(codec, Spelled):
        return codec.spelled(_text(value) if file else value)
    what = f"stream {stream!r} takes neither a file nor text: its codec has no read_item (FileCodec) and no spelled"
    raise UserError(what, where="--given", do="give the item in Python, with Given(stream, item)")


def _text(path: str) -> str:
    """A file's text without the line break that editors leave at its end."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text (byte 0x{error.object[error.start]:02x} at offset {error.start})"
        raise UserError(what, where=path, do="convert the file to UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
