"""Checks of a codec's surface: its class, its methods with their arguments, and its options.

Whether a codec can do something is asked with `isinstance`, which looks at names only. So a method that takes other
arguments, and a protocol of which one method is missing or misspelt, would otherwise show in the middle of a run, or
never.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from torch import nn

from colatent.plugins import contract, items
from colatent.plugins.contract import OptionedCodec
from colatent.testing.requiring import SkippedError, check_closed, require
from colatent.testing.running import check
from colatent.testing.subject import Subject

ABILITIES: tuple[type[Any], ...] = (
    contract.PreparedCodec,
    contract.TrainableCodec,
    contract.RaggedCodec,
    contract.MeasuredCodec,
    contract.Promptable,
    contract.OptionedCodec,
    contract.ExpectingCodec,
    contract.StreamingCodec,
    contract.Scorable,
    contract.Spelled,
    items.FileCodec,
    items.StoredCodec,
    items.Showable,
)
"""The protocols of what a codec can also do."""


@check(vital=True)
def protocol(subject: Subject) -> None:
    """The class has every method of `Codec`, no other protocol by half, and each takes the contract's arguments."""
    every: tuple[type[Any], ...] = (contract.Codec, *ABILITIES)
    for ability in every:
        names = methods(ability)
        missing = [name for name in names if not callable(getattr(subject.cls, name, None))]
        if ability is not contract.Codec and len(missing) == len(names):
            continue
        has = ", ".join(name for name in names if name not in missing)
        only = f"has {has} but " if ability is not contract.Codec else ""
        require(not missing, f"{only}lacks {', '.join(missing)} ({ability.__name__})")
        for name in names:
            check_call(subject.cls, name, ability)


@check(vital=True)
def class_(subject: Subject) -> None:
    """The class is an `nn.Module` that builds and repeats the `latent_spec()` of its settings."""
    require(issubclass(subject.cls, nn.Module), f"{subject.cls.__name__} is not an nn.Module")
    require(subject.codec.latent_spec() == subject.spec, "latent_spec() differs from the config's")


@check()
def options(subject: Subject) -> None:
    """The options of generation have defaults, are frozen, refuse unknown keys and survive JSON."""
    if not isinstance(subject.codec, OptionedCodec):
        raise SkippedError("has no options (OptionedCodec)")
    model = subject.codec.options_model()
    check_closed(model)
    defaults = model()
    require(model.model_validate(defaults.model_dump(mode="json")) == defaults, "the defaults do not survive JSON")


def methods(protocol: type[Any]) -> list[str]:
    """The methods that a protocol asks for."""
    return [name for name, value in vars(protocol).items() if not name.startswith("_") and _callable(value)]


def _callable(value: Any) -> bool:
    return isinstance(value, FunctionType | classmethod | staticmethod)


def check_call(cls: type[Any], name: str, ability: type[Any]) -> None:
    """Raise unless the method can be called as the protocol's is, with all arguments and with the fewest."""
    if isinstance(vars(ability)[name], classmethod):
        require(not isinstance(inspect.getattr_static(cls, name), FunctionType), f"{name} is not a classmethod")
    wanted, found = _signature(ability, name), _signature(cls, name)
    for arguments in _calls(wanted):
        try:
            found.bind(*arguments[0], **arguments[1])
        except TypeError as error:
            require(False, f"{name}{_plain(found)} is not called as {name}{_plain(wanted)}: {error}")


def _signature(owner: type[Any], name: str) -> inspect.Signature:
    """As a caller sees it: without self."""
    signature = inspect.signature(getattr(owner, name))
    if isinstance(inspect.getattr_static(owner, name), FunctionType):
        return signature.replace(parameters=list(signature.parameters.values())[1:])
    return signature


def _calls(wanted: inspect.Signature) -> Iterator[tuple[list[None], dict[str, None]]]:
    """The arguments of a call that gives all, and of one that leaves out what has a default."""
    for optional in (True, False):
        given = [each for each in wanted.parameters.values() if optional or each.default is each.empty]
        named = {each.name: None for each in given if each.kind is each.KEYWORD_ONLY}
        yield [None] * (len(given) - len(named)), named


def _plain(signature: inspect.Signature) -> str:
    """A signature's names and defaults, without types."""
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(inspect.Signature(bare))
