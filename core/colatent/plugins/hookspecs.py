"""The hooks: everything that the engine ever asks a plugin.

There are few, they declare, and none is called while training or generating; what a codec does is the contract of its
class. A hook is never called across plugins: each plugin has a manager of its own, so results never depend on order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from colatent.plugins.records import CodecInfo, DatasetInfo, TaskInfo

if TYPE_CHECKING:
    import click

PROJECT = "colatent"
"""The name of the markers and of the entry point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def colatent_codecs() -> Iterable[CodecInfo]:  # type: ignore[empty-body]
    """The codecs that this plugin brings. Must not import torch."""


@hookspec
def colatent_datasets() -> Iterable[DatasetInfo]:  # type: ignore[empty-body]
    """The datasets that this plugin brings. Must not import torch."""


@hookspec
def colatent_tasks() -> Iterable[TaskInfo]:  # type: ignore[empty-body]
    """The judges of finished models that this plugin brings. Must not import torch."""


@hookspec
def colatent_add_commands(cli: click.Group) -> None:
    """Add commands to `cli`, an empty group whose commands become commands of `colatent`. Must not import torch."""


HOOK_NAMES = tuple(name for name in dir() if name.startswith("colatent_"))
