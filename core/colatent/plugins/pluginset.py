"""The plugins of this installation, and the answers to what is asked of them by name.

Lenient when listing, strict when a run names something: a plugin that failed stays in the list with its reason, and
asking for what it would have brought says which plugin of which package failed, and why. There is no global set:
whoever needs one loads it and hands it on.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from colatent.errors import UserError
from colatent.plugins.fingerprint import fingerprint
from colatent.plugins.loader import Candidate, Plugin, describe, examine, installed
from colatent.plugins.records import CodecInfo, DatasetInfo
from colatent.plugins.registry import BUILTIN, Kind, Registry, normal, read_registry
from colatent.plugins.resolve import resolve

if TYPE_CHECKING:
    import click


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

    def codec_class(self, name: str, *, where: str | None = None) -> type:
        """The codec's class, imported now (this imports torch)."""
        return resolve(self.codec(name, where=where).factory, who=self._who("codec", name))

    def dataset_class(self, name: str, *, where: str | None = None) -> type:
        """The dataset's class, imported now."""
        return resolve(self.dataset(name, where=where).factory, who=self._who("dataset", name))

    def codec_config(self, name: str, *, where: str | None = None) -> type[Any]:
        """The pydantic model of the codec's settings, with a torch-free `latent_spec()`."""
        info = self.codec(name, where=where)
        return self._model(info.config, "codec", name, needs=("model_fields", "latent_spec"))

    def dataset_config(self, name: str, *, where: str | None = None) -> type[Any]:
        """The pydantic model of the dataset's settings."""
        info = self.dataset(name, where=where)
        return self._model(info.config, "dataset", name, needs=("model_fields",))

    def add_commands(self, cli: click.Group, *, reserved: Collection[str] = ()) -> None:
        """Let each active plugin add its commands to `cli`; one that raises or clashes is named on stderr and skipped.

        reserved  names that belong to the core and are not yet commands of `cli`
        """
        import click

        for plugin in self.active:
            if plugin.manager is None or "colatent_add_commands" not in plugin.hooks:
                continue
            # An own group per plugin: what was added before it raised is dropped with it.
            own = click.Group(cli.name)
            try:
                plugin.manager.hook.colatent_add_commands(cli=own)
            except (Exception, SystemExit) as error:
                click.echo(f"colatent: {plugin.title} adds no commands: {describe(error)}", err=True)
                continue
            for name, command in own.commands.items():
                if name in reserved or name in cli.commands:
                    click.echo(f"colatent: {plugin.title} may not add {name!r}: the name is taken", err=True)
                else:
                    cli.add_command(command, name)

    def _model(self, reference: str, kind: Kind, name: str, *, needs: tuple[str, ...]) -> type[Any]:
        model = resolve(reference, who=self._who(kind, name))
        for attribute in needs:
            if not hasattr(model, attribute):
                rule = "is not a pydantic model" if attribute == "model_fields" else f"has no {attribute}()"
                raise UserError(f"{reference!r} {rule}", where=self._who(kind, name))
        return model

    def _who(self, kind: Kind, name: str) -> str:
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
        if near:
            do = f"did you mean {near[0]!r}?"
        elif owner is not None and not suspects:
            do = f"it comes with the package {owner!r}: pip install {owner}"
        else:
            do = f"there are: {', '.join(sorted(known)) or 'none'}"
        error = UserError(what, where=where, do=do)
        error.__cause__ = next((plugin.error for plugin in suspects if plugin.error), None)
        return error


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
    return replace(plugin, state="shadowed", reason=reason, codecs=(), datasets=(), hooks=(), manager=None)
