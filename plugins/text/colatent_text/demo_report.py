"""The demo's report: the figures as lines for the terminal, and the same as Markdown and JSON in the run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.1f} %"


def flow_table(metrics: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Held-out flow loss before and after training, by source and t, from a run's metrics."""
    evaluations = [record["eval"] for record in metrics if record.get("stage") == "prior" and "eval" in record]
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for key, before in evaluations[0].items():
        source, _, t = key.split("/")
        table.setdefault(source, {})[t.removeprefix("t=")] = (before, evaluations[-1][key])
    return table


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """The report as text."""
    counting, names = report["counting"], report["names"]
    model, baseline = names["model"], names["baseline"]
    residues = counting["by_residue"]
    rows = [
        ("", "this run", "5-gram"),
        *(
            (f"{kind}: tokens reconstructed (held out)", percent(share), "")
            for kind, share in report["reconstruction"].items()
        ),
        ("counting: next 32 bytes right, trained range", percent(counting["trained"]), percent(counting["baseline"])),
        ("counting: the same in held-out stretches", percent(counting["heldout"]), ""),
        ("counting: the same after three windows of prompt", percent(counting["three_windows"]), ""),
        ("counting: worst and best prompt length mod block", f"{percent(min(residues))}, {percent(max(residues))}", ""),
        ("names: words that are names' words", percent(model["known_words"]), percent(baseline["known_words"])),
        ("names: names that are real", percent(model["real"]), percent(baseline["real"])),
        ("names: of the real ones, held out", percent(model["real_heldout"]), percent(baseline["real_heldout"])),
        ("names: distinct samples", percent(model["distinct"]), percent(baseline["distinct"])),
    ]
    return [*_columns(rows), "", *_flow_lines(report["flow_loss"]), "", *_sample_lines(report["samples"])]


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _flow_lines(table: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    times = list(next(iter(table.values())))
    rows = [("flow loss at t =", *times)]
    for source, entries in table.items():
        rows.append((f"{source} before", *(f"{entries[t][0]:.3f}" for t in times)))
        rows.append((f"{source} after", *(f"{entries[t][1]:.3f}" for t in times)))
    return _columns(rows)


def _sample_lines(samples: Sequence[Mapping[str, str]]) -> list[str]:
    lines = ["ten samples (prompt ⇒ continuation):"]
    for sample in samples:
        shown = sample["prompt"][-60:].replace("\n", "⏎")
        lines.append(f"  …{shown} ⇒ {sample['text'].replace(chr(10), '⏎')}")
    return lines


def as_markdown(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    facts = f"seed {report['seed']}, {report['seconds']:.0f} s, guidance {report['guidance']}, {report['steps']} steps"
    body = "\n".join(report_lines(report))
    return f"# Demo\n\n{facts}\n\n![curves](curves.png)\n\n```\n{body}\n```\n"
