"""How commands print: plain aligned text for people, JSON for programs. Neither needs rich, which is slow to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from colatent.jsons import json_text


def print_facts(facts: dict[str, Any], *, indent: str = "") -> None:
    """Lines of key and value, keys padded to one width; empty values are left out."""
    width = max(map(len, facts), default=0)
    for key, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        if shown not in ("", None):
            click.echo(f"{indent}{key:{width}}  {shown}")


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns padded to their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(json_text(value, indent=2))
