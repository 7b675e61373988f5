"""`registry.toml`: which names belong to which distribution, and which plugins may load at all.

Read without importing any plugin, since it decides what is imported. It is checked by hand and not with pydantic,
which alone would cost `colatent --help` most of its time.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from colatent.errors import UserError

Kind = Literal["codec", "dataset", "task"]

BUILTIN = "colatent"
"""The distribution whose plugins are the built-in ones."""

ENVIRONMENT = "COLATENT_REGISTRY"
"""Environment variable that names another registry file, for an installation with a policy of its own."""

STATUSES = ("experimental", "stable", "deprecated")


@dataclass(frozen=True, kw_only=True)
class CodecEntry:
    """What registry.toml says of one codec.

    distribution  the only package that may declare the name
    weights       sha256 of published weights by file name
    """

    distribution: str
    modality: str
    axes: int
    fields: tuple[str, ...]
    status: str = "experimental"
    weights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """What registry.toml says of one dataset."""

    distribution: str
    fields: tuple[str, ...]
    status: str = "experimental"


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """What registry.toml says of one task."""

    distribution: str
    status: str = "experimental"


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A read registry.toml."""

    path: Path
    allow: tuple[str, ...] = ("*",)
    block: tuple[str, ...] = ()
    codecs: Mapping[str, CodecEntry] = field(default_factory=dict)
    datasets: Mapping[str, DatasetEntry] = field(default_factory=dict)
    tasks: Mapping[str, TaskEntry] = field(default_factory=dict)

    def pinned_to(self, kind: Kind, name: str) -> str | None:
        """The one distribution that may declare `name`; None where the name is open."""
        entries: Mapping[Kind, Mapping[str, CodecEntry | DatasetEntry | TaskEntry]]
        entries = {"codec": self.codecs, "dataset": self.datasets, "task": self.tasks}
        entry = entries[kind].get(name)
        return None if entry is None else normal(entry.distribution)

    def refusal(self, plugin: str, distribution: str) -> str | None:
        """Why the policy keeps this plugin from being imported; None where it may load.

        The allow-list is about what others bring: forgetting ourselves in it must not switch off the text codec.
        """
        for pattern in self.block:
            if _matches(pattern, plugin, distribution):
                return f"policy.block of {self.path} names {pattern!r}"
        if normal(distribution) == BUILTIN or any(_matches(pattern, plugin, distribution) for pattern in self.allow):
            return None
        return f"policy.allow of {self.path} names neither {plugin!r} nor {distribution!r}"


def normal(distribution: str) -> str:
    """A distribution's name as packaging tools compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def find_registry() -> Path:
    """The file in force: the environment's, the packaged copy, or (editable install) the checkout's."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    package = Path(__file__).parents[1]
    places = [package / "registry.toml"]
    if package.parent.name == "core":
        places.append(package.parents[1] / "registry.toml")
    for place in places:
        if place.is_file():
            return place
    raise UserError("not found", where=str(places[0]), do="reinstall colatent")


def read_registry(path: Path | None = None) -> Registry:
    """The registry at `path`, or the one in force; `UserError` with file and key where it is wrong."""
    import tomllib

    path = path or find_registry()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UserError("is not UTF-8", where=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"is not TOML: {error}", where=str(path)) from error
    return _Reader(path).registry(document)


def inventory_table(registry: Registry) -> str:
    """The inventory as Markdown tables, for the docs."""
    codecs = ["| codec | modality | axes | fields | package | status |", "|---|---|---|---|---|---|"]
    for name, codec in registry.codecs.items():
        fields = _names(codec.fields)
        codecs.append(_row(f"`{name}`", codec.modality, str(codec.axes), fields, codec.distribution, codec.status))
    datasets = ["| dataset | fields | package | status |", "|---|---|---|---|"]
    for name, dataset in registry.datasets.items():
        datasets.append(_row(f"`{name}`", _names(dataset.fields), dataset.distribution, dataset.status))
    tasks = ["| task | package | status |", "|---|---|---|"]
    for name, task in registry.tasks.items():
        tasks.append(_row(f"`{name}`", task.distribution, task.status))
    return "\n".join([*codecs, "", *datasets, "", *tasks])


class _Reader:
    """Takes a parsed document apart; every complaint carries the file and the key path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def registry(self, document: Mapping[str, Any]) -> Registry:
        self.only(document, ("policy", "codecs", "datasets", "tasks"), "")
        policy = self.table(document, "policy")
        self.only(policy, ("allow", "block"), "policy.")
        codecs, datasets, tasks = (self.table(document, name) for name in ("codecs", "datasets", "tasks"))
        return Registry(
            path=self.path,
            allow=self.strings(policy, "allow", "policy.", ("*",)),
            block=self.strings(policy, "block", "policy.", ()),
            codecs={name: self.codec(self.table(codecs, name, "codecs."), f"codecs.{name}.") for name in codecs},
            datasets={
                name: self.dataset(self.table(datasets, name, "datasets."), f"datasets.{name}.") for name in datasets
            },
            tasks={name: self.task(self.table(tasks, name, "tasks."), f"tasks.{name}.") for name in tasks},
        )

    def codec(self, entry: Mapping[str, Any], key: str) -> CodecEntry:
        self.only(entry, tuple(CodecEntry.__dataclass_fields__), key)
        axes = entry.get("axes")
        if type(axes) is not int or axes not in (1, 2, 3):
            raise self.wrong(f"{key}axes", "1, 2 or 3", axes)
        weights = self.table(entry, "weights", key)
        for name in weights:
            self.string(weights, name, f"{key}weights.")
        return CodecEntry(
            distribution=self.string(entry, "distribution", key),
            modality=self.string(entry, "modality", key),
            axes=axes,
            fields=self.strings(entry, "fields", key),
            status=self.status(entry, key),
            weights=weights,
        )

    def dataset(self, entry: Mapping[str, Any], key: str) -> DatasetEntry:
        self.only(entry, tuple(DatasetEntry.__dataclass_fields__), key)
        return DatasetEntry(
            distribution=self.string(entry, "distribution", key),
            fields=self.strings(entry, "fields", key),
            status=self.status(entry, key),
        )

    def task(self, entry: Mapping[str, Any], key: str) -> TaskEntry:
        self.only(entry, tuple(TaskEntry.__dataclass_fields__), key)
        return TaskEntry(distribution=self.string(entry, "distribution", key), status=self.status(entry, key))

    def status(self, entry: Mapping[str, Any], key: str) -> str:
        status = entry.get("status", "experimental")
        if status not in STATUSES:
            raise self.wrong(f"{key}status", f"one of {', '.join(STATUSES)}", status)
        return str(status)

    def only(self, table: Mapping[str, Any], known: tuple[str, ...], key: str) -> None:
        for name in table:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                do = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise UserError(f"unknown key {key}{name}", where=str(self.path), do=do)

    def table(self, parent: Mapping[str, Any], name: str, key: str = "") -> Mapping[str, Any]:
        value = parent.get(name, {})
        if not isinstance(value, dict):
            raise self.wrong(f"{key}{name}", "a table", value)
        return value

    def string(self, parent: Mapping[str, Any], name: str, key: str) -> str:
        value = parent.get(name)
        if not isinstance(value, str) or not value:
            raise self.wrong(f"{key}{name}", "a text", value)
        return value

    def strings(
        self, parent: Mapping[str, Any], name: str, key: str, default: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        value = parent.get(name, default)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self.wrong(f"{key}{name}", "a list of texts", value)
        return tuple(value)

    def wrong(self, key: str, rule: str, value: object) -> UserError:
        found = "it is missing" if value is None else f"found {value!r}"
        return UserError(f"{key} must be {rule}, {found}", where=str(self.path))


def _matches(pattern: str, plugin: str, distribution: str) -> bool:
    return fnmatchcase(plugin, pattern) or fnmatchcase(normal(distribution), normal(pattern))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
