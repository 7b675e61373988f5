"""`colatent plugins new`: a package to begin with, which is valid before a line of it was changed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from colatent.cli.places import Place
from colatent.cli.show import print_json
from colatent.plugins import load_plugins
from colatent.plugins.new.package import NewPackage, check_new, write_new


@click.command()
@click.argument("name")
@click.argument("folder", metavar="DIR", type=Place(path_type=Path))
@click.option("--modality", required=True, metavar="M", help="The kind of data, in a word: what two codecs may share.")
@click.option(
    "--axes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 3),
    help="Position axes of a latent: 1 a series, 2 a plane, 3 a plane in time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def new(name: str, folder: Path, modality: str, axes: int, as_json: bool) -> None:
    """Write the package of a new plugin into DIR, which must be new or empty.

    NAME is what configs will call its codec; the package is colatent-NAME.

    Example: colatent plugins new depth --modality depth --axes 2 colatent-depth
    """
    package = NewPackage(name=name, modality=modality, axes=axes)
    check_new(package, load_plugins())
    files = [str(folder / path) for path in write_new(package, folder)]
    if as_json:
        print_json({**asdict(package), "distribution": package.distribution, "folder": str(folder), "files": files})
        return
    click.echo("\n".join(files))
    click.echo(f"\nnext: pip install -e {folder}, then colatent plugins validate {name}")
