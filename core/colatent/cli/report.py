"""`colatent report`: a run, alone or beside others, as one page that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import click

from colatent.cli.places import Place


@click.command(epilog="Example: colatent report runs/demo runs/other")
@click.argument("run", type=click.Path())
@click.argument("others", nargs=-1, type=click.Path(), metavar="[OTHER]...")
@click.option("--out", type=Place(dir_okay=False), help="File to write; default: run.html in the folder of RUN.")
@click.option("--json", "as_json", is_flag=True, help="A JSON document on stdout instead of the findings.")
def report(run: str, others: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Show a run as one page: curves, samples, findings.

    RUN is a run folder in any state. With OTHER runs their curves share the axes, and settings that differ are listed.
    """
    from colatent.checkpoint.storage import atomic_write_text, make_folder
    from colatent.evaluate.run_facts import run_facts
    from colatent.evaluate.run_report import PAGE, finding_lines, run_document, run_page

    runs = [run_facts(path) for path in (run, *others)]
    path = Path(run) / PAGE if out is None else Path(out)
    make_folder(path.parent)
    document = run_document(runs)
    atomic_write_text(path, run_page(runs))
    if as_json:
        from colatent.cli.show import print_json

        print_json({"page": str(path), **document})
        return
    click.echo("\n".join([*finding_lines(document), f"report {path}"]))
