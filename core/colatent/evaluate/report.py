"""A model judged by tasks, as a document for programs and a page for people.

The document names the checkpoint that was judged by its content, so that a run can tell whether it was judged as it is
now. It is written last: where it is new, so is the page beside it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.manifest import MANIFEST
from colatent.checkpoint.run import RunFolder
from colatent.checkpoint.storage import atomic_write_text, hash_file, result_folder
from colatent.errors import UserError
from colatent.evaluate.curves import curves
from colatent.evaluate.html import page
from colatent.evaluate.page import MISSED, REACHED, Picture, Section, Table, Verbatim
from colatent.evaluate.run_settings import ABSENT
from colatent.evaluate.tasks import Progress, Task, Verdict
from colatent.jsons import json_text, parse_json

if TYPE_CHECKING:
    from colatent.generate.model import Model

PAGE, DOCUMENT = "report.html", "report.json"
SHOWN = ("steps", "solver", "guidance")
"""Settings of sampling under the page's title."""

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is judged, and how.

    path      the model as the user named it
    settings  of each task, by its name
    run       the run that the checkpoint lies in, if any
    """

    path: str
    checkpoint: Checkpoint
    run: RunFolder | None
    seed: int
    settings: Mapping[str, Mapping[str, Any]]

    def identity(self) -> Document:
        """What two judgements must agree on to be the same."""
        at = self.checkpoint.path
        checkpoint = {"name": f"{at.parent.name}/{at.name}", "sha256": hash_file(at / MANIFEST)}
        settings = {name: dict(some) for name, some in self.settings.items()}
        identity: Document = json.loads(json.dumps({"checkpoint": checkpoint, "seed": self.seed, "settings": settings}))
        return identity


def stored(folder: Path) -> Document | None:
    """The document of an earlier judgement, None where there is none that can be read."""
    try:
        found = parse_json((folder / DOCUMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def judge(model: Model, subject: Subject, tasks: Mapping[str, Task], *, folder: Path, progress: Progress) -> Document:
    """Let each task judge, and write page and document into `folder`; returns the document."""
    with result_folder(folder):
        return _judge(model, subject, tasks, folder=folder, progress=progress)


def _judge(model: Model, subject: Subject, tasks: Mapping[str, Task], *, folder: Path, progress: Progress) -> Document:
    verdicts, seconds = {}, {}
    for name, task in tasks.items():
        began = time.monotonic()
        verdicts[name] = _verdict(name, task, model, subject, progress)
        seconds[name] = time.monotonic() - began
    document = {
        "model": subject.path,
        **subject.identity(),
        "sample": model.sample.model_dump(mode="json"),
        "tasks": {name: _document(verdict, seconds[name]) for name, verdict in verdicts.items()},
    }
    atomic_write_text(folder / PAGE, _page(subject, document, verdicts))
    atomic_write_text(folder / DOCUMENT, json_text(document, indent=1) + "\n")
    return document


def _verdict(name: str, task: Task, model: Model, subject: Subject, progress: Progress) -> Verdict:
    """What one task says. What fails within it is noted as the task's, for whoever reads the one line of an error."""
    try:
        verdict = task.judge(model, run=subject.run, seed=subject.seed, progress=_named(name, progress))
    except Exception as error:
        error.add_note(f"in task {name!r}")
        raise
    if not isinstance(verdict, Verdict):
        what = f"{type(task).__name__}.judge gave {type(verdict).__name__}, no Verdict"
        raise UserError(what, where=f"tasks.{name}", do="return a colatent.evaluate.tasks.Verdict")
    return verdict


def _named(task: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{task}: {what}", done, total)


def _document(verdict: Verdict, seconds: float) -> Document:
    return {
        "figures": {name: _stored(value) for name, value in verdict.figures.items()},
        "bounds": {name: [_stored(bound) for bound in bounds] for name, bounds in verdict.bounds.items()},
        "goals": dict(verdict.goals),
        "missed": [name for name, goal in verdict.goals.items() if not verdict.figures[name] >= goal],
        "seconds": round(seconds, 1),
    }


def _stored(value: float) -> float | None:
    """A number as JSON has it, which knows none that is not finite."""
    return value if math.isfinite(value) else None


def rows(found: Document) -> list[tuple[str, str, str, str, str]]:
    """The figures of one task as text, those with goals first: name, value, interval, goal, whether it is reached.
    A dash stands for what is no number."""
    shown = []
    for name, value in sorted(found["figures"].items(), key=lambda pair: pair[0] not in found["goals"]):
        bounds, goal = found["bounds"].get(name), found["goals"].get(name)
        verdict = "" if goal is None else MISSED if name in found["missed"] else REACHED
        between = "" if bounds is None else ABSENT if None in bounds else f"{bounds[0]:.3f}–{bounds[1]:.3f}"
        figure = ABSENT if value is None else f"{value:.3f}"
        shown.append((name.replace("_", " "), figure, between, "" if goal is None else f"{goal:.2f}", verdict))
    return shown


def _page(subject: Subject, document: Document, verdicts: Mapping[str, Verdict]) -> str:
    sample = document["sample"]
    lead = [
        ("checkpoint", document["checkpoint"]["name"]),
        ("seed", str(subject.seed)),
        *((key, str(sample[key])) for key in SHOWN),
        *(
            (f"{key} of {stream}", str(value))
            for stream, own in sample["streams"].items()
            for key, value in own.items()
            if value is not None
        ),
    ]
    chapters = [(name, _of_task(document["tasks"][name], verdict)) for name, verdict in verdicts.items()]
    if subject.run is not None:
        chapters.append(("The run", [_of_run(subject.run)]))
    return page(Path(subject.path).resolve().name, lead=lead, chapters=chapters)


def _of_task(found: Document, verdict: Verdict) -> list[Section]:
    """Figures with goals first, the others after all that there is to be seen."""
    head = ("figure", "value", "95 % interval", "goal", "")
    aimed = [row for row in rows(found) if row[-1]]
    others = [row[:3] for row in rows(found) if not row[-1]]
    first = [Section(title="", parts=[Table(head=head, rows=aimed)])] if aimed else []
    last = [Section(title="Other figures", parts=[Table(head=head[:3], rows=others)])] if others else []
    return [*first, *verdict.sections, *last]


def _of_run(run: RunFolder) -> Section:
    drawn = Picture(data=curves(run, columns=1), caption="Losses in training, and scores on held-out samples.")
    return Section(title="", parts=[drawn, Verbatim(title="config.yaml", text=run.config_text())])
