"""`colatent plugins`: what is installed, what became of it, what it declares, and whether it keeps to the contract.

Everything but `validate` answers without torch: listing plugins is what one does when something does not import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import click

from colatent.cli.installation import HARDWARE, STACK, devices, version_of
from colatent.cli.new import new
from colatent.cli.show import print_facts, print_json, print_table
from colatent.errors import UserError
from colatent.plugins import API_VERSION, Plugin, PluginSet, load_plugins
from colatent.plugins.loader import DECLARED
from colatent.plugins.pluginset import INSTALL_IT
from colatent.plugins.records import Declaration
from colatent.plugins.registry import Kind

Command = TypeVar("Command", bound=Callable[..., Any])
JSON = "colatent.cli.plugins.json"


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    # `colatent plugins --json list` and `colatent plugins list --json` mean the same.
    ctx.meta[JSON] = value or ctx.meta.get(JSON, False)
    return bool(ctx.meta[JSON])


json_option = click.option("--json", "as_json", is_flag=True, callback=_remember, help="Print JSON.")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List, inspect and check plugins.

    Without a command it lists them.

    Example: colatent plugins --json
    """
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)


plugins.add_command(new)


@plugins.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all plugins with their state.

    Example: colatent plugins list
    """
    _list(as_json=as_json)


@plugins.command()
@click.argument("name")
@json_option
def info(name: str, as_json: bool) -> None:
    """Show all that NAME declares: a plugin, a codec, a dataset or a task; PACKAGE:PLUGIN where two share a name.

    Example: colatent plugins info text
    """
    found = load_plugins()
    plugin = _find(found, name)
    facts = _summary(plugin)
    for kind in DECLARED:
        settings = partial(_settings, getattr(found, f"{kind}_config"))
        facts[f"{kind}s"] = [asdict(each) | {"settings": settings(each)} for each in getattr(plugin, f"{kind}s")]
    if as_json:
        print_json(facts)
        return
    declared_keys = [f"{kind}s" for kind in DECLARED]
    print_facts({key: value for key, value in facts.items() if key not in declared_keys})
    for kind in DECLARED:
        for declared in facts[f"{kind}s"]:
            _print_declared(kind, declared)


@plugins.command()
@click.argument("name", required=False)
@click.option("--list", "list_checks", is_flag=True, help="List the checks (of NAME, or all), and run none.")
@json_option
@click.pass_context
def validate(ctx: click.Context, name: str | None, list_checks: bool, as_json: bool) -> None:
    """Check that NAME (a plugin, a codec, a dataset or a task) keeps to the contract; exit status 2 if it does not.

    Example: colatent plugins validate text
    """
    if list_checks and name is None:
        _list_checks(list(DECLARED), as_json=as_json)
        return
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.", ctx)
    found = load_plugins()
    plugin = _find(found, name)
    if plugin.state != "active":
        raise UserError(f"{plugin.title} is {plugin.state}: {plugin.reason}") from plugin.error
    if list_checks:
        meant = [kind for kind, claimed in plugin.claims if _is_called(plugin, name) or claimed == name]
        _list_checks([kind for kind in DECLARED if kind in meant], as_json=as_json)
        return
    from colatent.testing.catalogue import examine, examine_plugin

    of_plugin = _is_called(plugin, name)
    examinations = examine_plugin(found, plugin) if of_plugin else examine(found, name)
    results = [result for examination in examinations for result in examination.results()]
    failed = [each for each in results if each.state == "failed"]
    if as_json:
        print_json({"plugin": plugin.name, "ok": not failed, "checks": [asdict(each) for each in results]})
    else:
        for each in results:
            click.echo(f"{each.state:8}{each.subject}: {each.name}" + (f" - {each.detail}" if each.detail else ""))
            if each.state == "failed":
                click.echo(f"        contract: {each.contract}")
    if failed:
        click.echo(f"colatent: {len(failed)} of {len(results)} checks of {plugin.title} failed", err=True)
        ctx.exit(2)


def _list_checks(of: Sequence[Kind], *, as_json: bool) -> None:
    from colatent.testing.catalogue import CODEC_CHECKS, DATASET_CHECKS, TASK_CHECKS

    every: dict[Kind, tuple[Any, ...]] = {"codec": CODEC_CHECKS, "dataset": DATASET_CHECKS, "task": TASK_CHECKS}
    kinds = {kind: every[kind] for kind in of}
    if as_json:
        print_json(
            {kind: [{"name": each.name, "contract": each.contract} for each in some] for kind, some in kinds.items()}
        )
        return
    rows = [(kind, each.name, each.contract) for kind, some in kinds.items() for each in some]
    print_table([("OF A", "CHECK", "CONTRACT"), *rows])


@plugins.command()
@click.option(
    "--torch",
    "with_torch",
    is_flag=True,
    help="Import torch: which devices there are, what attention runs on, and whether layers can be compiled.",
)
@json_option
def doctor(with_torch: bool, as_json: bool) -> None:
    """Show versions, the registry in force, and every plugin that is not active.

    Example: colatent plugins doctor --torch
    """
    import platform

    found = load_plugins()
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "colatent": version_of("colatent"),
        "api": _api(),
        "registry": str(found.registry.path),
        "fingerprint": found.fingerprint,
        "versions": {name: version_of(name) for name in STACK},
        "plugins": [_summary(plugin) for plugin in found.plugins],
    }
    if with_torch:
        facts["devices"] = devices()
        facts |= {name: ask() for name, ask in HARDWARE.items()}
    if as_json:
        print_json(facts)
        return
    versions = facts.pop("versions")
    facts.pop("plugins")
    by_kind = {name: facts.pop(name, {}) for name in HARDWARE}
    print_facts(facts)
    print_facts(versions)
    for kind, said in by_kind.pop("attention").items():
        click.echo(f"attention on {kind}")
        print_facts({**said, **{name: found[kind] for name, found in by_kind.items()}}, indent="  ")
    click.echo()
    _print_list(found)


def _list(*, as_json: bool) -> None:
    found = load_plugins()
    if as_json:
        summaries = [_summary(plugin) for plugin in found.plugins]
        print_json({"api": _api(), "fingerprint": found.fingerprint, "plugins": summaries})
    else:
        _print_list(found)


def _print_list(found: PluginSet) -> None:
    if not found.plugins:
        click.echo("No plugins: is colatent installed? (pip install colatent)")
        return
    rows = [("PLUGIN", "STATE", "PACKAGE", *(f"{kind}s".upper() for kind in DECLARED))]
    for plugin in found.plugins:
        package = f"{plugin.distribution} {plugin.version}"
        declared = (_names(getattr(plugin, f"{kind}s")) for kind in DECLARED)
        rows.append((plugin.name, plugin.state, package, *declared))
    print_table(rows)
    for plugin in found.plugins:
        if plugin.state != "active":
            click.echo(f"\n{plugin.title} is {plugin.state}: {plugin.reason}")


def _find(found: PluginSet, name: str) -> Plugin:
    """The plugin called `name` or PACKAGE:PLUGIN, else the one that claims a codec, dataset or task of that name."""
    for fits in (_is_called, _claims):
        matches = [plugin for plugin in found.plugins if fits(plugin, name)]
        active = [plugin for plugin in matches if plugin.state == "active"]
        if len(matches) > 1 and len(active) != 1:
            choices = ", ".join(f"{plugin.distribution}:{plugin.name}" for plugin in matches)
            raise UserError(f"{name!r} is the name of {len(matches)} plugins", do=f"say one of {choices}")
        if matches:
            return (active or matches)[0]
    import difflib

    known = {plugin.name for plugin in found.plugins} | {each for plugin in found.plugins for _, each in plugin.claims}
    near = difflib.get_close_matches(name, known, n=1)
    there_are = f"there are: {', '.join(sorted(known)) or 'none'}; {INSTALL_IT}"
    do = f"did you mean {near[0]!r}?" if near else there_are
    raise UserError(f"no plugin, codec, dataset or task is called {name!r}", do=do)


def _is_called(plugin: Plugin, name: str) -> bool:
    return name in (plugin.name, f"{plugin.distribution}:{plugin.name}")


def _claims(plugin: Plugin, name: str) -> bool:
    return any(name == claimed for _, claimed in plugin.claims)


def _summary(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "state": plugin.state,
        "reason": plugin.reason,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "codecs": [each.name for each in plugin.codecs],
        "datasets": [each.name for each in plugin.datasets],
        "tasks": [each.name for each in plugin.tasks],
        "claims": [f"{kind} {name}" for kind, name in plugin.claims],
        "hooks": list(plugin.hooks),
    }


def _settings(model_of: Callable[[str], type], declared: Declaration) -> list[dict[str, str]]:
    """The settings of a declared config; a config that cannot be imported is told as one line in their place."""
    from colatent.cli.settings import describe_settings

    try:
        return describe_settings(model_of(declared.name))
    except UserError as error:
        return [{"name": "?", "type": "", "default": "", "doc": str(error)}]


def _print_declared(kind: str, declared: dict[str, Any]) -> None:
    click.echo(f"\n{kind} {declared['name']}: {declared['summary'] or '(no summary)'}")
    facts = {key: value for key, value in declared.items() if key not in ("name", "summary", "settings")}
    print_facts({key: ", ".join(value) if key == "fields" else value for key, value in facts.items()}, indent="  ")
    click.echo("  settings")
    for setting in declared["settings"]:
        click.echo(f"    {setting['name']}: {setting['type']} = {setting['default']}")
        if setting["doc"]:
            click.echo(f"        {setting['doc']}")


def _names(declared: Iterable[Declaration]) -> str:
    return ", ".join(each.name for each in declared) or "-"


def _api() -> str:
    return ".".join(map(str, API_VERSION))
