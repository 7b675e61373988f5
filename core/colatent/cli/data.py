"""`colatent data`: what is done to data before a run reads them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from colatent.cli.places import Place

EVERY = 5.0
"""Seconds between two lines of progress."""


@click.group()
def data() -> None:
    """Pack data for training.

    Example: colatent data pack plays.txt shards
    """


@data.command(epilog="Example: colatent data pack photos shards --suffixes png,txt")
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("out", type=Place(path_type=Path))
@click.option(
    "--cut",
    type=click.Choice(["lines", "paragraphs"]),
    default="lines",
    show_default=True,
    help="What of a text is a sample; paragraphs end at an empty line.",
)
@click.option("--suffixes", default="", metavar="A,B", help="Files of a folder that count; default: all.")
@click.option("--shard-mb", type=click.IntRange(1), default=256, show_default=True, help="MiB of a shard, about.")
@click.option("--json", "as_json", is_flag=True, help="What was written, on stdout as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def pack(src: Path, out: Path, cut: str, suffixes: str, shard_mb: int, as_json: bool, quiet: bool) -> None:
    """Pack SRC into shards in the new folder OUT.

    SRC is a text file, a .jsonl file (a value that names a file beside it becomes that file), or a folder, in which
    files of one name and different suffixes are a sample: cat.png and cat.txt. Train on OUT with the dataset shards.
    """
    from colatent.cli.show import print_facts, print_json
    from colatent.data.pack import MIB, pack
    from colatent.data.raw import open_raw

    chosen = tuple(filter(None, suffixes.split(",")))
    raw = open_raw(src, cut=cut, suffixes=chosen)  # type: ignore[arg-type]
    packed = pack(raw, out, shard_bytes=shard_mb * MIB, progress=_Lines(raw.total, quiet=quiet))
    facts = packed.facts()
    if as_json:
        print_json(facts)
        return
    print_facts({**facts, "shards": len(packed.shards)})


class _Lines:
    """Progress on stderr, a line now and then."""

    def __init__(self, total: int | None, *, quiet: bool) -> None:
        self._of, self._quiet, self._last = f"/{total}" if total else "", quiet, time.monotonic()

    def __call__(self, samples: int, size: int) -> None:
        if not self._quiet and time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            print(f"packed {samples}{self._of} samples, {size / 2**20:,.0f} MiB", file=sys.stderr, flush=True)
