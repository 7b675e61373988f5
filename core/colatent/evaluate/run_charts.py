"""The charts of one stage: held-out losses by t, other held-out scores, training losses, and pace.

A run by itself has a chart for each source and stream with a line for each t, and one for each loss with a line for
each stream. Runs beside each other have a chart for each quantity with a line for each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from colatent.checkpoint.metrics import SKIPPED
from colatent.evaluate.curves import at_one_level
from colatent.evaluate.history import MARK, Points, Series, StageHistory, levels, others
from colatent.evaluate.page import Chart, Charts, Line, Section

TOTAL = "loss"
RATE = "lr"
PACE = {
    RATE: "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "data units per second",
    SKIPPED: "skipped steps",
}
BY_T = "With the averaged weights, on held-out samples. t = 0 is clean, t = 1 is noise."
AVERAGED = "Bold: running average. Faint: single steps."


def stage_sections(runs: Mapping[str, StageHistory | None]) -> list[Section]:
    """What there is to see of a stage; `runs` that do not have it have None in its place."""
    found = {name: stage for name, stage in runs.items() if stage is not None}
    if len(runs) > 1:
        return _compared(found)
    return [section for stage in found.values() for section in _alone(stage)]


def _alone(stage: StageHistory) -> list[Section]:
    by_t = levels(stage.scores)
    return [
        *_section("Held-out loss at fixed t", [_by_t(of, lines) for of, lines in by_t.items()], caption=BY_T),
        *_section("Held-out scores", list(_scores(stage))),
        *_section("Training loss", list(_losses(stage)), caption=AVERAGED),
        *_section("Pace", list(_pace(stage))),
    ]


def _section(title: str, charts: Sequence[Chart], *, caption: str = "") -> list[Section]:
    return [Section(title=title, parts=[Charts(charts=charts, caption=caption)])] if charts else []


def _by_t(of: str, by_t: dict[float, Points]) -> Chart:
    lines = [Line(name=f"t = {t:g}", points=points) for t, points in by_t.items()]
    return Chart(title=of, lines=lines, log=True, ordered=True)


def _scores(stage: StageHistory) -> Iterator[Chart]:
    for title, series in _by_quantity(others(stage.scores)):
        yield Chart(title=title, lines=_lines(series))


def _lines(series: Series) -> list[Line]:
    return [Line(name=name, points=points) for name, points in series.items()]


def _by_quantity(series: Series) -> Iterator[tuple[str, Series]]:
    """Series `STREAM/QUANTITY` as one chart per quantity with a line per stream."""
    charts: dict[str, Series] = {}
    for name, points in series.items():
        stream, _, quantity = name.rpartition("/")
        charts.setdefault(quantity.replace("_", " "), {})[stream] = points
    yield from charts.items()


def _losses(stage: StageHistory) -> Iterator[Chart]:
    """The loss that is minimised, then its parts, which alone have a stream in their name."""
    if TOTAL in stage.logged:
        yield _logged(TOTAL, {"": stage.logged[TOTAL]})
    for quantity, series in _by_quantity({name: points for name, points in stage.logged.items() if "/" in name}):
        yield _logged(quantity, series)


def _pace(stage: StageHistory) -> Iterator[Chart]:
    for name, points in stage.logged.items():
        if "/" not in name and name != TOTAL:
            yield _logged(name, {"": points})


def _logged(name: str, series: Series) -> Chart:
    """A chart of what is logged as training goes on; a learning rate or a count is no measurement, and needs no
    average."""
    title, noisy = PACE.get(name, name.replace("_", " ")), name not in (RATE, SKIPPED)
    return Chart(title=title, lines=_lines(series), log=noisy, smoothed=noisy)


def _compared(stages: dict[str, StageHistory]) -> list[Section]:
    scores, logged = ({run: getattr(stage, what) for run, stage in stages.items()} for what in ("scores", "logged"))
    kept, said = at_one_level({name: [] for series in scores.values() for name in series})
    held_out = [
        Chart(title=name.replace(MARK, ", t = "), lines=_lines(_across(name, scores)), log=MARK in name)
        for name in kept
    ]
    every = dict.fromkeys(name for series in logged.values() for name in series)
    losses = [name for name in every if name == TOTAL or "/" in name]
    pace = [name for name in every if name not in losses]
    return [
        *_section(f"Held out{said}", held_out),
        *_section("Held-out loss over t", list(_profiles(stages)), caption="At the last evaluation of each run."),
        *_section("Training loss", [_logged(name, _across(name, logged)) for name in losses], caption=AVERAGED),
        *_section("Pace", [_logged(name, _across(name, logged)) for name in pace]),
    ]


def _across(name: str, runs: dict[str, Series]) -> Series:
    return {run: series[name] for run, series in runs.items() if name in series}


def _profiles(stages: dict[str, StageHistory]) -> Iterator[Chart]:
    """Loss over t: a chart for each source and stream."""
    found = {run: levels(stage.scores) for run, stage in stages.items()}
    for of in dict.fromkeys(of for by_t in found.values() for of in by_t):
        lines = [
            Line(name=run, points=[(t, points[-1][1]) for t, points in by_t[of].items()])
            for run, by_t in found.items()
            if of in by_t
        ]
        yield Chart(title=of, lines=lines, x="t", log=True)
