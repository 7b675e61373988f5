"""`colatent generate`: items from a trained model, printed, written to files, or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click


@click.command(epilog='Example: colatent generate runs/demo --prompt "forty-one, forty-two, " --n 3 --seed 0 --json')
@click.argument("model", type=click.Path())
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Text to continue; may be repeated.")
@click.option("--target", metavar="STREAM", help="Stream to generate; that of the prompt where not given.")
@click.option("--n", default=1, show_default=True, type=click.IntRange(1), help="Samples per prompt.")
@click.option("--steps", type=click.IntRange(1), help="Solver steps per block.")
@click.option("--solver", type=click.Choice(["euler", "midpoint", "heun"]), help="Solver of the flow.")
@click.option("--guidance", type=click.FloatRange(0.0), help="Scale of classifier-free guidance; 1 is off.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Sample i depends on (seed, i).")
@click.option("--max-new", type=click.IntRange(0, 2**31 - 1), help="Budget in tokens (or the target's units).")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1), help="Samples generated together.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--out", type=click.Path(file_okay=False), help="Write samples.jsonl into this folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def generate(model: str, prompts: tuple[str, ...], out: str | None, as_json: bool, **options: Any) -> None:
    """Generate items with a trained model.

    MODEL is a run folder, or a checkpoint inside one. Without --prompt, items are generated from nothing.
    """
    from colatent.generate.model import load
    from colatent.train.prepare import pick_device

    loaded = load(model, device=str(pick_device(options.pop("device"))))
    if out is not None:  # before the work: a place that cannot be written must not cost the samples
        Path(out).mkdir(parents=True, exist_ok=True)
    asked = prompts or ("",)
    options["max_new_tokens"] = options.pop("max_new")
    seed, stream = options["seed"], options["target"] or loaded.promptable()
    results = loaded.generate_many(asked, progress=None if as_json else _progress, **options)
    records = [
        {"prompt": prompt, "sample": number, "seed": seed, stream: str(result.item), **result.details}
        for prompt, some in zip(asked, results, strict=True)
        for number, result in enumerate(some)
    ]
    if out is not None:
        _write(Path(out), records)
    document = {"model": model, "samples": records}
    click.echo(json.dumps(document, ensure_ascii=False) if as_json else _readable(records, stream))


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and done < total:
        click.echo(f"{done}/{total} samples", err=True)


def _readable(records: list[dict[str, Any]], stream: str) -> str:
    """Prompt and continuation of each sample, a line between samples."""
    return "\n---\n".join(record["prompt"] + record[stream] for record in records)


def _write(folder: Path, records: list[dict[str, Any]]) -> None:
    from colatent.checkpoint.storage import atomic_write_text

    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    atomic_write_text(folder / "samples.jsonl", lines)
