"""From "package.module:Name" to the class, when a run builds it and not before."""

from __future__ import annotations

import difflib
from importlib import import_module

from colatent.errors import UserError
from colatent.plugins.loader import describe
from colatent.plugins.missing import how_to_install, missing_module, what_is_missing


def resolve(reference: str, *, who: str, distribution: str) -> type:
    """The class that `reference` names.

    who           what declared it ("codec 'text' of plugin ..."), for the error line
    distribution  the package that it comes with

    Raises `UserError` where the module cannot be imported, lacks the name, or the name is not a class.
    """
    module_name, _, name = reference.partition(":")
    try:
        home = import_module(module_name)
    except Exception as error:  # a plugin's module may raise anything at import
        if missing := missing_module(error, asked=module_name):
            do = how_to_install(missing, [distribution])
            raise UserError(what_is_missing(missing), where=who, do=do) from error
        raise UserError(f"cannot import {module_name!r} ({describe(error)})", where=who) from error
    found = getattr(home, name, None)
    if found is None:
        near = difflib.get_close_matches(name, [each for each in vars(home) if not each.startswith("_")], n=1)
        do = f"did you mean {near[0]!r}?" if near else f"is {reference!r} declared right?"
        raise UserError(f"{module_name!r} has no {name!r}", where=who, do=do)
    if not isinstance(found, type):
        raise UserError(f"{reference!r} is a {type(found).__name__}, not a class", where=who)
    return found
