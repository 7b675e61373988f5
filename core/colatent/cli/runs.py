"""`colatent runs`: the runs in a folder: what there is, how they compare, and what they no longer need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from colatent.checkpoint.clean import Leftover
    from colatent.checkpoint.run import RunFolder
    from colatent.evaluate.run_facts import RunFacts

HOME = "runs"
"""Where runs are, unless the command line says otherwise."""
UNREADABLE = "unreadable"

FOLDER = click.argument("folder", default=HOME, type=click.Path())
JSON = click.option("--json", "as_json", is_flag=True, help="A JSON document instead of a table.")


@click.group(invoke_without_command=True)
@click.pass_context
def runs(ctx: click.Context) -> None:
    """List, compare and clean run folders.

    Example: colatent runs list
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@runs.command("list", epilog="Example: colatent runs list runs --json")
@FOLDER
@JSON
def list_(folder: str, as_json: bool) -> None:
    """Show each run's stages, last loss, size and state.

    FOLDER holds run folders, or is one; default: runs. A run that cannot be read is listed as unreadable, and stderr
    says why.
    """
    from colatent.cli.show import print_json, print_table
    from colatent.evaluate.run_facts import find_runs
    from colatent.evaluate.run_report import as_document

    found = _facts(find_runs(folder))
    if as_json:
        print_json([as_document(run) if run else {"run": str(path), "state": UNREADABLE} for path, run in found])
    elif found:
        lines = [_line(run) if run else (path.name, "", "", "", "", UNREADABLE) for path, run in found]
        print_table([("run", "stages", "loss", "last change", "size", "state"), *lines])
    else:
        click.echo(f"no runs in {folder}")


def _facts(paths: list[Path]) -> list[tuple[Path, RunFacts | None]]:
    """Of every run, None where it cannot be read: it does not hide the others."""
    from colatent.evaluate.run_facts import run_facts

    found: list[tuple[Path, RunFacts | None]] = [(path, None) for path in paths]
    for place, path in enumerate(paths):
        with _told():
            found[place] = (path, run_facts(path))
    return found


@contextmanager
def _told() -> Iterator[None]:
    """Say why a run cannot be read, and go on with the next."""
    from colatent.errors import UserError

    try:
        yield
    except UserError as error:
        click.echo(f"colatent: {' '.join(str(error).split())}", err=True)


def _line(run: RunFacts) -> tuple[str, ...]:
    from colatent.evaluate.run_words import moment, size

    loss, stages = run.loss(), ", ".join(f"{name} {stage}" for name, stage in run.stages.items())
    return (run.name, stages, "" if loss is None else f"{loss:.4g}", moment(run.changed), size(run.size), run.state)


@runs.command(epilog="Example: colatent runs compare runs/a runs/b")
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="RUN RUN...")
@JSON
def compare(paths: tuple[str, ...], as_json: bool) -> None:
    """Show the settings in which runs differ, their last finite figures, and what stands out.

    Two or more run folders, in any state. `colatent report` draws them.
    """
    from colatent.cli.show import print_json, print_table
    from colatent.evaluate.run_facts import run_facts
    from colatent.evaluate.run_report import finding_lines, run_document
    from colatent.evaluate.run_words import names

    if len(paths) < 2:
        raise click.UsageError("name two runs or more")
    found = [run_facts(path) for path in paths]
    document = run_document(found)
    if as_json:
        print_json(document)
        return
    differing = [(key, *row) for key, row in document["differences"].items()]
    print_table([("setting", *names(found)), *(differing or [("(none differs)", *[""] * len(found))])])
    click.echo()
    print_table([("last figure", *names(found)), *_last(document["runs"])])
    if lines := finding_lines(document):
        click.echo("\n".join(["", *lines]))


def _last(documents: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    figures = [
        {f"{stage} {name}": value for stage, some in one["last"].items() for name, value in some.items()}
        for one in documents
    ]
    every = dict.fromkeys(name for some in figures for name in some)
    return [(name, *(f"{some[name]:.4g}" if name in some else "" for some in figures)) for name in every]


@runs.command(epilog="Example: colatent runs clean --dry-run")
@FOLDER
@click.option("--keep", default=1, show_default=True, type=click.IntRange(1), help="Checkpoints that stay, by stage.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(folder: str, keep: int, dry_run: bool, yes: bool) -> None:
    """Remove superseded checkpoints and what crashes left.

    FOLDER holds run folders, or is one; default: runs. Of finished runs the newest valid checkpoint of each stage
    stays; of stopped ones all do. A run that is under way is not touched.
    """
    from colatent.checkpoint.clean import leftovers, remove
    from colatent.evaluate.run_facts import readable
    from colatent.evaluate.run_words import size

    found = _readable(folder)
    protect = [path for run in found for path in _named(run)]
    gone: dict[RunFolder, list[Leftover]] = {}
    for run in found:
        with _told(), readable(run.path):
            gone |= {run: some} if (some := leftovers(run, keep=keep, protect=protect)) else {}
    total = sum(one.size for some in gone.values() for one in some)
    for some in gone.values():
        _say(some)
    if not gone or dry_run:
        click.echo(f"{size(total)} would be freed" if gone else "nothing to remove")
        return
    if not yes:
        click.confirm(f"remove these and free {size(total)}?", abort=True)
    freed = sum(remove(run, some, keep=keep, protect=protect) for run, some in gone.items())
    click.echo(f"{size(freed)} freed")


def _readable(folder: str) -> list[RunFolder]:
    """The runs whose state can be read; the others are named, and stay as they are."""
    from colatent.checkpoint.run import RunFolder
    from colatent.evaluate.run_facts import find_runs, readable

    found = []
    for path in find_runs(folder):
        with _told(), readable(path):
            run = RunFolder.open(path)
            run.state()
            found.append(run)
    return found


def _named(run: RunFolder) -> list[Path]:
    """Step folders that a run's config names: it starts from their weights."""
    from colatent.evaluate.run_settings import settings

    return [Path(value) for value in settings(run).values() if "step-" in value]


def _say(some: list[Leftover]) -> None:
    from colatent.evaluate.run_words import size

    for one in some:
        click.echo(f"{one.path}  {size(one.size)}  {one.reason}")
