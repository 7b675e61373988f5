"""`colatent train`: a config, overrides, a run folder."""

from __future__ import annotations

import click


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

    from colatent.cli.judging import train_and_judge

    folder = train_and_judge(loaded, resume=resume, quiet=quiet)
    click.echo(f"run {folder}\ncurves {folder / 'curves.png'}")
    if loaded.config.tasks:
        click.echo(f"report {folder / 'report.html'}")
    click.echo(f"try: colatent generate {folder}")
