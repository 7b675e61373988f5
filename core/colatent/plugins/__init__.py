"""The seam between the engine and a modality: what a plugin declares, and how the engine finds it.

Everything exported here is light on purpose: a plugin's declaring module imports it, and `colatent --help` waits for
that. The codec contract (`colatent.plugins.contract`) speaks of tensors, so it is imported from its own module.
"""

from __future__ import annotations

from colatent.plugins.hookspecs import hookimpl
from colatent.plugins.loader import Candidate, Plugin, State
from colatent.plugins.pluginset import PluginSet, load_plugins
from colatent.plugins.records import API_VERSION, CodecInfo, DatasetInfo, LatentSpec, TaskInfo

__all__ = [
    "API_VERSION",
    "Candidate",
    "CodecInfo",
    "DatasetInfo",
    "LatentSpec",
    "Plugin",
    "PluginSet",
    "State",
    "TaskInfo",
    "hookimpl",
    "load_plugins",
]
