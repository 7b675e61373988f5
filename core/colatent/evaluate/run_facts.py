"""What can be told of a run from its folder alone, whatever state it is in: nothing of it is loaded or run.

Each fact is read by itself, so that a run that died, or was written by another version, still tells the others.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from colatent.checkpoint.folder import Checkpoint, Scan, read_checkpoint, scan
from colatent.checkpoint.run import FINISHED, LOCK, METRICS, STATE, RunFolder, is_run_folder, undisturbed
from colatent.checkpoint.storage import size_below
from colatent.errors import UserError
from colatent.evaluate.history import History, read_history
from colatent.evaluate.run_settings import settings
from colatent.jsons import parse_json
from colatent.latents.posterior import overall_std

RUNNING, STOPPED, FAILED = "running", "stopped", "failed"
"""States beside `FINISHED`: a process writes, or none does and the run has not ended; failed where a loss or gradient
that is not finite ended it."""
ENDING = {"loss", "grad_norm"}
"""Of what a step logs, what ends the run where it is not finite. A resumed run drops that record."""


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """One stage: steps done, those asked for (None where the config cannot be read), and whether it is complete."""

    done: int
    asked: int | None
    complete: bool

    def __str__(self) -> str:
        return str(self.done) if self.asked is None else f"{self.done}/{self.asked}"


@dataclass(frozen=True, kw_only=True)
class CodecNote:
    """What a checkpoint says of a stream's codec; `std` of its latents is None where it was not measured."""

    codec: str
    channels: int
    std: float | None
    reconstruction: float | None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run.

    began, changed  seconds since the epoch: when a process last began to train here, and when one last wrote
    size            bytes of all files
    settings        every setting as text, by dotted path
    checkpoints     step folders of each stage
    newest          the newest valid checkpoint of the last stage that has one
    parameters      of its weights, by part
    """

    path: Path
    state: str
    stages: Mapping[str, StageFacts]
    history: History
    began: float | None
    changed: float
    size: int
    settings: Mapping[str, str]
    checkpoints: Mapping[str, Scan]
    newest: Checkpoint | None
    parameters: Mapping[str, int]
    codecs: Mapping[str, CodecNote]

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.path.resolve().name

    def loss(self) -> float | None:
        """The last training loss."""
        losses = [stage.logged["loss"][-1][1] for stage in self.history.stages.values() if "loss" in stage.logged]
        return losses[-1] if losses else None


def run_facts(path: Path | str) -> RunFacts:
    """All that is known of the run in `path`. Raises `UserError` where nothing can be told of it."""
    with readable(path):
        return _run_facts(RunFolder.open(path))


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Whatever is odd about a run folder, which may be somebody else's or half copied, as a `UserError` in one line."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=str(error.filename or path)) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        what = f"cannot be read: {type(error).__name__}: {error}"
        raise UserError(what, where=str(path), do="use a checkpoint inside the run folder") from error


def _run_facts(run: RunFolder) -> RunFacts:
    history, found, state = read_history(run), settings(run), run.state()
    with undisturbed(run.path) as quiet:
        status = (FINISHED if state.status == FINISHED else _unfinished(history)) if quiet else RUNNING
    checkpoints = {stage: scan(run.checkpoints(stage), verify=False) for stage in state.stages}
    newest = next((read_checkpoint(one.valid[0], verify=False) for one in _latest(checkpoints) if one.valid), None)
    return RunFacts(
        path=run.path,
        state=status,
        stages={
            stage: _stage(stage, history, checkpoints[stage], found, complete=stage in state.done)
            for stage in state.stages
        },
        history=history,
        began=(run.path / LOCK).stat().st_mtime if (run.path / LOCK).exists() else None,
        changed=max(path.stat().st_mtime for name in (STATE, METRICS) if (path := run.path / name).exists()),
        size=size_below(run.path),
        settings=found,
        checkpoints=checkpoints,
        newest=newest,
        parameters={} if newest is None else _parameters(newest),
        codecs={} if newest is None else _codecs(newest),
    )


def find_runs(folder: Path | str) -> list[Path]:
    """Run folders in a folder, or the folder itself where it is one; links are not followed. A folder in it
    that may not be looked into counts as one: that is said of it when it is read."""
    folder = Path(folder)
    if is_run_folder(folder):
        return [folder]
    if not folder.is_dir():
        raise UserError("is not a folder", where=str(folder), do="name the folder that holds your runs")
    return sorted(path for path in folder.iterdir() if not path.is_symlink() and _is_run(path))


def _is_run(path: Path) -> bool:
    return path.is_dir() and (not os.access(path, os.X_OK) or is_run_folder(path))


def _unfinished(history: History) -> str:
    return FAILED if any(ENDING & stage.broken.keys() for stage in history.stages.values()) else STOPPED


def _latest(checkpoints: Mapping[str, Scan]) -> list[Scan]:
    return list(checkpoints.values())[::-1]


def _stage(stage: str, history: History, checkpoints: Scan, found: Mapping[str, str], *, complete: bool) -> StageFacts:
    asked = found.get(f"stages.{stage}.steps", "")
    logged = history.stages[stage].last_step() if stage in history.stages else 0
    saved = [int(path.name.removeprefix("step-").partition(".")[0]) for path in checkpoints.valid[:1]]
    return StageFacts(done=max([logged, *saved]), asked=int(asked) if asked.isdecimal() else None, complete=complete)


def _parameters(checkpoint: Checkpoint) -> dict[str, int]:
    """Numbers in each group of weights, from the headers of its files."""
    groups = checkpoint.groups()
    weights = [name for name in groups if name == "prior" or (name.startswith("codec.") and name != "codec.ema")]
    return {name: count for name in weights if (count := _count(groups[name])) is not None}


def _count(paths: Sequence[Path]) -> int | None:
    total = 0
    try:
        for path in paths:
            with safe_open(path, framework="numpy") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return total


def _codecs(checkpoint: Checkpoint) -> dict[str, CodecNote]:
    start, end = "codec.", ".json"
    names = [name for name in checkpoint.manifest.files if name.startswith(start) and name.endswith(end)]
    found = {}
    for name in (name for name in names if "/" not in name):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found[name[len(start) : -len(end)]] = _note(parse_json(checkpoint.file(name)))
    return found


def _note(stored: Mapping[str, Any]) -> CodecNote:
    std = stored["std"]
    return CodecNote(
        codec=stored["codec"],
        channels=stored["channels"],
        std=overall_std(std) if std else None,
        reconstruction=stored["reconstruction"],
    )
