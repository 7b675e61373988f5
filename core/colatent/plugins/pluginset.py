"""The plugins of this installation, and the answers to what is asked of them by name.

Lenient when listing, strict when a run names something: a plugin that failed stays in the list with its reason, and
asking for what it would have brought says which plugin of which package failed, and why. There is no global set:
whoever needs one loads it and hands it on.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colatent.errors import UserError
from colatent.plugins.fingerprint import fingerprint
from colatent.plugins.hookspecs import PROJECT
from colatent.plugins.loader import Candidate, Plugin, describe, examine, installed
from colatent.plugins.missing import how_to_install, missing_module
from colatent.plugins.records import CodecInfo, DatasetInfo, TaskInfo
from colatent.plugins.registry import BUILTIN, Kind, Registry, normal, read_registry
from colatent.plugins.resolve import resolve

if TYPE_CHECKING:
    import click

INSTALL_IT = "a package of your own counts once it is installed: pip install -e DIR"
"""What to do about a name that nobody brings and that resembles none."""


def load_plugins(candidates: Iterable[Candidate] | None = None, *, registry: Registry | None = None) -> PluginSet:
    """Load every plugin by itself: built-ins first, then by distribution and name.

    candidates  default: what is installed
    registry    default: the registry.toml in force
    """
    registry = registry or read_registry()
    found = installed() if candidates is None else candidates
    order = sorted(found, key=lambda each: (not each.builtin, normal(each.distribution), each.name))
    plugins: list[Plugin] = []
    owners: dict[tuple[Kind, str], Plugin] = {}
    contested: dict[tuple[Kind, str], list[Plugin]] = {}
    for candidate in order:
        plugin = examine(candidate, registry)
        if plugin.state == "active":
            plugin, rivals = _shadow(plugin, owners, registry)
            for claim in rivals:
                contested.setdefault(claim, [owners[claim]]).append(plugin)
        if plugin.state == "active":
            owners |= dict.fromkeys(plugin.claims, plugin)
        plugins.append(plugin)
    return PluginSet(plugins=tuple(plugins), registry=registry, owners=owners, contested=contested)


@dataclass(frozen=True, kw_only=True)
class PluginSet:
    """All plugins that were found, whatever became of them.

    owners     the active plugin that brings a (kind, name)
    contested  who claims a name that nothing pins and that more than one package declares: a run that names it is
               refused, since selection by order would let any newly installed package take over a name
    """

    plugins: tuple[Plugin, ...]
    registry: Registry
    owners: Mapping[tuple[Kind, str], Plugin] = field(repr=False)
    contested: Mapping[tuple[Kind, str], list[Plugin]] = field(repr=False)

    @property
    def active(self) -> tuple[Plugin, ...]:
        """The plugins in force."""
        return tuple(plugin for plugin in self.plugins if plugin.state == "active")

    @property
    def codecs(self) -> dict[str, CodecInfo]:
        """The codecs in force by name."""
        return {info.name: info for plugin in self.active for info in plugin.codecs}

    @property
    def datasets(self) -> dict[str, DatasetInfo]:
        """The datasets in force by name."""
        return {info.name: info for plugin in self.active for info in plugin.datasets}

    @property
    def tasks(self) -> dict[str, TaskInfo]:
        """The tasks in force by name."""
        return {info.name: info for plugin in self.active for info in plugin.tasks}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the set in force: equal on two machines exactly if they have the same plugins."""
        return fingerprint(self.active)

    def codec(self, name: str, *, where: str | None = None) -> CodecInfo:
        """The codec of that name. `where` is the config key that named it, for the error line."""
        self._demand("codec", name, self.codecs, where)
        return self.codecs[name]

    def dataset(self, name: str, *, where: str | None = None) -> DatasetInfo:
        """The dataset of that name. `where` is the config key that named it, for the error line."""
        self._demand("dataset", name, self.datasets, where)
        return self.datasets[name]

    def task(self, name: str, *, where: str | None = None) -> TaskInfo:
        """The task of that name. `where` is the config key that named it, for the error line."""
        self._demand("task", name, self.tasks, where)
        return self.tasks[name]

    def codec_class(self, name: str, *, where: str | None = None) -> type:
        """The codec's class, imported now (this imports torch)."""
        return self._resolve(self.codec(name, where=where).factory, "codec", name)

    def dataset_class(self, name: str, *, where: str | None = None) -> type:
        """The dataset's class, imported now."""
        return self._resolve(self.dataset(name, where=where).factory, "dataset", name)

    def task_class(self, name: str, *, where: str | None = None) -> type:
        """The task's class, imported now."""
        return self._resolve(self.task(name, where=where).factory, "task", name)

    def codec_config(self, name: str, *, where: str | None = None) -> type[Any]:
        """The pydantic model of the codec's settings, with a torch-free `latent_spec()`."""
        info = self.codec(name, where=where)
        return self._model(info.config, "codec", name, needs=("model_fields", "latent_spec"))

    def dataset_config(self, name: str, *, where: str | None = None) -> type[Any]:
        """The pydantic model of the dataset's settings."""
        info = self.dataset(name, where=where)
        return self._model(info.config, "dataset", name, needs=("model_fields",))

    def task_config(self, name: str, *, where: str | None = None) -> type[Any]:
        """The pydantic model of the task's settings."""
        return self._model(self.task(name, where=where).config, "task", name, needs=("model_fields",))

    def demos(self) -> dict[str, Path]:
        """The configs of runs that tasks bring to be trained and judged by them, by the task's name."""
        from importlib.resources import files

        named = {name: info.demo.partition(":") for name, info in self.tasks.items() if info.demo}
        return {name: Path(str(files(package) / file)) for name, (package, _, file) in named.items()}

    def add_commands(
        self, cli: click.Group, *, reserved: Collection[str] = (), open_groups: Collection[str] = ()
    ) -> None:
        """Let each active plugin add its commands to `cli`; one that raises or clashes is named on stderr and skipped.

        reserved     names that belong to the core and are not yet commands of `cli`
        open_groups  those of them that a plugin may give a group of: `add_subcommands` is for what is in it
        """
        import click

        for plugin, commands in self._commands():
            own = {
                name: command
                for name, command in commands.items()
                if not (name in open_groups and isinstance(command, click.Group))
            }
            _add(own, to=cli, of=plugin, reserved=reserved)

    def add_subcommands(self, group: click.Group, *, reserved: Collection[str] = ()) -> None:
        """Merge the groups that active plugins call as `group` is called into it; who clashes is named and skipped.

        Of such a group only its commands are taken: its own help and options are the core's. `reserved` as above.
        """
        import click

        assert group.name is not None
        for plugin, commands in self._commands():
            theirs = commands.get(group.name)
            if isinstance(theirs, click.Group):
                _add(theirs.commands, to=group, of=plugin, reserved=reserved, prefix=f"{group.name} ")

    def _commands(self) -> Iterator[tuple[Plugin, Mapping[str, click.Command]]]:
        """Each active plugin with the commands that its hook adds; one that raises is named on stderr and left out."""
        import click

        for plugin in self.active:
            if plugin.manager is None or "colatent_add_commands" not in plugin.hooks:
                continue
            # An own group per plugin: what was added before it raised is dropped with it.
            own = click.Group(PROJECT)
            try:
                plugin.manager.hook.colatent_add_commands(cli=own)
            except (Exception, SystemExit) as error:
                click.echo(f"colatent: {plugin.title} adds no commands: {describe(error)}", err=True)
            else:
                yield plugin, own.commands

    def _model(self, reference: str, kind: Kind, name: str, *, needs: tuple[str, ...]) -> type[Any]:
        model = self._resolve(reference, kind, name)
        for attribute in needs:
            if not hasattr(model, attribute):
                rule = "is not a pydantic model" if attribute == "model_fields" else f"has no {attribute}()"
                raise UserError(f"{reference!r} {rule}", where=self.who(kind, name))
        return model

    def _resolve(self, reference: str, kind: Kind, name: str) -> type[Any]:
        return resolve(reference, who=self.who(kind, name), distribution=self.owners[kind, name].distribution)

    def who(self, kind: Kind, name: str) -> str:
        """What the error line calls a name in force: "codec 'depth' of plugin …"."""
        return f"{kind} {name!r} of {self.owners[kind, name].title}"

    def _demand(self, kind: Kind, name: str, known: Collection[str], where: str | None) -> None:
        """Raise the `UserError` that says most, unless exactly one active plugin brings `name`."""
        if rivals := self.contested.get((kind, name)):
            titles = " and by ".join(plugin.title for plugin in rivals)
            do = f"pin {name!r} to one of them in {self.registry.path}, or uninstall one"
            raise UserError(f"{kind} {name!r} is declared by {titles}", where=where, do=do)
        if name in known:
            return
        for plugin in self.plugins:
            if (kind, name) in plugin.claims:
                what = f"{kind} {name!r} is not available: {plugin.title} is {plugin.state} ({plugin.reason})"
                raise UserError(what, where=where) from plugin.error
        raise self._unknown(kind, name, known, where)

    def _unknown(self, kind: Kind, name: str, known: Collection[str], where: str | None) -> UserError:
        """Nobody declared `name`: a slip of the pen, or a plugin that failed before it could say what it brings."""
        owner = self.registry.pinned_to(kind, name)
        mute = [plugin for plugin in self.plugins if plugin.state != "active" and not plugin.claims]
        suspects = [plugin for plugin in mute if owner in (None, normal(plugin.distribution))]
        what = f"no active plugin brings {kind} {name!r}"
        if suspects:
            failures = "; ".join(f"{plugin.title} is {plugin.state} ({plugin.reason})" for plugin in suspects)
            what = f"{what}, and {failures}"
        near = difflib.get_close_matches(name, known, n=1)
        lacking = [(module, plugin) for plugin in suspects if (module := missing_module(plugin.error))]
        if near:
            do = f"did you mean {near[0]!r}?"
        elif lacking:
            do = how_to_install(lacking[0][0], [lacking[0][1].distribution])
        elif owner is not None and not suspects:
            do = f"it comes with the package {owner!r}: pip install {owner}"
        elif suspects:
            do = f"there are: {', '.join(sorted(known)) or 'none'}"
        else:
            do = f"there are: {', '.join(sorted(known)) or 'none'}; {INSTALL_IT}"
        error = UserError(what, where=where, do=do)
        error.__cause__ = next((plugin.error for plugin in suspects if plugin.error), None)
        return error


def _add(
    commands: Mapping[str, click.Command], *, to: click.Group, of: Plugin, reserved: Collection[str], prefix: str = ""
) -> None:
    """Add what is free; say what is not, with `prefix` before its name."""
    import click

    for name, command in commands.items():
        if name in reserved or name in to.commands:
            click.echo(f"colatent: {of.title} may not add {prefix + name!r}: the name is taken", err=True)
        else:
            to.add_command(command, name)


def _shadow(
    plugin: Plugin, owners: Mapping[tuple[Kind, str], Plugin], registry: Registry
) -> tuple[Plugin, list[tuple[Kind, str]]]:
    """`plugin` as it is, or shadowed whole because a name of it belongs to another; and the names left contested."""
    for kind, name in plugin.claims:
        pinned = registry.pinned_to(kind, name)
        if pinned is not None and pinned != normal(plugin.distribution):
            reason = f"{kind} {name!r} belongs to {pinned} ({registry.path.name})"
            return _shadowed(plugin, reason), []
    taken = [claim for claim in plugin.claims if claim in owners]
    if not taken:
        return plugin, []
    reason = "; ".join(f"{kind} {name!r} is declared by {owners[kind, name].title}" for kind, name in taken)
    ours = [claim for claim in taken if normal(owners[claim].distribution) == BUILTIN or registry.pinned_to(*claim)]
    return _shadowed(plugin, reason), [claim for claim in taken if claim not in ours]


def _shadowed(plugin: Plugin, reason: str) -> Plugin:
    return replace(plugin, state="shadowed", reason=reason, codecs=(), datasets=(), tasks=(), hooks=(), manager=None)
