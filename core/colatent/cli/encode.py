"""`colatent encode`: a config and trained codecs, a latent cache."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from colatent.cli.places import Place
from colatent.errors import UserError

if TYPE_CHECKING:
    from colatent.config.schema import RunConfig

EVERY = 5.0
"""Seconds between two lines of progress."""


@click.command(epilog="Example: colatent encode mixed.yaml streams.image.weights=runs/codec --out caches/mixed")
@click.argument("config", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=Place(path_type=Path), help="Folder of the cache; default: the config's data.cache.")
@click.option("--draws", type=click.IntRange(1), help="Draws of each sample, where a source draws anew in every epoch.")
@click.option("--rank", envvar="RANK", default=0, show_default=True, type=click.IntRange(0), help="Which process.")
@click.option("--world", envvar="WORLD_SIZE", default=1, show_default=True, type=click.IntRange(1), help="Of how many.")
@click.option("--shard-mb", type=click.IntRange(1), default=256, show_default=True, help="MiB of a shard, about.")
@click.option("--json", "as_json", is_flag=True, help="What there is in the end, on stdout as JSON.")
@click.option("--quiet", is_flag=True, help="No progress.")
def encode(
    config: str,
    overrides: tuple[str, ...],
    out: Path | None,
    draws: int | None,
    rank: int,
    world: int,
    shard_mb: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Encode data once, into a latent cache.

    Every training sample of CONFIG is encoded, and stage prior trains on that with data.cache=DIR. CONFIG names trained
    codecs by streams.NAME.weights or init; a run folder stands for its own config and codecs. The same command goes on
    where it was stopped. Several processes share the work by --rank and --world, or by RANK and WORLD_SIZE.
    """
    settings = _settings(config, overrides)  # before torch: a mistyped key is answered at once
    folder = out or (Path(settings.data.cache) if settings.data.cache else None)
    if folder is None:
        raise UserError("does not say where to write", where="--out", do="pass --out DIR, or set data.cache")
    if rank >= world:
        raise UserError(f"is {rank} of {world} processes", where="--rank", do="count from 0")

    from colatent.cli.show import print_facts, print_json
    from colatent.train import encoding

    index = encoding.encode(
        settings,
        folder,
        draws=draws,
        share=encoding.Share(rank=rank, world=world),
        shard_bytes=shard_mb * encoding.MIB,
        progress=None if quiet else _Lines(),
    )
    facts: dict[str, object] = {"cache": str(folder), "complete": index is not None}
    if index is not None:
        facts["samples"] = sum(source.total for source in index.plan.sources.values())
        facts |= {"shards": len(index.shards), "bytes": sum(shard.size for shard in index.shards)}
    print_json(facts) if as_json else print_facts(facts)


def _settings(config: str, overrides: tuple[str, ...]) -> RunConfig:
    """The settings in a config file, or those of a run with the run's codecs."""
    from colatent.checkpoint.run import CONFIG, is_run_folder
    from colatent.config import load

    if not is_run_folder(Path(config)):
        return load(config, overrides).config
    settings = load(Path(config) / CONFIG, overrides).config
    streams = {
        name: stream if stream.weights else stream.model_copy(update={"weights": config})
        for name, stream in settings.streams.items()
    }
    return settings.model_copy(update={"streams": streams})


class _Lines:
    """Progress on stderr, a line now and then."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if done < total and time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        left = int((self._last - self._begun) / done * (total - done))
        print(f"encoded {done:,}/{total:,} samples, {left // 60}:{left % 60:02d} left", file=sys.stderr, flush=True)
