"""What `colatent generate --stream` and `--watch` print while a sample is made.

`--stream` prints the text as it comes and nothing else, so that it can be piped on. `--watch` prints a line per block;
on a terminal the estimates on the way to it are drawn over one another, elsewhere each is a line too.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from colatent.jsons import json_text

if TYPE_CHECKING:
    from colatent.cli.asking import Question
    from colatent.generate.model import Model
    from colatent.generate.requests import Piece, State

ERASE = "\r\x1b[2K"
"""Go to the start of the terminal's line and clear it."""


def follow(
    model: Model, asked: Sequence[Question], *, watch: bool, as_json: bool, n: int, ask: Mapping[str, Any]
) -> None:
    """Generate `n` samples of each question one after the other, and print them as they come."""
    samples = [(question, sample) for question in asked for sample in range(n)]
    for number, (question, sample) in enumerate(samples):
        begin = model.watch if watch else model.stream
        events: Iterator[State | Piece] = begin(question.prompt, sample=sample, **ask)
        if as_json:
            facts = {**question.facts, "sample": sample, "seed": ask["seed"]}
            for line in _json_lines(events, name=ask["target"], facts=facts):
                click.echo(json_text(line))
            continue
        if number:
            click.echo("---")
        click.echo(question.begun, nl=False)
        try:
            (_draw if watch else _print)(events)
        except KeyboardInterrupt:  # what is said about it begins a line of its own
            click.echo()
            raise


def _print(events: Iterable[State | Piece]) -> None:
    """A sample's text as it comes."""
    for event in events:
        click.echo("" if event.item is None else str(event.item), nl=False)  # which also flushes
    click.echo()


def _draw(events: Iterable[State | Piece]) -> None:
    """A line for each finished block, and one for each estimate of it: of what would come next."""
    from colatent.generate.requests import State

    terminal, shown = on_terminal(), 0
    click.echo()
    for event in events:
        text = "" if event.item is None else str(event.item)
        if isinstance(event, State):
            line = f"block {event.block} step {event.step} t={event.t:.3f}  {_one_line(text[shown:])}"
            width = shutil.get_terminal_size().columns - 1
            click.echo(ERASE + line[:width] if terminal else line, nl=not terminal, color=terminal)
        else:
            shown += len(text)
            line = f"block {event.block}  {_one_line(text)}"
            click.echo(ERASE + line if terminal else line, color=terminal)


def on_terminal() -> bool:
    """Whether what is printed can be drawn over."""
    return sys.stdout.isatty()


def _one_line(text: str) -> str:
    """The text with line breaks and other characters that would move the cursor spelt out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _json_lines(events: Iterable[State | Piece], *, name: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from colatent.generate.requests import Piece

    for event in events:
        item = None if event.item is None else str(event.item)
        if isinstance(event, Piece):
            yield {**facts, "block": event.block, name: item, **event.details, "last": event.last}
        else:
            yield {**facts, "block": event.block, "step": event.step, "t": event.t, "estimate": item}
