"""`colatent eval likelihood`: how probable a trained model finds items, in nats, as a table or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colatent.cli.heldout import data_config, load_with_data
from colatent.cli.show import print_facts, print_json, print_table
from colatent.errors import UserError

if TYPE_CHECKING:
    from colatent.evaluate.likelihood import Example
    from colatent.generate.model import Model


@click.command(epilog='Example: colatent eval likelihood runs/demo --item "forty-one, forty-two" --samples 16 --json')
@click.argument("model", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--item", "items", multiple=True, metavar="TEXT", help="A whole item to score; may be repeated.")
@click.option("--file", type=click.Path(dir_okay=False), help="Score every line of a file that is not empty.")
@click.option("--data", type=click.Path(dir_okay=False), help="Config whose data are used; default: the run's own.")
@click.option("--stream", metavar="STREAM", help="Score only this stream; others are given.")
@click.option("--n", default=8, show_default=True, type=click.IntRange(1), help="Held-out samples of each source.")
@click.option("--samples", default=8, show_default=True, type=click.IntRange(1), help="K, posterior draws per item.")
@click.option("--steps", default=32, show_default=True, type=click.IntRange(1), help="Steps of the ODE.")
@click.option("--solver", default="midpoint", show_default=True, help="Solver of the ODE.")
@click.option(
    "--probe",
    default="rademacher",
    show_default=True,
    type=click.Choice(["rademacher", "gaussian", "exact"]),
    help="How the divergence is found: one random probe per solve, or exactly (slow).",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of posterior draws and probes.")
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1), help="Draws solved together.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or auto.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
def likelihood(
    model: str,
    overrides: tuple[str, ...],
    items: tuple[str, ...],
    file: str | None,
    data: str | None,
    stream: str | None,
    n: int,
    device: str,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Estimate how probable a trained model finds items.

    MODEL is a run folder, or a checkpoint inside one. Without --item and --file, held-out samples of the run are
    scored; KEY=VALUE then overrides its config, for example data.path=moved.txt. Costs are minus log p: lower is
    better. docs/likelihood.md says what of this is a bound.
    """
    from colatent.evaluate.likelihood import log_weights
    from colatent.evaluate.likelihood_data import held_examples
    from colatent.evaluate.likelihood_report import report
    from colatent.evaluate.prior_density import Solve
    from colatent.generate.model import load
    from colatent.train.device import pick_device

    spelled = bool(items) or file is not None
    config = None if spelled else data_config(model, data, overrides)
    solve = Solve(**{name: options.pop(name) for name in ("steps", "solver", "probe")})
    where = str(pick_device(device))
    if config is None:
        loaded = load(model, device=where)
        _check_stream(loaded, stream)
        examples = _given(loaded, [*items, *_lines(file)], stream, (*overrides, *([data] if data else [])))
    else:
        loaded, opened = load_with_data(model, config, n=n, seed=0, device=where)
        _check_stream(loaded, stream)
        examples = held_examples(opened, stream=stream)
    if not quiet:
        click.echo(f"... solving for {len(examples)} items, {options['samples']} draws each", err=True)
    progress = None if quiet else _progress
    weights = log_weights(
        loaded.prior, loaded.codecs, examples, solve=solve, window=loaded.window, progress=progress, **options
    )
    how = {"model": model, "samples": options["samples"], **vars(solve), "seed": options["seed"]}
    document = {**how, **report(weights)}
    print_json(document) if as_json else _show(document)


def _check_stream(model: Model, stream: str | None) -> None:
    if stream is not None and stream not in model.codecs:
        raise UserError(f"this model has no stream {stream!r}", do=f"use one of {', '.join(model.codecs)}")


def _given(model: Model, texts: list[str], stream: str | None, overrides: tuple[str, ...]) -> list[Example]:
    """What was written on the command line or in a file, for the codec that can read it."""
    from colatent.evaluate.likelihood import Example, Piece
    from colatent.plugins.contract import Spelled

    if overrides:
        what = "overrides the config of held-out samples, and items are given"
        raise UserError(what, where=overrides[0], do="leave one of them out")
    names = [name for name, codec in model.codecs.items() if isinstance(codec, Spelled) and stream in (None, name)]
    if len(names) != 1:
        what = f"{len(names)} streams can read an item from a string (streams: {', '.join(model.codecs)})"
        raise UserError(what, where="--item", do="name one with --stream, or score held-out samples")
    codec = model.codecs[names[0]]
    assert isinstance(codec, Spelled)
    return [
        Example(key=f"item/{number}", pieces=(Piece(stream=names[0], item=codec.spelled(text)),))
        for number, text in enumerate(texts)
    ]


def _lines(file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = [line for line in Path(file).read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=file, do="give a text file with one item a line") from None
    if not lines:
        raise UserError("has no line to score", where=file, do="give a text file with one item a line")
    return lines


def _progress(done: int, total: int) -> None:
    if done < total:
        click.echo(f"{done}/{total} draws", err=True)


def _show(document: dict[str, Any]) -> None:
    samples = document["samples"]
    print_facts({name: document[name] for name in ("model", "items", "units", "samples", "steps", "solver", "probe")})
    rows: list[tuple[str, ...]] = [("", "nats/item", "se", "nats/unit", "se", "bits/unit", "perplexity")]
    named = {"ELBO-like": document["elbo"], f"IWAE-like ({samples})": document["iwae"]}
    if len(document["streams"]) > 1:
        named |= {f"ELBO-like, {name}": one["elbo"] for name, one in document["streams"].items()}
    rows += [(name, *_cells(figures)) for name, figures in named.items()]
    click.echo()
    print_table(rows)
    for name, one in document["streams"].items():
        click.echo(f"\n{name}, mean log of a block in nats")
        keys = ("block", "count", "units", "log_decoder", "log_prior", "log_posterior", "log_w")
        body = [tuple(_number(block[key]) for key in keys) for block in one["blocks"]]
        print_table([tuple(key.replace("_", " ") for key in keys), *body])


def _cells(figures: dict[str, float | None]) -> tuple[str, ...]:
    keys = ("nats_per_item", "nats_per_item_se", "nats_per_unit", "nats_per_unit_se", "bits_per_unit")
    return tuple(_number(figures.get(key)) for key in (*keys, "perplexity_estimate"))


def _number(value: float | None) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if value is None else f"{value:.5g}" if abs(value) >= 1e5 else f"{value:.3f}"
