"""`colatent train`: a config, overrides, a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from colatent.config import RunConfig


@click.command(epilog="Example: colatent train examples/configs/shakespeare.yaml data.path=tinyshakespeare.txt")
@click.argument("config", type=click.Path(dir_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@click.option("--quiet", is_flag=True, help="No progress.")
def train(config: str, overrides: tuple[str, ...], resume: bool, quiet: bool) -> None:
    """Train a model from a config.

    Settings of CONFIG are overridden by KEY=VALUE, for example stages.prior.steps=1000. The run folder is out=DIR, or
    runs/NAME. The tasks of CONFIG judge what was trained; --resume goes on there too.
    """
    from colatent.config import load

    loaded = load(config, overrides)  # before torch: a mistyped key is answered at once

    from colatent.train.interrupts import terminable

    with terminable(loaded.config.folder):
        from colatent.cli.judging import train_and_judge
        from colatent.train.world import rank

        folder = train_and_judge(loaded, resume=resume, quiet=quiet)
    if rank():
        return
    click.echo(f"run {folder}\ncurves {folder / 'curves.png'}")
    if loaded.config.tasks:
        click.echo(f"report {folder / 'report.html'}")
    if line := suggestion(loaded.config, folder):
        click.echo(f"try: {line}")


def suggestion(config: RunConfig, folder: Path) -> str | None:
    """How to ask the model for what its first source trained; None where there is no prior yet."""
    from colatent.config.schema import SegmentConfig
    from colatent.plugins import load_plugins

    if not {"prior", "joint"} & config.stages.keys():
        return None
    first = next(iter(config.data.sources.values()))
    order = first.segments or (SegmentConfig(stream=next(iter(config.streams))),)
    count = next(number for number, one in enumerate(order) if one.role == "generated")
    given, target = order[:count], order[count].stream
    found = load_plugins()
    codecs = {one.stream: found.codec_class(config.streams[one.stream].codec) for one in order}
    printed = {name for name, codec in codecs.items() if hasattr(codec, "spelled")}
    filed = {name for name, codec in codecs.items() if hasattr(codec, "write_item")}
    if not {target, *(one.stream for one in given)} <= printed | filed:
        return f"colatent.load({str(folder)!r}).generate(...) in Python"
    words = [f"colatent generate {folder}"]
    for one in given:
        words.append(f"--given {'+' * one.same_group}{one.stream}={'TEXT' if one.stream in printed else 'FILE'}")
    if len(config.streams) > 1:
        words.append(f"--target {target}")
    return " ".join(words if target in printed else [*words, "--out made"])
