"""`colatent eval diagnose`: where a finished model is weak, as a table, as JSON and as figures.

A model in a run folder brings its own held-out data; any other needs `--data`. The output folder's diagnosis.json is
written last: where it is new, so are the figures beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colatent.cli.heldout import data_config, load_with_data
from colatent.cli.places import Place
from colatent.jsons import json_text

if TYPE_CHECKING:
    from colatent.config.schema import RunConfig
    from colatent.evaluate.diagnosis import Diagnosis
    from colatent.evaluate.findings import Finding

DOCUMENT = "diagnosis.json"


@click.command(epilog="Example: colatent eval diagnose runs/demo --n 32 --json")
@click.argument("model", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", type=click.Path(dir_okay=False), help="Config whose data are used; default: the run's own.")
@click.option("--n", default=32, show_default=True, type=click.IntRange(1), help="Held-out samples of each source.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of samples and noise.")
@click.option("--out", type=Place(file_okay=False), help="Folder to write; default: diagnosis in the run folder.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or auto.")
@click.option("--json", "as_json", is_flag=True, help="The JSON document on stdout instead of the table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def diagnose(
    model: str,
    overrides: tuple[str, ...],
    data: str | None,
    n: int,
    seed: int,
    out: str | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say where a finished model is weak: latents, decoder, prior.

    MODEL is a run folder or a checkpoint. KEY=VALUE overrides settings of the config that names the held-out data, for
    example data.path=FILE where it has moved.
    """
    from colatent.checkpoint.resolve import run_of
    from colatent.checkpoint.storage import make_folder

    run, config = run_of(model), data_config(model, data, overrides)
    folder = make_folder(Path(out) if out else Path("diagnosis") if run is None else run.path / "diagnosis")

    from colatent.evaluate.findings import findings

    found = _measure(model, config, n=n, seed=seed, device=device, quiet=quiet)
    noted = findings(found)
    document = _document(found, noted, model=model, n=n)
    paths = _write(folder, found, document)
    if as_json:
        from colatent.cli.show import print_json

        print_json(document)
    else:
        _print(found, noted, paths)


def _measure(model: str, config: RunConfig, *, n: int, seed: int, device: str, quiet: bool) -> Diagnosis:
    from colatent.evaluate.diagnosis import diagnose
    from colatent.evaluate.heldout import hold_out
    from colatent.train.device import pick_device

    where = pick_device(device)
    loaded, data = load_with_data(model, config, n=n, seed=seed, device=str(where))

    def say(line: str) -> None:
        if not quiet:
            click.echo(f"... {line}", err=True)

    return diagnose(loaded, hold_out(data, seed=seed), device=where, say=say)


def _document(found: Diagnosis, noted: list[Finding], *, model: str, n: int) -> dict[str, Any]:
    return {"model": model, "n": n, **found.to_json(), "findings": [vars(one) for one in noted]}


def _write(folder: Path, found: Diagnosis, document: dict[str, Any]) -> list[Path]:
    """Figures first, the document last; everything is drawn before the first file is replaced."""
    from colatent.checkpoint.storage import atomic_write_bytes, atomic_write_text
    from colatent.evaluate.figures import draw_figures

    drawn = draw_figures(found)
    for name, data in drawn.items():
        atomic_write_bytes(folder / name, data)
    atomic_write_text(folder / DOCUMENT, json_text(document, indent=1) + "\n")
    return [folder / DOCUMENT, *(folder / name for name in drawn)]


def _print(found: Diagnosis, noted: list[Finding], paths: list[Path]) -> None:
    from colatent.cli.show import print_table

    for name, one in found.streams.items():
        click.echo(f"\n{name}: {one.items} held-out items, {one.latents.latents} latents")
        print_table([("  ", *row) for row in _rows(one)])
    click.echo("\nfindings" if noted else "\nno findings: nothing is past its threshold")
    for finding in noted:
        click.echo(f"- {finding.stream}: {finding.text}; {finding.do}")
    click.echo(f"\nwritten: {', '.join(map(str, paths))}")


def _rows(one: Any) -> list[tuple[str, str]]:
    """What a stream's table says."""
    latents, rows = one.latents, []
    snr = "" if latents.overall_log_snr is None else f", log SNR {latents.overall_log_snr:.2f}"
    channels = len(latents.mean)
    rows.append(
        (
            "latents",
            f"std {latents.overall_std:.2f}{snr}, {latents.active} of {channels} channels active, "
            f"{latents.effective:.1f} effective",
        )
    )
    if one.reconstruction is not None:
        rows.append(("units right from true latents", f"{one.reconstruction.share:.2%} of {one.reconstruction.units}"))
    if one.robustness is not None:
        rows.append(("with noise of std", _curve(one.robustness.noise, one.robustness.share, "{:.1%}")))
    if one.flow is not None:
        rows += _flow_rows(one.flow)
    if one.denoising is not None:
        rows += _denoising_rows(one.denoising)
    return rows


def _flow_rows(flow: Any) -> list[tuple[str, str]]:
    names = {"loss": flow.loss, "gaussian": flow.gaussian, "oracle": flow.oracle}
    if flow.alone is not None:
        names |= {"after history": flow.after, "history hidden": flow.alone}
    return [(f"flow loss at t: {name}", _curve(flow.t, curve, "{:.3f}", every=2)) for name, curve in names.items()]


def _denoising_rows(split: Any) -> list[tuple[str, str]]:
    rows = [("units right when denoised from t", _curve(split.t, split.denoised, "{:.1%}", every=2))]
    errors = (
        "none" if split.prior_share is None else f"prior {split.prior_share:.0%}, decoder {split.decoder_share:.0%}"
    )
    return [*rows, (f"errors from t = {split.readable_t:g}", errors)]


def _curve(at: Any, values: Any, style: str, *, every: int = 1) -> str:
    pairs = list(zip(at, values, strict=True))[::every]
    return "  ".join(f"{x:g}: {style.format(value)}" for x, value in pairs)
