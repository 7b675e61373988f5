"""`colatent eval`: what is measured of a model or of its output.

The group is open: a plugin that adds a group `eval` of its own has that group's commands merged into this one, since
how good an item is can only be said by whoever knows what it is. The core's own commands are lines of `COMMANDS` and
are imported when called.
"""

from __future__ import annotations

import click

from colatent.cli.lazy import LazyCommand, OpenGroup

COMMANDS = {
    "run": LazyCommand(target="colatent.cli.judge:run", help="Judge a finished model by a task."),
    "diagnose": LazyCommand(
        target="colatent.cli.diagnose:diagnose", help="Say where a finished model is weak: latents, decoder, prior."
    ),
    "likelihood": LazyCommand(
        target="colatent.cli.likelihood:likelihood", help="Estimate how probable a trained model finds items."
    ),
}


@click.group("eval", cls=OpenGroup, lazy=COMMANDS, invoke_without_command=True)
@click.pass_context
def evaluate(ctx: click.Context) -> None:
    """Score output and measure models.

    Example: colatent eval --help
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
