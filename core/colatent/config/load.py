"""One run's settings: a YAML file, then dotted overrides (`stages.prior.steps=10`), then the schema.

What is kept for the run folder is the merged text before interpolation: `${oc.env:TOKEN}` must never be written down
resolved. Paths in a config are relative to the current directory, as those on the command line beside it are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from colatent.config.checks import validate
from colatent.config.schema import RunConfig
from colatent.errors import UserError

MISSING = "???"
"""OmegaConf's mark for a value that must be given."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A run's settings.

    config  the checked settings
    text    the same as YAML, merged and not interpolated: what a run folder keeps
    path    the file that they were read from
    """

    config: RunConfig
    text: str
    path: Path


def load(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """The settings in the YAML file `path`, with `overrides` ("a.b=value") on top. Raises `UserError`."""
    path = Path(path)
    tree = _parse(_read(path), file=str(path))
    for override in overrides:
        _apply(tree, override)
    config = validate(RunConfig, _resolve(tree, file=str(path)), file=str(path))
    return Loaded(config=config, text=OmegaConf.to_yaml(tree, resolve=False), path=path)


def overridden(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain settings with `overrides` ("a.b=value") on top. Raises `UserError`."""
    tree = OmegaConf.create(dict(values))
    for override in overrides:
        _apply(tree, override)
    return _resolve(tree, file="settings")


def _read(path: Path) -> str:
    file = str(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(
            path.name, [other.name for other in path.parent.glob("*.y*ml")], n=1, cutoff=0.75
        )
        do = f"did you mean {path.parent / near[0]}?" if near else "pass the path of a YAML config"
        raise UserError("no such file", where=file, do=do) from None
    except IsADirectoryError:
        raise UserError("is a folder, not a file", where=file, do="pass the path of a YAML config") from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=file, do="pass the path of a YAML config") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=file, do="pass a file that you may read") from None


def _parse(text: str, *, file: str) -> DictConfig:
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if root is None:
            raise UserError("is empty", where=file, do="start from one of examples/configs")
        if not isinstance(root, yaml.MappingNode):
            raise UserError("is not a mapping", where=file, do="write settings as `key: value`")
        tree = OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"is not valid YAML: {error.problem}", where=f"{file}:{line}", do="mend that line") from None
    except yaml.YAMLError as error:
        what = str(error).splitlines()[0]
        raise UserError(f"is not valid YAML: {what}", where=file, do="pass the path of a YAML config") from None
    except GrammarParseError as error:
        raise _not_resolved(error, file=file) from None
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0], where=file, do="write keys as plain words") from None
    assert isinstance(tree, DictConfig)
    return tree


def _apply(tree: DictConfig, override: str) -> None:
    """Set one value in place; a mapping is merged into what is there."""
    where = f"override {override!r}"
    key, equals, text = override.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise UserError("is not KEY=VALUE", where=where, do="write it like stages.prior.steps=10")
    if not text.strip():  # to YAML this is null, and so a default: an empty variable of a shell would go unnoticed
        raise UserError("has no value", where=where, do="write one behind the =, or null for none")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[index,call-overload]
        OmegaConf.update(tree, key.strip(), value, merge=True)
    except yaml.YAMLError:
        raise UserError("has a value that is not valid YAML", where=where, do="put the value in quotes") from None
    except (OmegaConfBaseException, ValueError) as error:
        what = str(error).splitlines()[0]
        raise UserError(f"does not fit the config: {what}", where=where, do="check the key against the file") from None


def _resolve(tree: DictConfig, *, file: str) -> dict[str, Any]:
    """Plain values with every `${...}` filled in."""
    missing = list(_missing(OmegaConf.to_container(tree), ""))
    if missing:
        example = "FILE" if missing[0].endswith("path") else "VALUE"
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise UserError("must be given", where=f"{file}: {missing[0]}", do=f"pass {missing[0]}={example}{more}")
    try:
        values = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        raise _not_resolved(error, file=file) from None
    except RecursionError:
        raise UserError("has a ${...} that refers to itself", where=file, do="break the circle") from None
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


def _missing(value: Any, key: str) -> Iterator[str]:
    """Key paths that hold `???`, in the order of the file."""
    if value == MISSING:
        yield key
    elif isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _missing(inner, f"{key}.{name}" if key else str(name))


def _not_resolved(error: OmegaConfBaseException, *, file: str) -> UserError:
    what = str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ").strip('"')
    do = "name a key that exists, as in ${data.path}"
    if what.startswith("Environment variable"):
        do = "set it, or write a default as in ${oc.env:NAME,value}"
    elif isinstance(error, GrammarParseError):
        what, do = f"has a ${{...}} that cannot be read: {what}", "write it as in ${data.path}"
    return UserError(what, where=f"{file}: {error.full_key}" if error.full_key else file, do=do)
