"""Values against a pydantic model, with every complaint turned into one line that a user can act on.

The same function checks a whole run and a plugin's own settings, so that both complain alike. An unknown key is told
before a missing one, though pydantic lists it last: a misspelt key is usually why another one is missing.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from colatent.errors import UserError

Model = TypeVar("Model", bound=BaseModel)

PLAIN = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "tuple_type": "a list",
    "list_type": "a list",
}
"""What is expected, by pydantic's error type, where its own words are about Python."""


def validate(model: type[Model], values: Mapping[str, Any], *, where: str = "", file: str | None = None) -> Model:
    """`values` as a `model`, or the first complaint as a `UserError`.

    where  key path under which the values stand ("streams.text.config"), "" for a whole run
    file   the file that they come from, where it is known
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(model, values, details, where=where) for details in error.errors(include_url=False)]
    problems.sort(key=lambda problem: not problem.unknown)
    raise _complaint(problems, file=file) from None


def check_unchanged(before: BaseModel, after: BaseModel, *, where: str, do: str) -> None:
    """Refuse settings that are not those that something was built with; names the first that differs."""
    old, new = (dict(_leaves(model.model_dump(mode="json"), where)) for model in (before, after))
    for key in new:
        if key not in old or old[key] != new[key]:
            what = f"is {_shown(new[key])}, this was built with {_shown(old.get(key))}"
            raise UserError(what, where=key, do=do)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}")
    else:
        yield key, value


@dataclass(frozen=True, kw_only=True)
class _Problem:
    key: str
    what: str
    do: str
    unknown: bool = False


def _complaint(problems: Sequence[_Problem], *, file: str | None) -> UserError:
    first = problems[0]
    others = len({problem.key for problem in problems}) - 1
    place = ": ".join(part for part in (file, first.key) if part)
    return UserError(first.what, where=place or None, do=first.do + (f" (and {others} more)" if others else ""))


def _problem(model: type[BaseModel], values: Mapping[str, Any], details: ErrorDetails, *, where: str) -> _Problem:
    kind, path = details["type"], _path(values, details)
    key = ".".join([*([where] if where else []), *map(str, path)])
    if kind == "extra_forbidden" or details["loc"][-1:] == ("[key]",):
        return _Problem(key=key, what="unknown key", do=_instead(path[-1], _known(model, path)), unknown=True)
    if kind == "missing":
        return _Problem(key=key, what="missing", do=f"add it or pass {key}=VALUE")
    if kind == "string_type" and isinstance(details["input"], int | float):
        return _Problem(key=key, what=_rule(details), do="put it in quotes")
    # A rule between several settings points at the mapping that holds them, which is no VALUE to pass.
    single = path and not (kind == "value_error" and isinstance(details["input"], Mapping | BaseModel))
    return _Problem(
        key=key, what=_rule(details), do=f"change it or pass {key}=VALUE" if single else "change one of them"
    )


def _path(values: Any, details: ErrorDetails) -> list[str | int]:
    """Where the complaint points in the values as written: pydantic adds the names of a union's members."""
    path: list[str | int] = []
    for part in details["loc"]:
        if _holds(values, part):
            values = values[part]
            path.append(part)
    return [*path, details["loc"][-1]] if details["type"] == "missing" else path


def _holds(values: Any, part: str | int) -> bool:
    if isinstance(values, list | tuple):
        return isinstance(part, int) and part < len(values)
    return isinstance(values, Mapping) and part in values


def _rule(details: ErrorDetails) -> str:
    """The value and what it should have been."""
    message = details["msg"].removeprefix("Value error, ")
    if message != details["msg"]:
        return message
    value = _shown(details["input"])
    expected = PLAIN.get(details["type"], message.removeprefix("Input should be "))
    return f"is {value}, must be {expected}" if expected != message else f"is {value}: {message}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _instead(name: str | int, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"known keys: {', '.join(names)}" if names else "take it out"


def _known(model: type[BaseModel], path: Sequence[str | int]) -> set[str]:
    """The names that may stand where the last part of `path` stands."""
    kinds: list[Any] = [model]
    for part in path[:-1]:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return {name for kind in kinds for name in _names(kind)}


def _inside(kind: Any, part: str | int) -> Iterator[Any]:
    """The types that `part` may have inside a value of type `kind`."""
    if _is_model(kind):
        if part in kind.model_fields:
            yield from _members(kind.model_fields[part].annotation)
    elif arguments := get_args(kind):
        yield from _members(arguments[1] if get_origin(kind) is dict else arguments[0])


def _members(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is Annotated:
        yield from _members(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from _members(member)
    else:
        yield kind


def _names(kind: Any) -> Iterable[str]:
    if _is_model(kind):
        return list(kind.model_fields)
    if get_origin(kind) is dict and get_origin(get_args(kind)[0]) is Literal:
        return get_args(get_args(kind)[0])
    return ()


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
