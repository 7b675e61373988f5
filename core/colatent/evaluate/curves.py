"""The curves of a run as one picture: losses by stage, and scores on held-out samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from colatent.checkpoint.run import RunFolder
from colatent.checkpoint.storage import atomic_write_bytes
from colatent.evaluate.chart import FEW, smooth
from colatent.evaluate.history import Series, by_stage

MOST = 16
"""Curves that one panel can hold."""
WIDTH = {1: 9.0, 2: 14.0}
"""Inches of the picture by its number of columns."""
SKIPPED = {"lr", "grad_norm", "tokens_per_second", "loss"}


def read_series(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Series, Series]]:
    """Training losses and held-out scores by stage: name -> [(step, value)]."""
    return {
        stage: ({name: points for name, points in found.logged.items() if name not in SKIPPED}, found.scores)
        for stage, found in by_stage(records).items()
    }


def draw_curves(folder: Path | str) -> Path:
    """Draw `curves.png` into a run folder; returns its path."""
    run = RunFolder.open(folder)
    path = run.path / "curves.png"
    atomic_write_bytes(path, curves(run, columns=2))
    return path


def curves(run: RunFolder, *, columns: int) -> bytes:
    """The curves of a run as a PNG: training losses and held-out scores of each stage, side by side or one below the
    other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: list[tuple[Series, str, bool]] = []
    for stage, (losses, scores) in read_series(run.metrics()).items():
        few, level = at_one_level(scores)
        panels += [(losses, f"{stage}: training loss", True), (few, f"{stage}: held out{level}", False)]
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(WIDTH[columns], 3.8 * rows), layout="constrained", dpi=110)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (series, title, log) in zip(axes, panels, strict=False):
        _panel(axis, series, title=title, log=log)
    out = BytesIO()
    canvas.print_png(out)
    return out.getvalue()


def at_one_level(scores: Series) -> tuple[Series, str]:
    """Of losses at several noise levels those at the middle one, and what to say of that; where there are few curves,
    all of them and nothing."""
    levels = sorted({t for name in scores for _, mark, t in [name.rpartition("/t=")] if mark})
    if len(scores) <= MOST or not levels:
        return scores, ""
    level = levels[len(levels) // 2]
    kept = {name: points for name, points in scores.items() if "/t=" not in name or name.endswith(f"/t={level}")}
    return kept, f", t = {level} of {', '.join(levels)}"


def _panel(axis: Any, series: Series, *, title: str, log: bool) -> None:
    for name, points in series.items():
        steps, values = zip(*points, strict=True)
        few = len(points) < FEW
        (line,) = axis.plot(steps, smooth(values), label=name, linewidth=1.4, marker="o" if few else None, markersize=3)
        if not few:  # single steps, faint behind their average
            axis.plot(steps, values, color=line.get_color(), linewidth=0.7, alpha=0.3)
    axis.set_title(title)
    axis.set_xlabel("step")
    axis.set_ylabel("loss" if log else "score")
    if log and series:
        below = min(value for points in series.values() for _, value in points) <= 0
        # E log q is a loss that may be negative, which a log axis would leave out without a word.
        axis.set_yscale(*(("symlog",) if below else ("log",)), **({"linthresh": 1.0} if below else {}))
    axis.grid(alpha=0.3)
    if series:
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
