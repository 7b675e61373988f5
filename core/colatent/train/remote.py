"""Weights & Biases, for who asks for it: one run there for one run here, over all stages and resumptions.

It gets the numbers of TensorBoard, and the config before `${...}` is filled in: no secret may leave the machine.
Its id lies in the run folder, so that a resumed run goes on there too. Stages count their own steps, and W&B is told
so: the count that it keeps by itself never falls, and would be wrong from the second stage on.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from colatent.checkpoint.storage import atomic_write_text
from colatent.config.schema import RunConfig
from colatent.errors import UserError
from colatent.jsons import parse_json

ID = "wandb.json"
WHERE = "metrics.wandb"


class Remote:
    """A run at W&B."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._stages: set[str] = set()

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Send numbers of one step of a stage."""
        count = f"{stage}/step"
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=count)
        self._run.log({**{f"{stage}/{name}": value for name, value in values.items()}, count: step})


def check_wandb(project: str | None) -> None:
    """Refuse a project where W&B is not installed. A folder of that name, which W&B itself leaves, is no package."""
    if project is not None and not hasattr(_wandb(), "init"):
        raise UserError("wandb is not installed", where=WHERE, do="pip install 'colatent[wandb]', or take it out")


def _wandb() -> Any:
    try:
        import wandb
    except ImportError:
        return None
    return wandb


@contextmanager
def open_wandb(config: RunConfig, folder: Path, text: str) -> Iterator[Remote | None]:
    """The run at W&B, if the config asks for one; it ends with the block, as failed where that does."""
    if config.metrics.wandb is None:
        yield None
        return
    *entity, project = config.metrics.wandb.split("/")
    wandb, failed = _wandb(), 1
    try:
        run = wandb.init(
            entity=entity[0] if entity else None,
            project=project,
            name=config.name,
            id=_id(folder / ID),
            resume="allow",
            dir=str(folder),
            config=yaml.safe_load(text),
        )
    except wandb.Error as error:
        what, do = f"W&B cannot be started: {error}", "log in with `wandb login`, or set WANDB_MODE=offline"
        raise UserError(what.splitlines()[0], where=WHERE, do=f"{do}; then --resume") from error
    try:
        yield Remote(run)
        failed = 0
    finally:
        run.finish(exit_code=failed)


def _id(path: Path) -> str:
    """What W&B calls this run, drawn once."""
    if not path.exists():
        atomic_write_text(path, json.dumps({"id": secrets.token_hex(8)}) + "\n")
    try:
        return str(parse_json(path.read_bytes())["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("is damaged", where=str(path), do="remove it: a new run at W&B begins") from error
