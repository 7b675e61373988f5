"""`colatent import-cola` and `colatent export-cola`."""

from __future__ import annotations

from pathlib import Path

import click

from colatent.cli.places import Place


@click.command(
    "import-cola",
    epilog='Example: colatent import-cola Cola-DLM models/cola && colatent generate models/cola --prompt "The sky is"',
)
@click.argument("source", metavar="DIR", type=click.Path(file_okay=False))
@click.argument("out", type=Place(file_okay=False))
@click.option("--end", metavar="TOKEN", help="Token or id that ends a text.")
@click.option("--pad", metavar="TOKEN", help="Token or id that pads a prompt to whole blocks.")
@click.option(
    "--window",
    default=2048,
    show_default=True,
    type=click.IntRange(1, 2**31 - 1),
    help="Latents that are looked back at.",
)
def import_(source: str, out: str, end: str | None, pad: str | None, window: int) -> None:
    """Read published Cola DLM weights from DIR into the new folder OUT.

    DIR holds cola_dit/, cola_vae/ and tokenizer.json; without the last, prompts are token ids ("104 227 2"). OUT is a
    model for every other command, and holds a train.yaml from which training goes on.
    """
    from colatent_text.cola.importing import Special, import_cola

    import_cola(Path(source), Path(out), special=Special(end=end, pad=pad), window=window)
    click.echo(f"model {out}\ntry: colatent generate {out}\ntrain on: colatent train {out}/train.yaml data.path=FILE")


@click.command("export-cola", epilog="Example: colatent export-cola models/cola exported")
@click.argument("model", type=click.Path())
@click.argument("out", metavar="DIR", type=Place(file_okay=False))
@click.option("--raw", is_flag=True, help="The last weights, not their average.")
def export(model: str, out: str, raw: bool) -> None:
    """Write MODEL into the new folder DIR, in the published layout of Cola DLM.

    An imported model comes out with the bytes it came in with. A model that the layout cannot describe is refused.
    """
    from colatent_text.cola.exporting import export_cola

    export_cola(model, Path(out), ema=not raw)
    click.echo(f"wrote {out}")
