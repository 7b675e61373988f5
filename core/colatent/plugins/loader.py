"""One plugin at a time: import it, check it, ask it what it brings.

Every plugin gets a pluggy manager of its own. In a shared one a raising hook aborts the call for all, a misspelt hook
is accepted in silence, and pluggy before 1.7 leaves a plugin that fails validation half registered; alone, a broken
plugin is rolled back by dropping its manager, and no plugin can wrap or reorder another's hooks.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import pluggy

from colatent.plugins import hookspecs
from colatent.plugins.hookspecs import HOOK_NAMES, PROJECT
from colatent.plugins.records import API_VERSION, CodecInfo, DatasetInfo, Declaration, TaskInfo
from colatent.plugins.registry import BUILTIN, Kind, Registry, normal

State = Literal["active", "blocked", "broken", "incompatible", "shadowed"]
Info = TypeVar("Info", bound=Declaration)

DECLARED: Mapping[Kind, type[Declaration]] = {"codec": CodecInfo, "dataset": DatasetInfo, "task": TaskInfo}
"""What the hook `colatent_codecs` declares, `colatent_datasets`, and so on."""

SINCE: Mapping[Kind, tuple[int, int]] = {"codec": (1, 0), "dataset": (1, 0), "task": (1, 1)}
"""The version of the seam from which on a plugin may declare it."""

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
DEMO = re.compile(r"[A-Za-z_][\w.]*:[\w-]+\.yaml")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A plugin that is installed and not yet imported: an entry point, or in tests a module object as `target`."""

    name: str
    distribution: str
    version: str
    target: Any

    @property
    def builtin(self) -> bool:
        """Whether it comes with colatent itself."""
        return normal(self.distribution) == BUILTIN

    def load(self) -> Any:
        """The plugin object: what the entry point names."""
        if not isinstance(self.target, str):
            return self.target
        from importlib.metadata import EntryPoint

        return EntryPoint(name=self.name, value=self.target, group=PROJECT).load()


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin, what became of it, and why.

    codecs, datasets, tasks  what it has in force: nothing unless it is active
    claims                   (kind, name) of all that it declared, active or not; empty if it never came to that
    hooks                    the hooks that it implements
    reason                   one line, empty where it is active
    error                    what it raised
    """

    name: str
    distribution: str
    version: str
    target: Any
    state: State
    reason: str = ""
    codecs: tuple[CodecInfo, ...] = ()
    datasets: tuple[DatasetInfo, ...] = ()
    tasks: tuple[TaskInfo, ...] = ()
    claims: tuple[tuple[Kind, str], ...] = ()
    hooks: tuple[str, ...] = ()
    error: BaseException | None = field(default=None, repr=False, compare=False)
    manager: pluggy.PluginManager | None = field(default=None, repr=False, compare=False)

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"plugin {self.name!r} of {self.distribution} {self.version}"


class _RefusedError(Exception):
    """A plugin does not keep to the seam; carries the state and reason that it gets."""

    def __init__(self, reason: str, *, state: State = "broken", claims: tuple[tuple[Kind, str], ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.state, self.claims = reason, state, claims


def installed() -> list[Candidate]:
    """The plugins of all installed distributions, none of them imported."""
    from importlib.metadata import entry_points

    return [
        Candidate(
            name=entry.name,
            distribution=(entry.dist.name if entry.dist else None) or "unknown",
            version=(entry.dist.version if entry.dist else None) or "unknown",
            target=entry.value,
        )
        for entry in entry_points(group=PROJECT)
    ]


def examine(candidate: Candidate, registry: Registry) -> Plugin:
    """Load, check and ask one plugin. Never raises for what a plugin does; its record says what happened."""

    def record(state: State, **rest: Any) -> Plugin:
        return Plugin(
            name=candidate.name,
            distribution=candidate.distribution,
            version=candidate.version,
            target=candidate.target,
            state=state,
            **rest,
        )

    if refusal := registry.refusal(candidate.name, candidate.distribution):
        return record("blocked", reason=refusal)
    try:
        manager = _register(candidate)
        declared = _ask(manager)
        claims = _check(declared)
    except _RefusedError as refused:
        reason = one_line(refused.reason)
        return record(refused.state, reason=reason, claims=refused.claims, error=refused.__cause__)
    hooks = tuple(name for name in HOOK_NAMES if getattr(manager.hook, name).get_hookimpls())
    in_force = {f"{kind}s": infos for kind, infos in declared.items()}
    return record("active", **in_force, claims=claims, hooks=hooks, manager=manager)


def describe(error: BaseException) -> str:
    """An exception in one line."""
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def one_line(text: str, limit: int = 300) -> str:
    """`text` without line breaks, cut where it is too long for a table or an error line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _guarded(what: str, do: Callable[[], Any]) -> Any:
    """Foreign code: whatever it raises refuses the plugin. sys.exit() at import is as broken as any other error."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints must not end up in --json
            return do()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _RefusedError(f"{what}: {describe(error)}") from error


def _register(candidate: Candidate) -> pluggy.PluginManager:
    plugin = _guarded("import failed", candidate.load)
    if plugin is None:
        raise _RefusedError(f"the entry point {candidate.target!r} names nothing but None")
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    _guarded("a hook does not fit its specification", lambda: manager.register(plugin, candidate.name))
    _check_spelling(manager, plugin)
    return manager


def _check_spelling(manager: pluggy.PluginManager, plugin: Any) -> None:
    """`check_pending` in our words, and the slip that pluggy cannot see: a hook without @hookimpl."""
    callers = manager.get_hookcallers(plugin) or []
    implemented = {caller.name for caller in callers}
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = min(implemented - set(HOOK_NAMES), default="?")
        near = difflib.get_close_matches(unknown, HOOK_NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(HOOK_NAMES)}"
        raise _RefusedError(f"no hook is called {unknown!r}; {hint}") from error
    for name in HOOK_NAMES:
        if name not in implemented and inspect.isroutine(inspect.getattr_static(plugin, name, None)):
            raise _RefusedError(f"{name} is not marked with @hookimpl of colatent.plugins")
    if not implemented:
        raise _RefusedError(f"implements no hook; there are {', '.join(HOOK_NAMES)}, each marked with @hookimpl")


def _ask(manager: pluggy.PluginManager) -> dict[Kind, tuple[Declaration, ...]]:
    """All that a plugin declares, by kind."""
    declared: dict[Kind, tuple[Declaration, ...]] = {}
    for kind, record in DECLARED.items():
        hook = f"colatent_{kind}s"
        declared[kind] = _records(hook, _guarded(f"{hook} raised", getattr(manager.hook, hook)), record)
    return declared


def _records(hook: str, results: list[Iterable[Any]], kind: type[Info]) -> tuple[Info, ...]:
    """What one hook declared, flat. A hook may be a generator, which runs (and raises) only here."""
    records: list[Info] = []
    for result in results:
        if isinstance(result, kind) or not isinstance(result, Iterable):
            raise _RefusedError(f"{hook} must return a list of {kind.__name__}, not {type(result).__name__}")
        records += _guarded(f"{hook} raised", partial(list, result))
    for item in records:
        if not isinstance(item, kind):
            raise _RefusedError(f"{hook} must return a list of {kind.__name__}, found {type(item).__name__} in it")
    return tuple(records)


def _check(declared: Mapping[Kind, Iterable[Declaration]]) -> tuple[tuple[Kind, str], ...]:
    claims: list[tuple[Kind, str]] = []
    pairs = [(kind, info) for kind, infos in declared.items() for info in infos]
    for kind, info in pairs:
        _check_declaration(kind, info)
        if (kind, info.name) in claims:
            raise _RefusedError(f"declares {kind} {info.name!r} twice")
        claims.append((kind, info.name))
    for kind, info in pairs:
        _check_api(kind, info, claims=tuple(claims))
    return tuple(claims)


def _check_declaration(kind: Kind, info: Declaration) -> None:
    def require(key: str, rule: str, holds: bool) -> None:
        if not holds:
            raise _RefusedError(f"{kind} {info.name!r}: {key} must be {rule}, found {getattr(info, key)!r}")

    require("name", "of small letters, digits, '-', '_' and '.'", _is_text(info.name, NAME))
    require("factory", "written as 'package.module:Class'", _is_text(info.factory, REFERENCE))
    require("config", "written as 'package.module:Model'", _is_text(info.config, REFERENCE))
    require("summary", "a text", isinstance(info.summary, str))
    if not isinstance(info, TaskInfo):
        fields_ok = isinstance(info.fields, tuple) and all(isinstance(name, str) and name for name in info.fields)
        require("fields", "a tuple of at least one name", fields_ok and len(info.fields) > 0)
    if isinstance(info, TaskInfo):
        require("demo", "written as 'package:file.yaml'", info.demo == "" or _is_text(info.demo, DEMO))
    if isinstance(info, CodecInfo):
        require("modality", "of small letters, digits, '-', '_' and '.'", _is_text(info.modality, NAME))
        require("axes", "1, 2 or 3", type(info.axes) is int and info.axes in (1, 2, 3))


def _check_api(kind: Kind, info: Declaration, *, claims: tuple[tuple[Kind, str], ...]) -> None:
    what, requires = f"{kind} {info.name!r}", info.requires_api
    if not _is_text(requires, re.compile(r"\d+(\.\d+)?")):
        raise _RefusedError(f"{what}: requires_api must be 'MAJOR' or 'MAJOR.MINOR', found {requires!r}")
    major, _, minor = requires.partition(".")
    version = (int(major), int(minor or 0))
    if version[0] != API_VERSION[0] or version > API_VERSION:
        have = ".".join(map(str, API_VERSION))
        reason = f"{what} needs version {requires} of the plugin API, this colatent has {have}"
        raise _RefusedError(reason, state="incompatible", claims=claims)
    if version < SINCE[kind]:
        since = ".".join(map(str, SINCE[kind]))
        rule = f"requires_api must be at least {since!r}, which brought {kind}s"
        raise _RefusedError(f"{what}: {rule}, found {requires!r}")


def _is_text(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
