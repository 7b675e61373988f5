"""Errors in a plugin's own code, told by its name: whoever runs a config did not write it and must know whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from colatent.errors import UserError


@contextmanager
def blamed(who: str, doing: str, *, where: str) -> Iterator[None]:
    """Any error but a `UserError` becomes one that says who failed at what: "codec 'depth' of … fails to be built". A
    module that is missing is left to whoever knows how it is installed."""
    try:
        yield
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # a plugin may raise any
        lines = str(error).strip().splitlines() or [""]
        what = f"{who} fails to {doing} ({type(error).__name__}: {lines[0][:200]})"
        raise UserError(what, where=where, do="tell who wrote it; --debug shows where it happened") from error
