"""The settings of a run as flat text, to be laid beside those of another.

Defaults are filled in, so that a setting that one config spells out and another leaves alone does not differ. What a
config takes from its surroundings (`${oc.env:TOKEN}`) stays as it was written: a page must not give it away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from colatent.checkpoint.run import CONFIG, RunFolder
from colatent.config.load import load
from colatent.errors import UserError

ABSENT = "—"
NAMES = {"name", "out"}
"""Settings that only say which run it is."""


def settings(run: RunFolder) -> dict[str, str]:
    """Every setting by dotted path; as far as it can be read where this version does not understand the config."""
    try:
        written = dict(leaves(yaml.safe_load(run.config_text())))
    except (UserError, yaml.YAMLError, RecursionError):
        return {}
    try:
        filled = dict(leaves(load(run.path / CONFIG).config.model_dump(mode="json")))
    except UserError:
        return {key: as_text(value) for key, value in written.items()}
    kept = {key: as_text(value) for key, value in written.items() if "${" in as_text(value)}
    shown = {key: as_text(value) for key, value in filled.items() if not _below(key, kept)}
    return {**shown, **kept}


def _below(key: str, kept: Mapping[str, str]) -> bool:
    """Whether a setting comes out of one that is kept as it was written: `${data.sources.a}` stands for many."""
    parts = key.split(".")
    return any(".".join(parts[:end]) in kept for end in range(1, len(parts)))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Values that hold no others, by dotted path; a list of plain values is one."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{number}")
    elif path:
        yield path, value


def as_text(value: Any) -> str:
    """A value as a config would have it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def differences(several: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """The settings that are not the same everywhere, each with its value in every run."""
    keys = dict.fromkeys(key for one in several for key in one if key not in NAMES)
    rows = {key: tuple(one.get(key, ABSENT) for one in several) for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}
