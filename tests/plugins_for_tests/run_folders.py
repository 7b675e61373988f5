"""Run folders as training leaves them, written in a moment: no model stands behind their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from colatent.checkpoint.run import RunFolder
from colatent.checkpoint.write import step_folder, write_checkpoint
from plugins_for_tests.runs import TEXT, changed

FACTS = {"codec": "text", "channels": 8, "std": [1.0] * 8, "reconstruction": 0.9}


def record(stage: str, step: int, **values: float) -> dict[str, Any]:
    """What a step logs; losses fall."""
    loss = 2.0 * math.exp(-step / 50) + 0.5
    logged = {"loss": loss, "text/flow": loss, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 100.0}
    return {"stage": stage, "step": step, **logged, **values}


def scores(stage: str, step: int, **values: float) -> dict[str, Any]:
    """What an evaluation logs."""
    levels = {f"counting/text/t={t}": t + 1.0 / (1 + step) for t in (0.1, 0.5, 0.9)}
    return {"stage": stage, "step": step, "eval": {**levels, "text/reconstruction_score": 0.9, **values}}


def made_run(
    folder: Path,
    *,
    stages: Sequence[str] = ("codec", "prior"),
    steps: int = 60,
    saved: Sequence[int] = (20, 40, 60),
    finished: bool = True,
    facts: Mapping[str, Any] = FACTS,
    records: Sequence[Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Path:
    """A run in `folder`; `records` stand in place of those of every step and of two evaluations of each stage."""
    tree = changed(TEXT, **{f"stages__{stage}__steps": 60 for stage in stages}, **settings)
    with RunFolder.create(folder, yaml.safe_dump(tree, sort_keys=False)) as run:
        run.begin(stages)
        for stage in stages:
            for step in saved:
                save(run.path, stage, step, facts)
            logged = [record(stage, step) for step in range(1, steps + 1)]
            for one in records if records is not None else [scores(stage, 0), *logged, scores(stage, steps)]:
                run.log(one)
            if finished:
                run.stage_done(stage)
        if finished:
            run.finish()
    return folder


def save(folder: Path, stage: str, step: int, facts: Mapping[str, Any] = FACTS) -> Path:
    """A checkpoint with a few numbers in it."""
    tensors = {name: {"weight": torch.full((3, 4), float(step))} for name in (stage, "codec.text")}
    return write_checkpoint(
        folder / "checkpoints" / stage,
        step=step,
        tensors=tensors,
        documents={"codec.text": facts},
        files={},
        fingerprint="0123456789abcdef",
        versions={"colatent": "0.1.0"},
    )


def step_names(folder: Path, stage: str) -> list[str]:
    """What lies among a stage's checkpoints."""
    return sorted(path.name for path in (folder / "checkpoints" / stage).iterdir())


def name_of(step: int) -> str:
    """The name of a step's folder."""
    return step_folder(Path(), step).name
