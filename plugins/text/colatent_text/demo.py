"""`colatent demo`: the main job from nothing, on real text that any Python carries.

Trains both stages, scores the result on held-out material beside a 5-gram baseline, and prints where everything lies. A
second call finds the finished run and generates at once; a broken-off one goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from colatent.cli.places import Place

REPORT = "report.json"


@click.command(epilog="Example: colatent demo --out runs/demo")
@click.option("--out", default="runs/demo", show_default=True, type=Place(file_okay=False), help="Run folder.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the demo's config.")
@click.option("--all", "everything", is_flag=True, help="Then train and judge what other plugins demonstrate.")
def demo(out: str, overrides: tuple[str, ...], everything: bool) -> None:
    """Train on Unicode names and counting, and write text.

    Takes minutes on two CPU cores, and nothing but what Python brings. A second call generates at once. With --all, the
    demonstrations of other plugins follow, each in a folder of its own beside DIRECTORY.
    """
    run_demo(Path(out), overrides)
    if everything:
        run_others(Path(out))


def config_path() -> Path:
    """The demo's config, as it is installed."""
    return Path(str(files("colatent_text") / "demo.yaml"))


def run_demo(out: Path, overrides: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """Train (or find) the demo's run in `out`, score it, print the report; returns it."""
    from colatent.checkpoint.run import RunFolder, is_run_folder

    _check_place(out, overrides)
    finished = is_run_folder(out) and RunFolder.open(out).state().status == "finished"
    if finished and (out / REPORT).exists():
        return _again(out)
    began = time.monotonic()
    if not finished:
        _train(out, overrides)
    report = _score(out, began)
    click.echo("\n".join(["", *_report_lines(report), "", *_places(out)]))
    return report


def run_others(out: Path) -> None:
    """Train (or find) and judge the runs that tasks of any plugin bring, beside `out`; print where the reports lie."""
    from colatent.checkpoint.run import is_run_folder
    from colatent.cli.judging import train_and_judge
    from colatent.config import load
    from colatent.plugins import load_plugins

    for name, config in load_plugins().demos().items():
        place = out.parent / f"{out.resolve().name}-{name}"
        click.echo(f"\n{'going on with' if is_run_folder(place) else 'training'} the demonstration {name!r} in {place}")
        train_and_judge(load(config, [f"out={place}"]), resume=is_run_folder(place))
        click.echo(f"report  {place / 'report.html'}")


def _check_place(out: Path, overrides: tuple[str, ...]) -> None:
    """A folder that is there must hold a demo, and what it was trained with cannot be changed any more."""
    from colatent.checkpoint.run import RunFolder, is_run_folder
    from colatent.config import load
    from colatent.errors import UserError

    if not is_run_folder(out):
        return
    run = RunFolder.open(out)
    if (name := load(out / "config.yaml").config.name) != "demo":
        raise UserError(f"holds the run {name!r}, not a demo", where=str(out), do="choose another --out")
    if overrides and run.state().status == "finished":
        raise UserError("holds a finished demo, --set would have no effect", where=str(out), do="choose another --out")


def _train(out: Path, overrides: tuple[str, ...]) -> None:
    from colatent.checkpoint.run import is_run_folder
    from colatent.config import load
    from colatent.train.run import train

    resume = is_run_folder(out)
    click.echo(
        f"{'going on with' if resume else 'training'} the demo in {out}: a text VAE, then a prior over its latents"
    )
    train(load(config_path(), [*overrides, f"out={out}"]), resume=resume)


def _score(out: Path, began: float) -> dict[str, Any]:
    from colatent.checkpoint.run import RunFolder
    from colatent.checkpoint.storage import atomic_write_text
    from colatent.config import load as load_config
    from colatent.evaluate.curves import draw_curves
    from colatent.generate.model import load
    from colatent_text import demo_report, demo_score
    from colatent_text.codec import TextCodec

    model, run = load(out), RunFolder.open(out)
    codec = model.codecs["text"]
    assert isinstance(codec, TextCodec)
    click.echo(f"scoring {demo_score.SAMPLES} samples of each kind")
    material = demo_score.Material.of(load_config(out / "config.yaml").config)
    baseline = demo_score.fit_baseline(material)
    names, name_samples = demo_score.names_score(model, baseline, material)
    counting, counting_samples = demo_score.counting_score(model, baseline, material)
    for name, samples in (("names", name_samples), ("counting", counting_samples)):
        lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        atomic_write_text(run.samples / f"{name}.jsonl", lines)
    report = {
        "seed": material.seed,
        "block": codec.config.block,
        "steps": model.sample.steps,
        "guidance": model.sample.guidance,
        "reconstruction": demo_score.reconstruction(codec, material, length=codec.config.window),
        "flow_loss": demo_report.flow_table(run.metrics()),
        "counting": counting,
        "names": names,
        "samples": name_samples[:5] + counting_samples[:5],
        "seconds": time.monotonic() - began,
    }
    draw_curves(out)
    atomic_write_text(out / "report.md", demo_report.as_markdown(report))
    atomic_write_text(out / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return report


def _again(out: Path) -> Mapping[str, Any]:
    """A run that is there: its report, and fresh samples at once."""
    from colatent.generate.model import load

    report: Mapping[str, Any] = json.loads((out / REPORT).read_text(encoding="utf-8"))
    click.echo(f"found the finished run in {out}; remove the folder to train again\n")
    click.echo("\n".join([*_report_lines(report), "", "new samples:"]))
    prompts = ["forty-one, forty-two, forty-three,", "LATIN SMALL LETTER A WITH ACUTE; GREEK SMALL LETTER ALPHA;"]
    seed = time.time_ns() % 2**31
    model = load(out)
    for prompt, (result,) in zip(prompts, model.generate_many(prompts, seed=seed, max_new_tokens=32), strict=True):
        click.echo(f"  {prompt.strip()!r} ⇒ {result.item!r}")
    click.echo("\n" + "\n".join(_places(out)))
    return report


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    from colatent_text.demo_report import report_lines

    return report_lines(report)


def _places(out: Path) -> list[str]:
    return [
        f"run     {out}",
        f"curves  {out / 'curves.png'}",
        f"report  {out / 'report.md'}",
        f'try     colatent generate {out} --prompt "forty-one, forty-two," --n 3',
    ]
