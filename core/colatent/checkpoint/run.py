"""The run folder: everything that one run leaves behind, and the lock that keeps a second run out of it.

    config.yaml                    the config as it was given, unresolved
    run.json                       status, the stages in order, and which of them are done
    metrics.jsonl                  one line per record
    checkpoints/STAGE/step-.../    see `colatent.checkpoint.folder`
    samples/                       what was generated

A folder with a `run.json` is a run folder. Who writes holds the lock, which the system drops with the process, however
it ends; readers take none.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from colatent.checkpoint.metrics import MetricsFile
from colatent.checkpoint.storage import TEMPORARY, atomic_write_text
from colatent.errors import UserError
from colatent.jsons import parse_json

STATE = "run.json"
CONFIG = "config.yaml"
LOCK = "lock"
METRICS = "metrics.jsonl"
FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands: status `new`, `running` or `finished`; all its stages in order; those that are done."""

    status: str = "new"
    stages: tuple[str, ...] = ()
    done: tuple[str, ...] = ()


class RunFolder:
    """A run folder on the disk. Made by `create` (to write, locked) or `open` (to read)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples = path / "samples"
        self._metrics = MetricsFile(path / METRICS)
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path | str, config_text: str, *, resume: bool = False) -> Self:
        """Start a run in a new or empty folder, or with `resume` go on with the run that is there.

        A run that is resumed keeps its stored config until `write_config` replaces it.
        """
        run = cls(Path(path))
        try:
            _check_free(run.path, resume=resume)
            run.samples.mkdir(parents=True, exist_ok=True)
            run._lock = _take_lock(run.path)
            # Looked at again: another run may have come and gone before the lock was ours.
            _check_free(run.path, resume=resume)
            run._fill(config_text)
        except OSError as error:
            run.close()
            what = f"cannot be used as a run folder: {error.strerror or error}"
            raise UserError(what, where=str(run.path), do="choose another out=") from error
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """The run in a folder, to read."""
        run = cls(Path(path))
        if not is_run_folder(run.path):
            raise UserError(f"is not a run folder: it has no {STATE}", where=str(path), do="name the out= of a run")
        return run

    def _fill(self, config_text: str) -> None:
        """What makes it a run folder comes last: a run that can be resumed has a config."""
        (self.path / "checkpoints").mkdir(exist_ok=True)
        if not (self.path / CONFIG).exists():
            self.write_config(config_text)
        if not is_run_folder(self.path):
            self._write_state(RunState())

    def checkpoints(self, stage: str) -> Path:
        """The folder of a stage's checkpoints."""
        return self.path / "checkpoints" / stage

    def config_text(self) -> str:
        """The stored config, unresolved."""
        return _read_text(self.path / CONFIG)

    def write_config(self, text: str) -> None:
        """Store the config as it was given."""
        atomic_write_text(self.path / CONFIG, text)

    def state(self) -> RunState:
        """Where the run stands."""
        path = self.path / STATE
        text = _read_text(path)
        try:
            return _state(parse_json(text))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("is damaged", where=str(path), do="use a checkpoint inside the run folder") from error

    def begin(self, stages: Sequence[str]) -> None:
        """Say which stages the run has, in order, and that it is running."""
        done = tuple(stage for stage in self.state().done if stage in stages)
        self._write_state(RunState(status="running", stages=tuple(stages), done=done))

    def stage_done(self, stage: str) -> None:
        """Say that a stage is done."""
        state = self.state()
        self._write_state(replace(state, done=(*(name for name in state.done if name != stage), stage)))

    def finish(self) -> None:
        """Say that the run is finished."""
        self._write_state(replace(self.state(), status=FINISHED))

    def _write_state(self, state: RunState) -> None:
        atomic_write_text(self.path / STATE, json.dumps(asdict(state), indent=2) + "\n")

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to the metrics. `stage` and `step` in it let a resumed run drop it."""
        self._metrics.append(record)

    def metrics(self) -> Iterator[dict[str, Any]]:
        """All records of the metrics, in order."""
        return self._metrics.read()

    def truncate_metrics(self, *, after_step: int, stage: str) -> None:
        """Drop the lines that a run resumed at this step of this stage will write again, later stages' included."""
        stages = self.state().stages
        later = stages[stages.index(stage) + 1 :] if stage in stages else ()
        self._metrics.truncate(after_step=after_step, stage=stage, later=later)

    def close(self) -> None:
        """Close the metrics and drop the lock."""
        self._metrics.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def is_run_folder(path: Path) -> bool:
    """Whether a run was started in this folder."""
    return (path / STATE).is_file()


@contextmanager
def undisturbed(path: Path | str) -> Iterator[bool]:
    """Whether no run writes to this folder, and none can begin to before the end of the block.

    Changes nothing in the folder, its lock's date included, which says when a run last began there.
    """
    try:
        descriptor = os.open(Path(path) / LOCK, os.O_RDONLY)
    except FileNotFoundError:  # a copy without it: nobody ever wrote here
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _state(stored: Mapping[str, Any]) -> RunState:
    """The state in a `run.json`, which may be anybody's: names in it become parts of paths."""
    state = RunState(status=stored["status"], stages=tuple(stored["stages"]), done=tuple(stored["done"]))
    if not all(isinstance(name, str) and Path(name).name == name for name in (state.status, *state.stages)):
        raise ValueError("holds no names of stages")
    return state


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from error


def _check_free(path: Path, *, resume: bool) -> None:
    """Refuse a folder that holds something else, and an existing run unless it is to be resumed."""
    if is_run_folder(path):
        if not resume:
            raise UserError("already holds a run", where=str(path), do="use --resume or another out=")
        return
    if path.exists() and not path.is_dir():
        raise UserError("is a file, not a folder", where=str(path), do="choose another out=")
    # A run that died before its run.json was written has left no more than these; a config without a lock is not ours.
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    ours = {LOCK, "samples", "checkpoints"} | ({CONFIG} if LOCK in names else set())
    others = sorted(name for name in names - ours if not name.startswith(TEMPORARY))
    if others:
        what = f"is not empty and not a run folder (it has {others[0]})"
        raise UserError(what, where=str(path), do="choose another out=")


def _take_lock(path: Path) -> int:
    """Lock the folder for this process and give the descriptor that holds the lock."""
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except BlockingIOError as error:
        what, do = _holder(descriptor)
        os.close(descriptor)
        raise UserError(what, where=str(path), do=do) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _holder(descriptor: int) -> tuple[str, str]:
    """Who keeps a lock from us, and what to do. Its file names the last run that wrote here, which may be long gone
    where `undisturbed` holds it, as that can be shared."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace") or "unknown"
        return f"another run is writing here (process {owner})", "wait for it to end or choose another out="
    return "another colatent is looking at this run, or cleaning it", "try again when it has ended"
