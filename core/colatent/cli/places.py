"""Where a command writes: a path that says something. An empty one, which is what a variable that is not set leaves,
would be the folder that one happens to stand in."""

from __future__ import annotations

import os
from typing import Any

import click


class Place(click.Path):
    """`click.Path` for what is written."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, if it is one."""
        if not os.fspath(value):
            self.fail("is empty, it must say where to write", param, ctx)
        return super().convert(value, param, ctx)
