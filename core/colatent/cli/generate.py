"""`colatent generate`: items from a trained model, printed, written to files, or as JSON.

The flags for options of decoding (`--temperature`, `--stop`, ...) are only another spelling of `--option NAME=VALUE`:
which options there are is the codec's to say, and it is asked with the model at hand.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from colatent.cli.asking import questions
from colatent.cli.places import Place
from colatent.cli.samples import check_place, gathered, prints, readable, records_of
from colatent.jsons import json_text, parse_json

SPELT_OUT = ("temperature", "top_k", "top_p", "repetition_penalty", "stop")
"""Options of codecs that have a flag of their own."""


@click.command(epilog='Example: colatent generate runs/demo --prompt "forty-one, forty-two," --n 3 --seed 0 --json')
@click.argument("model", type=click.Path())
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Text to continue, or for the target.")
@click.option(
    "--given",
    multiple=True,
    metavar="STREAM=VALUE",
    help="An item that comes before, a file or a text; may be repeated. +STREAM=VALUE: in one group with the last.",
)
@click.option("--target", metavar="STREAM", help="Stream to generate; that of the prompt where not given.")
@click.option("--n", default=1, show_default=True, type=click.IntRange(1), help="Samples per prompt.")
@click.option("--steps", type=click.IntRange(1), help="Solver steps per block.")
@click.option("--solver", type=click.Choice(["euler", "midpoint", "heun", "ab2"]), help="Solver of the flow.")
@click.option("--shift", type=click.FloatRange(0.0, min_open=True), help="Above 1: shorter steps near the noise.")
@click.option("--guidance", type=click.FloatRange(0.0), help="Scale of classifier-free guidance; 1 is off.")
@click.option(
    "--guidance-interval",
    nargs=2,
    type=click.FloatRange(0.0, 1.0),
    metavar="LOW HIGH",
    help="Least and largest t with guidance; 1 is noise, 0 clean.",
)
@click.option("--guidance-rescale", type=click.FloatRange(0.0, 1.0), help="Take back the spread that guidance adds.")
@click.option(
    "--unconditional",
    type=click.Choice(["auto", "alone", "condition"]),
    help="What guidance compares with: the block alone, or the item without what is given.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Sample i depends on (seed, i).")
@click.option("--max-new", type=click.IntRange(0, 2**31 - 1), help="Budget in tokens (or the target's units).")
@click.option("--temperature", type=float, help="Draw tokens at this temperature; 0 takes the likeliest.")
@click.option("--top-k", type=int, help="Draw among the so many likeliest tokens; 0: all.")
@click.option("--top-p", type=float, help="Draw among the likeliest tokens that hold this share; 1: all.")
@click.option("--repetition-penalty", type=float, help="For tokens of earlier generated blocks; 1 is off.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated.")
@click.option("--option", "extra", multiple=True, metavar="NAME=VALUE", help="Any option of the target's codec.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1), help="Samples generated together.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or auto.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="bf16 is faster where the device multiplies in it, and slightly less exact.",
)
@click.option("--compile", "compiled", is_flag=True, help="Compile layers first: takes a minute, pays for long work.")
@click.option("--stream", "live", flag_value="stream", help="Print each sample while its blocks are made.")
@click.option("--watch", "live", flag_value="watch", help="The same with the model's estimate at each solver step.")
@click.option("--out", type=Place(file_okay=False), help="Write samples.jsonl and items that do not print here.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; with --stream a line per piece.")
def generate(
    model: str,
    prompts: tuple[str, ...],
    given: tuple[str, ...],
    extra: tuple[str, ...],
    live: str | None,
    out: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Generate items with a trained model.

    MODEL is a run folder, or a checkpoint inside one. Without --prompt and --given, items are generated from nothing.

    VALUE is the path of a file where the stream has files (a picture). Where it has text, it is that text, or the path
    of a UTF-8 file with it. Given items stand in the order written. --prompt may be repeated, for samples of each;
    after given items it begins the target's own item, or is one more of them where the target takes no text.
    """
    if live and out is not None:
        raise click.UsageError(f"--out writes whole samples: leave out --{live}")
    options["options"] = _codec_options({name: options.pop(name) for name in SPELT_OUT}, extra)
    from colatent.generate.model import load
    from colatent.train.device import pick_device

    how = {name: options.pop(name) for name in ("precision", "compiled")}
    loaded = load(model, device=str(pick_device(options.pop("device"))), **how)
    stream, asked = questions(loaded.codecs, given=given, prompts=prompts, target=options["target"])
    codec = loaded.codecs[stream]
    check_place(codec, stream=stream, out=out, live=live)
    n, batch, options["max_new_tokens"] = options.pop("n"), options.pop("batch"), options.pop("max_new")
    options["target"] = stream
    if live:
        from colatent.cli.watching import follow

        follow(loaded, asked, watch=live == "watch", as_json=as_json, n=n, ask=options)
        return
    with gathered(Path(out), stream=stream) if out is not None else nullcontext() as aside:
        said = [question.prompt for question in asked]
        results = loaded.generate_many(said, n=n, batch=batch, progress=None if as_json else _progress, **options)
        records = records_of(asked, results, codec=codec, stream=stream, seed=options["seed"], aside=aside)
    if as_json:
        click.echo(json_text({"model": model, "samples": records}))
    else:
        files = None if out is None or prints(codec) else Path(out)
        click.echo(readable(asked, records, stream=stream, out=files))


def _codec_options(flags: dict[str, Any], extra: tuple[str, ...]) -> dict[str, Any]:
    """Options of the codec, from NAME=VALUE (JSON where it is that, else text) and from flags of their own."""
    options: dict[str, Any] = {}
    for one in extra:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE", param_hint="--option")
        try:
            options[name] = parse_json(value)
        except ValueError:
            options[name] = value
    said = {name: value for name, value in flags.items() if value not in (None, ())}
    if twice := sorted(options.keys() & said.keys()):
        raise click.UsageError(f"--option {twice[0]}=... and --{twice[0].replace('_', '-')} say the same thing")
    return options | said


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and done < total:
        click.echo(f"{done}/{total} samples", err=True)
