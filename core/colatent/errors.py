"""What went wrong, said to the person who can mend it.

`UserError` is the one exception that the command line turns into a single line and exit status 2. Everything else is a
bug of ours and keeps its traceback. It is a `ValueError`, so that library users catch what they would expect to catch.
"""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that the user can mend: says what is wrong, where, and what to do, in one line."""

    def __init__(self, what: str, *, where: str | None = None, do: str | None = None) -> None:
        self.what, self.where, self.do = what, where, do
        line = what if where is None else f"{where}: {what}"
        super().__init__(line if do is None else f"{line}; {do}")
