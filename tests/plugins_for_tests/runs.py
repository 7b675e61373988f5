"""Runs small enough to train inside a test, and how to look at what they left."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from colatent.checkpoint.folder import Checkpoint, newest, read_checkpoint
from colatent.config import load
from colatent.data.mixture import Drawn
from colatent.plugins import PluginSet
from colatent.train.progress import Reporter
from colatent.train.run import train
from colatent.train.stage import Stage, add_up

TEXT: dict[str, Any] = {
    "name": "words",
    "streams": {
        "text": {
            "codec": "text",
            "config": {
                "width": 16,
                "heads": 2,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "block": 4,
                "window": 16,
                "channels": 8,
            },
        }
    },
    "data": {"length": 16, "sources": {"counting": {"dataset": "counting", "config": {"window": 48}}}},
    "prior": {"layers": 2, "width": 16, "heads": 2},
    "stages": {
        "codec": {"steps": 8, "batch": 4, "lr": 3e-3, "warmup": 2, "ema": 0.9, "eval_every": 0, "log_every": 1},
        "prior": {"steps": 8, "batch": 4, "lr": 3e-3, "warmup": 2, "ema": 0.9, "eval_every": 0, "log_every": 1},
    },
    "sample": {"steps": 2, "guidance": 2.0, "max_units": 8},
}
"""Text alone, from the generator that needs no file."""


def changed(tree: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A copy with some keys set; `a__b` is the key b of a."""
    tree = copy.deepcopy(tree)
    for path, value in values.items():
        *parents, last = path.split("__")
        place = tree
        for part in parents:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


def run(
    tree: dict[str, Any],
    folder: Path,
    *overrides: str,
    resume: bool = False,
    plugins: PluginSet | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Train `tree` in `folder`."""
    config = folder.parent / f"{folder.name}.yaml"
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    loaded = load(config, [f"out={folder}", *overrides])
    return train(loaded, resume=resume, plugins=plugins, reporter=reporter or Reporter(quiet=True))


def loss_of(
    stage: Stage, drawn: Sequence[Drawn], step: int, *, passes: int = 1
) -> tuple[Tensor, dict[str, float], int]:
    """Loss, parts and units of one step over these samples, computed in so many passes."""
    total, parts, units = torch.zeros(()), Counter[str](), 0
    prepared = [stage.prepare(drawn[number::passes], step, alone=passes == 1) for number in range(passes)]
    counts = add_up(one.counts for one in prepared)
    for one in prepared:
        loss, its_parts, its_units = stage.loss(one, counts, step)
        total, units = total + loss, units + its_units
        parts.update({name: float(one) for name, one in its_parts.items()})
    return total, dict(parts), units


def last(folder: Path, stage: str) -> Checkpoint:
    """The newest checkpoint of a stage."""
    found = newest(folder / "checkpoints" / stage)
    assert found is not None
    return found


def metrics(folder: Path) -> list[dict[str, Any]]:
    """All records, without what a clock measured."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "tokens_per_second"} for record in records]


def assert_same_run(one: Path, other: Path, stages: Sequence[str] = ("codec", "prior")) -> None:
    """Final checkpoints equal to the bit, metrics equal to the digit."""
    for stage in stages:
        assert_same_checkpoint(last(one, stage), last(other, stage))
    assert metrics(one) == metrics(other)


def assert_same_checkpoint(one: Checkpoint, other: Checkpoint) -> None:
    """Every tensor, document and file."""
    assert sorted(one.manifest.files) == sorted(other.manifest.files)
    for name in one.manifest.files:
        if name.endswith(".safetensors"):
            group = name.removesuffix(".safetensors")
            mine, theirs = one.tensors(group), other.tensors(group)
            assert mine.keys() == theirs.keys()
            differing = [key for key in mine if not torch.equal(mine[key], theirs[key])]
            assert not differing, f"{name}: {differing[:3]}"
        else:
            assert one.file(name) == other.file(name), name


def rewritten(path: Path) -> Checkpoint:
    """The checkpoint in `path` after its manifest was made to fit its files again, as a careful forger would."""
    from colatent.checkpoint.manifest import MANIFEST, Manifest, manifest_bytes, parse_manifest
    from colatent.checkpoint.storage import FileRecord, hash_file

    old = parse_manifest((path / MANIFEST).read_bytes(), where="")
    files = {name: FileRecord(size=(path / name).stat().st_size, sha256=hash_file(path / name)) for name in old.files}
    fresh = Manifest(step=old.step, files=files, versions=old.versions, fingerprint=old.fingerprint)
    (path / MANIFEST).write_bytes(manifest_bytes(fresh))
    return read_checkpoint(path)
