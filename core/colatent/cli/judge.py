"""`colatent eval run`: a finished model before a task that a plugin brings, as a table, JSON and a page."""

from __future__ import annotations

from pathlib import Path

import click

from colatent.cli.places import Place


@click.command("run", epilog="Example: colatent eval run runs/digits --task digits samples=100 --json")
@click.argument("model", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--task", required=True, metavar="NAME", help="The task, as `colatent plugins list` shows it.")
@click.option("--seed", type=click.IntRange(0), help="Of samples; default: the run's, or 0.")
@click.option("--out", type=Place(file_okay=False), help="Folder to write; default: judged/NAME in the run.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or auto.")
@click.option("--json", "as_json", is_flag=True, help="The JSON document on stdout instead of the table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def run(
    model: str,
    overrides: tuple[str, ...],
    task: str,
    seed: int | None,
    out: str | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Judge a finished model by a task.

    MODEL is a run folder or a checkpoint. KEY=VALUE overrides settings of the task: those of the run's config, if it
    has the task, else the defaults. Writes report.html and report.json.
    """
    from colatent.checkpoint.resolve import run_of
    from colatent.checkpoint.run import CONFIG
    from colatent.cli.judging import judge_model, print_figures
    from colatent.cli.show import print_json
    from colatent.config import load, validate
    from colatent.config.load import overridden
    from colatent.plugins import load_plugins

    found = run_of(model)
    config = None if found is None else load(found.path / CONFIG).config
    settings = overridden({} if config is None else config.tasks.get(task, {}), overrides)
    # Here, where a setting is passed by its own name and not by that of a run's config.
    validate(load_plugins().task_config(task, where="--task"), settings, file=f"task {task}")
    folder = Path("judged" if found is None else found.path / "judged") / task if out is None else Path(out)
    used = seed if seed is not None else 0 if config is None else config.seed
    document = judge_model(model, {task: settings}, folder=folder, seed=used, device=device, quiet=quiet, again=True)
    if as_json:
        print_json(document)
        return
    print_figures(document)
    click.echo(f"\nreport {folder / 'report.html'}")
