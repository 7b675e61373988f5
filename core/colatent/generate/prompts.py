"""From what a caller says to what is given: a prompt read, its items encoded, its target found.

A prompt of ids is not looked at here: whatever is no list of `Given` goes to the codec that can be prompted, which says
what it accepts.

Axes: L latents of an item, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, cast

import numpy as np
import torch

from colatent.errors import UserError
from colatent.generate.requests import Given, GivenLatents, Prompt
from colatent.plugins.contract import Codec, MeasuredCodec, Promptable
from colatent.plugins.latents import Encoded, Item

TOGETHER = 64
"""Prompts that are encoded together at most."""


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


def read_prompts(codecs: Mapping[str, Codec], prompts: Sequence[Prompt], *, target: str | None) -> list[Read]:
    """All of them, as `read_prompt` reads each. What is to be continued is encoded together where it is equally long:
    so each is rounded as it would be alone."""
    begun = _begin_together(codecs, prompts, target)
    return [
        read_prompt(codecs, prompt, target=target, begun=begun.get(number)) for number, prompt in enumerate(prompts)
    ]


def _begin_together(codecs: Mapping[str, Codec], prompts: Sequence[Prompt], target: str | None) -> dict[int, Encoded]:
    """Beginnings of those that are strings or ids to be continued, encoded, by number; none where the codec cannot tell
    how long they are."""
    plain = [n for n, one in enumerate(prompts) if isinstance(one, Sequence) and one and not _all_given(one)]
    if len(plain) < 2 or target not in (None, stream := prompted(codecs, target)):
        return {}
    codec = codecs[stream]
    if not (isinstance(codec, MeasuredCodec) and isinstance(codec, Promptable)):
        return {}
    items = [codec.prompt(cast("str | Sequence[int]", prompts[number])) for number in plain]
    groups: dict[int, list[int]] = {}
    for place, length in enumerate(codec.lengths(items)):
        groups.setdefault(length, []).append(place)
    found: dict[int, Encoded] = {}
    for group in groups.values():
        for some in (group[start : start + TOGETHER] for start in range(0, len(group), TOGETHER)):
            records = _encode(codec, [items[place] for place in some])
            found |= {plain[place]: record for place, record in zip(some, records, strict=True)}
    return found


def read_prompt(
    codecs: Mapping[str, Codec], prompt: Prompt, *, target: str | None, begun: Encoded | None = None
) -> Read:
    """Find the target of a prompt and encode what it gives. Raises `UserError` where it cannot be read. `begun`: what a
    string or ids to be continued are encoded as, where that is known."""
    if not isinstance(prompt, Sequence):
        raise UserError(f"is {prompt!r}", where="prompt", do="give a string, token ids or a list of Given")
    if not prompt:
        return Read(target=target_of(codecs, target))
    if _all_given(prompt):
        return _read_given(codecs, prompt, target=target)
    stream = prompted(codecs, target)
    if target is None or target == stream:
        item = cast("str | Sequence[int]", prompt)
        own = _begin(codecs, stream, item) if begun is None else _unless_empty(begun)
        return Read(target=stream, own=own, name=_name(item))
    if not isinstance(prompt, str):
        raise UserError(
            f"token ids can only be continued, in stream {stream!r}", do="give a string, or a list of Given"
        )
    return Read(target=_known(codecs, target), given=_given(codecs, [Given(stream, prompt)]), name=prompt)


def target_of(codecs: Mapping[str, Codec], target: str | None) -> str:
    """The stream to generate: the named one, else the default, or the complaint that there is none."""
    return _known(codecs, target) if target is not None else default_target(codecs) or promptable(codecs)


def default_target(codecs: Mapping[str, Codec]) -> str | None:
    """The stream to generate where none is named: the only one there is, or the only one that a string prompts."""
    names = list(codecs) if len(codecs) == 1 else promptables(codecs)
    return names[0] if len(names) == 1 else None


def prompted(codecs: Mapping[str, Codec], target: str | None) -> str:
    """The stream that a bare string prompts where `target` is generated: the target itself if it can be prompted, else
    the only one that can."""
    if target is not None and isinstance(codecs[_known(codecs, target)], Promptable):
        return target
    return promptable(codecs)


def promptable(codecs: Mapping[str, Codec]) -> str:
    """The one stream that a bare string prompts."""
    names = promptables(codecs)
    if len(names) != 1:
        what = f"{len(names)} streams of this model take a string as a prompt (streams: {', '.join(codecs)})"
        raise UserError(what, do="say which is meant: target= (--target), or Given(stream, item)")
    return names[0]


def promptables(codecs: Mapping[str, Codec]) -> list[str]:
    """The streams that a bare string could prompt."""
    return [name for name, codec in codecs.items() if isinstance(codec, Promptable)]


def _all_given(prompt: Prompt) -> TypeGuard[Sequence[Given]]:
    return all(isinstance(one, Given) for one in prompt)


def _read_given(codecs: Mapping[str, Codec], prompt: Sequence[Given], *, target: str | None) -> Read:
    """A list of given items, of which the last may be the beginning of the item to be generated."""
    *whole, last = prompt
    if last.ends:
        whole = [*prompt]
    if any(not one.ends for one in whole):
        raise UserError("a given item goes on and is not the last", do="leave out its ends=False, or put it last")
    if target is None and last.ends:
        raise UserError("a list of given items needs target=", do=f"use one of {', '.join(codecs)}")
    stream = target_of(codecs, target)
    names = [_name(one.item) for one in whole]
    if last.ends:
        return Read(target=stream, given=_given(codecs, whole), name="\n".join(names))
    if last.stream != stream or last.same_group:
        what = f"what goes on is the beginning of the item to be generated, in stream {stream!r} and a group of its own"
        raise UserError(what, do="leave out its ends=False, or give it in that stream and without same_group")
    own = _begin(codecs, stream, last.item)
    names += [begun] if (begun := _name(last.item)) else []  # an empty beginning begins nothing
    return Read(target=stream, given=_given(codecs, whole), own=own, name="\n".join(names))


def _begin(codecs: Mapping[str, Codec], stream: str, item: Item) -> Encoded | None:
    """The beginning of an item, encoded; None where it is empty."""
    codec = codecs[_known(codecs, stream)]
    if not isinstance(codec, Promptable):
        what = f"an item of stream {stream!r} cannot be begun: its codec takes no prompt"
        raise UserError(what, do="give whole items only")
    if not isinstance(item, Sequence):
        raise UserError(f"an item of stream {stream!r} cannot begin with {item!r}", do="give a string or token ids")
    return _unless_empty(*_encode(codec, [codec.prompt(item)]))


def _unless_empty(own: Encoded) -> Encoded | None:
    return own if len(own.mean_LC) else None


def _name(item: Item) -> str:
    """What of an item randomness hangs on: a string, ids, the content of an array; nothing of what is neither."""
    if isinstance(item, str):
        return item
    if hasattr(item, "__array__"):
        array = np.asarray(item)
        return hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest() + str(array.shape)
    return ",".join(map(str, item)) if isinstance(item, Sequence) else ""


def _given(codecs: Mapping[str, Codec], prompt: Sequence[Given]) -> tuple[GivenLatents, ...]:
    if prompt and prompt[0].same_group:
        raise UserError("the first given item has none before it to share a group with", do="leave same_group out")
    found = []
    for one in prompt:
        (latents,) = _encode(codecs[_known(codecs, one.stream)], [one.item])
        if not len(latents.mean_LC):
            raise UserError(f"a given item of stream {one.stream!r} is empty", do="leave it out")
        found.append(GivenLatents(stream=one.stream, latents=latents, same_group=one.same_group))
    return tuple(found)


def _known(codecs: Mapping[str, Codec], stream: str) -> str:
    if stream not in codecs:
        raise UserError(f"this model has no stream {stream!r}", do=f"use one of {', '.join(codecs)}")
    return stream


@torch.no_grad()
def _encode(codec: Codec, items: Sequence[Item]) -> list[Encoded]:
    return [
        Encoded(
            mean_LC=record.mean_LC.float().cpu(),
            logvar_LC=None,
            block_lengths=record.block_lengths,
            positions_LA=record.positions_LA.float().cpu(),
            units_L=record.units_L.cpu(),
        )
        for record in codec.encode(items)
    ]
