"""The page of a run, alone or beside others: made from what its folder holds, whatever state it is in.

With others, a chart has one line for each run, and so shows one quantity; alone, it has one for each stream or each t.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from colatent.checkpoint.run import RunFolder
from colatent.evaluate.html import page
from colatent.evaluate.page import Prose, Section, Table, Verbatim
from colatent.evaluate.report import rows, stored
from colatent.evaluate.run_charts import stage_sections
from colatent.evaluate.run_facts import RUNNING, RunFacts
from colatent.evaluate.run_findings import RunFinding, run_findings
from colatent.evaluate.run_samples import samples
from colatent.evaluate.run_settings import differences
from colatent.evaluate.run_words import moment, names, size, span

PAGE = "run.html"

Chapter = tuple[str, Sequence[Section]]


def run_page(runs: Sequence[RunFacts]) -> str:
    """The page of the first run, with the others beside it."""
    first = runs[0]
    chapters: list[Chapter] = [("Findings", [_findings(runs)]), ("Facts", [_facts(runs)])]
    if len(runs) > 1:
        chapters.append(("What differs", [_differences(runs)]))
    stages = dict.fromkeys(stage for run in runs for stage in run.history.stages)
    for stage in stages:
        there = {name: run.history.stages.get(stage) for name, run in zip(names(runs), runs, strict=True)}
        chapters.append((f"Stage {stage}", stage_sections(there)))
    shown = samples(first.path / "samples")
    if shown is not None:
        chapters.append(("Samples", [Section(title="", parts=[shown])]))
    chapters += _judged(first)
    text = RunFolder.open(first.path).config_text()
    chapters.append(("Config", [Section(title="", parts=[Verbatim(title="config.yaml", text=text)])]))
    beside = "" if len(runs) == 1 else f" beside {', '.join(names(runs)[1:])}"
    return page(f"{names(runs)[0]}{beside}", lead=_lead(first), chapters=chapters)


def run_document(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """What the page says, for programs."""
    found = {name: run_findings(run) for name, run in zip(names(runs), runs, strict=True)}
    return {
        "runs": [as_document(run) for run in runs],
        "findings": {name: [vars(one) for one in some] for name, some in found.items()},
        "differences": {key: list(row) for key, row in differences([run.settings for run in runs]).items()},
    }


def finding_lines(document: Mapping[str, Any]) -> list[str]:
    """The findings of a document as lines of text."""
    lines = []
    for name, found in document["findings"].items():
        for one in found:
            where = "" if one["where"] == name else f"{one['where']}: "
            lines.append(f"- {name}: {where}{one['text']}; {one['do']}")
    return lines


def as_document(run: RunFacts) -> dict[str, Any]:
    """One run."""
    return {
        "run": str(run.path),
        "state": run.state,
        "stages": {name: vars(stage) for name, stage in run.stages.items()},
        "loss": run.loss(),
        "changed": run.changed,
        "size": run.size,
        "last": last_figures(run),
    }


def last_figures(run: RunFacts) -> dict[str, dict[str, float]]:
    """The last value of everything that was logged, by stage."""
    return {
        stage: {name: points[-1][1] for series in (history.logged, history.scores) for name, points in series.items()}
        for stage, history in run.history.stages.items()
    }


def _lead(run: RunFacts) -> list[tuple[str, str]]:
    stages = [(f"stage {name}", str(stage)) for name, stage in run.stages.items()]
    return [("state", run.state), *stages, ("last change", moment(run.changed))]


def _findings(runs: Sequence[RunFacts]) -> Section:
    found = [(name, one) for name, run in zip(names(runs), runs, strict=True) for one in run_findings(run)]
    if not found:
        return Section(title="", parts=[Prose(text="Nothing is past its threshold.")])
    head = ("", "what was seen", "what to try")
    several = len(runs) > 1
    return Section(title="", parts=[Table(head=head, rows=[_row(name, one, several=several) for name, one in found])])


def _row(name: str, one: RunFinding, *, several: bool) -> tuple[str, str, str]:
    return (f"{name}: {one.where}" if several and one.where != name else one.where, one.text, one.do)


def _facts(runs: Sequence[RunFacts]) -> Section:
    columns = [_facts_of(run) for run in runs]
    keys = dict.fromkeys(key for column in columns for key in column)
    table = [(key, *(column.get(key, "") for column in columns)) for key in keys]
    head = ("", *names(runs)) if len(runs) > 1 else ("", "")
    return Section(title="", parts=[Table(head=head, rows=table)])


def _facts_of(run: RunFacts) -> dict[str, str]:
    facts = {"state": run.state}
    facts |= {f"stage {name}": f"{stage} steps" for name, stage in run.stages.items()}
    if run.began is not None:
        last = time.time() if run.state == RUNNING else run.changed
        facts["last begun"] = f"{moment(run.began)}, for {span(last - run.began)}"
    facts["size"] = size(run.size)
    facts["seed"] = run.settings.get("seed", "")
    facts["parameters"] = ", ".join(f"{name} {count:,}" for name, count in run.parameters.items())
    for stream, codec in run.codecs.items():
        scale = "" if codec.std is None else f", std {codec.std:.2f}"
        score = "" if codec.reconstruction is None else f", reconstructs {codec.reconstruction:.1%}"
        facts[f"stream {stream}"] = f"codec {codec.codec}, {codec.channels} channels{scale}{score}"
    if run.newest is not None:
        at = run.newest.path
        facts["newest checkpoint"] = f"{at.parent.name}/{at.name}"
        facts["written by"] = ", ".join(f"{name} {version}" for name, version in run.newest.manifest.versions.items())
        facts["plugins"] = f"fingerprint {run.newest.manifest.fingerprint[:12]}"
    return {key: value for key, value in facts.items() if value}


def _differences(runs: Sequence[RunFacts]) -> Section:
    found = differences([run.settings for run in runs])
    if not found:
        return Section(title="", parts=[Prose(text="The settings are the same.")])
    table = Table(head=("setting", *names(runs)), rows=[(key, *row) for key, row in found.items()])
    return Section(title="", parts=[table])


def _judged(run: RunFacts) -> list[Chapter]:
    """What the tasks of the config found, from the document beside their own page."""
    found = (stored(run.path) or {}).get("tasks")
    if not found:
        return []
    judged = found if isinstance(found, Mapping) else {"tasks": found}
    sections = [Section(title=name, parts=[_figures(one)]) for name, one in judged.items()]
    said = Prose(text="Pictures and samples of the tasks are in report.html beside this page.")
    return [("Judged", [*sections, Section(title="", parts=[said])])]


def _figures(found: Any) -> Table | Prose:
    """The figures of one task, or a line in their place where another version of colatent wrote them otherwise."""
    try:
        return Table(head=("figure", "value", "95 % interval", "goal", ""), rows=rows(found))
    except (LookupError, TypeError, ValueError, AttributeError):
        return Prose(text="Left out: report.json does not hold these figures as this version of colatent writes them.")
