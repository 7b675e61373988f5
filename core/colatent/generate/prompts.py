"""From what a caller says to what is given: a prompt read, its items encoded, its target found.

A prompt of ids is not looked at here: whatever is no list of `Given` goes to the codec that can be prompted, which says
what it accepts.

Axes: L latents of an item, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, cast

import torch

from colatent.errors import UserError
from colatent.generate.requests import Given, GivenLatents, Prompt
from colatent.plugins.contract import Codec, Encoded, Item, Promptable


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """A prompt, read.

    target  stream of the item to be generated
    given   whole items before it
    own     its own beginning, None where it starts from nothing
    name    what of the prompt the randomness of its samples depends on
    """

    target: str
    given: tuple[GivenLatents, ...] = ()
    own: Encoded | None = None
    name: str = ""


def read_prompt(codecs: Mapping[str, Codec], prompt: Prompt, *, target: str | None) -> Read:
    """Find the target of a prompt and encode what it gives. Raises `UserError` where it cannot be read."""
    if not isinstance(prompt, Sequence):
        raise UserError(f"is {prompt!r}", where="prompt", do="give a string, token ids or a list of Given")
    if not prompt:
        return Read(target=promptable(codecs) if target is None else _known(codecs, target))
    if _all_given(prompt):
        if target is None:
            raise UserError("a list of given items needs target=", do=f"use one of {', '.join(codecs)}")
        return Read(target=_known(codecs, target), given=_given(codecs, prompt))
    stream = promptable(codecs)
    codec = codecs[stream]
    assert isinstance(codec, Promptable)
    name = prompt if isinstance(prompt, str) else ",".join(map(str, prompt))
    if target is None or target == stream:
        item = codec.prompt(cast("str | Sequence[int]", prompt))
        return Read(target=stream, own=_encode(codec, item), name=name)
    if not isinstance(prompt, str):
        raise UserError(
            f"token ids can only be continued, in stream {stream!r}", do="give a string, or a list of Given"
        )
    return Read(target=_known(codecs, target), given=_given(codecs, [Given(stream, prompt)]), name=name)


def promptable(codecs: Mapping[str, Codec]) -> str:
    """The one stream that a bare string prompts."""
    names = promptables(codecs)
    if len(names) != 1:
        what = f"{len(names)} streams of this model take a string as a prompt (streams: {', '.join(codecs)})"
        raise UserError(what, do="name the stream: Given(stream, item) and target=")
    return names[0]


def promptables(codecs: Mapping[str, Codec]) -> list[str]:
    """The streams that a bare string could prompt."""
    return [name for name, codec in codecs.items() if isinstance(codec, Promptable)]


def _all_given(prompt: Prompt) -> TypeGuard[Sequence[Given]]:
    return all(isinstance(one, Given) for one in prompt)


def _given(codecs: Mapping[str, Codec], prompt: Sequence[Given]) -> tuple[GivenLatents, ...]:
    if prompt[0].same_group:
        raise UserError("the first given item has none before it to share a group with", do="leave same_group out")
    found = []
    for one in prompt:
        latents = _encode(codecs[_known(codecs, one.stream)], one.item)
        if not len(latents.mean_LC):
            raise UserError(f"a given item of stream {one.stream!r} is empty", do="leave it out")
        found.append(GivenLatents(stream=one.stream, latents=latents, same_group=one.same_group))
    return tuple(found)


def _known(codecs: Mapping[str, Codec], stream: str) -> str:
    if stream not in codecs:
        raise UserError(f"this model has no stream {stream!r}", do=f"use one of {', '.join(codecs)}")
    return stream


@torch.no_grad()
def _encode(codec: Codec, item: Item) -> Encoded:
    record = codec.encode([item])[0]
    return Encoded(
        mean_LC=record.mean_LC.float().cpu(),
        logvar_LC=None,
        block_lengths=record.block_lengths,
        positions_LA=record.positions_LA.float().cpu(),
        units_L=record.units_L.cpu(),
    )
