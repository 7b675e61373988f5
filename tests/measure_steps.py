"""What fewer steps cost: `python tests/measure_steps.py RUN --out FOLDER`, for any run that has a task.

A task judges the run's model once for each way of solving the flow, and once with 256 steps of the best solver. It
asks the same questions with the same noise every time, so what is generated can be compared latent by latent. The error
is the root of the mean squared difference to the many steps over the first block of every item: a later block begins
where the ones before it ended, and a letter that fell otherwise there is no error of the solver. It stands beside the
task's own figures in FOLDER/steps.json, and in one table and one picture. Whatever is not varied is as the run's config
says.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from colatent.checkpoint.resolve import run_of
from colatent.checkpoint.run import CONFIG
from colatent.config import RunConfig, validate
from colatent.config import load as load_config
from colatent.config.load import overridden
from colatent.config.sampling import SampleConfig
from colatent.errors import UserError
from colatent.evaluate.tasks import Progress, Task, Verdict, build_tasks
from colatent.flow.solvers import SOLVERS
from colatent.generate.model import Model, load
from colatent.generate.requests import Result
from colatent.plugins import load_plugins
from colatent_text.datasets import UnicodeNamesConfig
from colatent_text.demo_metrics import score_names
from colatent_text.names import SEPARATOR, split_names, vocabulary

PASSES = {"midpoint": 2, "heun": 2}
"""Network passes of a solver's step, where they are not one."""
Row = dict[str, Any]
"""What is varied by name; `errors` by stream; `figures` of the task; `seconds`."""


class Names:
    """Open-ended text, as a task: a run that was trained on Unicode names goes on from four of them."""

    def __init__(self, config: RunConfig, count: int) -> None:
        sources = config.data.sources.values()
        (settings,) = (one.config for one in sources if one.dataset == "unicode-names")
        self.config, self.count = validate(UnicodeNamesConfig, settings, where="names"), count

    def judge(self, model: Model, *, run: Any, seed: int, progress: Progress) -> Verdict:
        """The share of words that stand in some Unicode name; see `colatent.evaluate.tasks.Task.judge`."""
        train, heldout = split_names(self.config.seed, self.config.heldout)
        rng = np.random.default_rng(seed)
        prompts = [SEPARATOR.join([*rng.choice(train, size=4), ""]).rstrip() for _ in range(self.count)]
        texts = [some[0].item for some in model.generate_many(prompts, target="text", max_new_tokens=24, seed=seed)]
        known = vocabulary((*train, *heldout))
        scores = score_names(texts, train=train, heldout=heldout, vocabulary=known, whole=True)
        return Verdict(figures={"known_words": scores.known_words})


class Recorder(Model):
    """A model that keeps what it generates, in the order in which it was asked."""

    def __init__(self, model: Model, sample: SampleConfig) -> None:
        super().__init__(prior=model.prior, codecs=model.codecs, sample=sample, window=model.window)
        self.made: list[tuple[str, Result]] = []

    def generate_many(self, prompts: Any, **ask: Any) -> list[list[Result]]:
        """As of any model."""
        found = super().generate_many(prompts, **ask)
        self.made += [(ask["target"], result) for some in found for result in some]
        return found

    def first_blocks(self) -> list[tuple[str, Any]]:
        """Streams and the latents of what was generated, (K, C)."""
        blocks = {name: codec.latent_spec().block for name, codec in self.codecs.items()}
        return [(stream, result.latents_LC[: blocks[stream]].double()) for stream, result in self.made]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A judgement: the task's figures, the first blocks by stream, and how long it took."""

    figures: dict[str, float]
    blocks: list[tuple[str, Any]]
    seconds: float

    def errors(self, truth: Measured) -> dict[str, float]:
        """By stream, see the head of this file."""
        squares: dict[str, list[float]] = defaultdict(list)
        for (stream, mine_KC), (_, other_KC) in zip(self.blocks, truth.blocks, strict=True):
            if mine_KC.shape == other_KC.shape:  # an item may end in its first block
                squares[stream].append(float((mine_KC - other_KC).square().mean()))
        return {stream: float(np.mean(some)) ** 0.5 for stream, some in squares.items()}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model before its task."""

    model: Model
    task: Task
    seed: int
    rows: list[Row] = field(default_factory=list)

    def judged(self, settings: dict[str, Any]) -> Measured:
        """With these settings of `sample`, for all streams."""
        sample = self.model.sample
        streams = {name: own.model_copy(update=settings) for name, own in sample.streams.items()}
        recorder = Recorder(self.model, sample.model_copy(update={**settings, "streams": streams}))
        began = time.monotonic()
        verdict = self.task.judge(recorder, run=None, seed=self.seed, progress=lambda *_: None)
        figures = {name: verdict.figures[name] for name in verdict.goals or verdict.figures}
        return Measured(figures=figures, blocks=recorder.first_blocks(), seconds=time.monotonic() - began)

    def measure(self, ways: Sequence[dict[str, Any]], *, reference: int, say: Callable[[Row], None]) -> list[Row]:
        """A row for the reference and for each way."""
        exact = {"solver": "ab2", "steps": reference, "shift": 1.0}
        truth = self.judged(exact)
        rows: list[Row] = [{**exact, "errors": {}, "figures": truth.figures, "seconds": truth.seconds}]
        say(rows[0])
        for way in ways:
            found = self.judged(way)
            rows.append({**way, "errors": found.errors(truth), "figures": found.figures, "seconds": found.seconds})
            say(rows[-1])
        return rows


def say(row: Row) -> None:
    """A row as a line."""
    told = [f"{name} {value}" for name, value in row.items() if name not in ("errors", "figures", "seconds")]
    numbers = [f"{name} {value:.3f}" for name, value in {**row["errors"], **row["figures"]}.items()]
    print("  ".join([*told, *numbers, f"{row['seconds']:.0f} s"]), flush=True)


def passes(row: Row) -> int:
    """Network passes that a block's steps take."""
    return int(row["steps"] * PASSES.get(row["solver"], 1))


def picture(rows: Sequence[Row], path: Path) -> None:
    """Error and figures against network passes, a line for each solver and shift."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    exact, *rest = rows
    panels = [("errors", name) for name in rest[0]["errors"]] + [("figures", name) for name in exact["figures"]]
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    for axis, (kind, name) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for row in rest:
            lines[f"{row['solver']}, shift {row['shift']:g}"].append((passes(row), row[kind][name]))
        for label, points in lines.items():
            axis.plot(*zip(*sorted(points), strict=True), marker=".", label=label)
        axis.set_xscale("log", base=2)
        axis.set_xlabel("network passes a block")
        if kind == "errors":
            axis.set_yscale("log")
            axis.set_title(f"{name}: error against {passes(exact)} passes")
        else:
            axis.axhline(exact["figures"][name], color="grey", linewidth=0.8, linestyle="--")
            axis.set_title(name)
    axis.legend(fontsize="small")
    figure.savefig(path)


def bench_of(run: str, overrides: Sequence[str], *, names: int) -> Bench:
    """The run's model with the first task of its config, or with so many lists of names."""
    found, plugins = run_of(run), load_plugins()
    if found is None:
        raise UserError("lies in no run", where=run, do="pass a run folder")
    config = load_config(found.path / CONFIG).config
    model = load(run, plugins=plugins)
    if names:
        return Bench(model=model, task=Names(config, names), seed=config.seed)
    name, settings = next(iter(config.tasks.items()))
    task = build_tasks({name: overridden(settings, overrides)}, plugins)[name]
    return Bench(model=model, task=task, seed=config.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("task", nargs="*", metavar="KEY=VALUE", help="settings of its task, such as samples=50")
    parser.add_argument("--names", type=int, default=0, help="in place of the task: so many lists of Unicode names")
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS))
    parser.add_argument("--shifts", nargs="+", type=float, default=[0.5, 1.0, 2.0])
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--guidance", nargs="+", type=float, help="scales, in place of the run's own")
    parser.add_argument("--intervals", nargs="+", help="of guidance, such as 0,1 0.3,1")
    parser.add_argument("--rescale", nargs="+", type=float, help="of guidance")
    parser.add_argument("--reference", type=int, default=256, help="steps that the others are compared with")
    parser.add_argument("--out", type=Path, required=True, help="folder for steps.json and steps.png")
    given = parser.parse_args()
    varied = {
        "solver": given.solvers,
        "shift": given.shifts,
        "steps": given.steps,
        "guidance": given.guidance,
        "guidance_interval": given.intervals and [tuple(map(float, one.split(","))) for one in given.intervals],
        "guidance_rescale": given.rescale,
    }
    named = {name: values for name, values in varied.items() if values}
    ways = [dict(zip(named, values, strict=True)) for values in product(*named.values())]
    rows = bench_of(given.run, given.task, names=given.names).measure(ways, reference=given.reference, say=say)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "steps.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    picture(rows, given.out / "steps.png")


if __name__ == "__main__":
    main()
