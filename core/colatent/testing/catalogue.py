"""The checks in order, and what they are run on: a codec, a dataset, a task, or all that a plugin declares.

A vital check comes before those that stand on it. Everything else is in the order in which an author would mend it.
"""

from __future__ import annotations

from typing import Any

from colatent.plugins import Plugin, PluginSet
from colatent.testing import (
    behaviour,
    datasets,
    declaration,
    layout,
    outside,
    streams,
    surface,
    surroundings,
    tasks,
    training,
    weights,
)
from colatent.testing.running import Check, Examination, Result
from colatent.testing.subject import DatasetSubject, Subject, TaskSubject

CODEC_CHECKS: tuple[Check[Subject], ...] = (
    declaration.config,
    declaration.metadata,
    declaration.light,
    declaration.config_round_trip,
    declaration.latent_spec,
    surface.protocol,
    surface.class_,
    surface.options,
    layout.examples,
    layout.records,
    layout.positions,
    layout.units,
    layout.measure,
    layout.plan,
    layout.finished,
    behaviour.independence,
    behaviour.lengths,
    behaviour.cuts,
    behaviour.determinism,
    behaviour.round_trip,
    weights.scale,
    weights.state_dict,
    weights.pickling,
    weights.dtype,
    weights.device,
    training.losses,
    training.gradients,
    surroundings.global_state,
    streams.streaming,
    outside.files,
    outside.stored,
    outside.show,
    outside.likelihood,
)
DATASET_CHECKS: tuple[Check[DatasetSubject], ...] = (
    datasets.config,
    datasets.metadata,
    datasets.class_,
    datasets.config_round_trip,
    datasets.samples_,
    datasets.split,
    datasets.pickling,
)
TASK_CHECKS: tuple[Check[TaskSubject], ...] = (tasks.config, tasks.metadata, tasks.class_, tasks.config_round_trip)


def examine_codec(found: PluginSet, name: str) -> Examination[Subject]:
    """The checks of the codec `name`, none of them run yet."""
    return Examination(f"codec {name}", CODEC_CHECKS, Subject(found=found, info=found.codec(name)))


def examine_dataset(found: PluginSet, name: str) -> Examination[DatasetSubject]:
    """The checks of the dataset `name`, none of them run yet."""
    return Examination(f"dataset {name}", DATASET_CHECKS, DatasetSubject(found=found, info=found.dataset(name)))


def examine_task(found: PluginSet, name: str) -> Examination[TaskSubject]:
    """The checks of the task `name`, none of them run yet."""
    return Examination(f"task {name}", TASK_CHECKS, TaskSubject(found=found, info=found.task(name)))


def check_codec(found: PluginSet, name: str) -> list[Result]:
    """Every check of the codec `name`, in order."""
    return examine_codec(found, name).results()


def check_dataset(found: PluginSet, name: str) -> list[Result]:
    """Every check of the dataset `name`, in order."""
    return examine_dataset(found, name).results()


def check_task(found: PluginSet, name: str) -> list[Result]:
    """Every check of the task `name`, in order."""
    return examine_task(found, name).results()


def examine_plugin(found: PluginSet, plugin: Plugin) -> list[Examination[Any]]:
    """The checks of all that a plugin declares."""
    codecs = [examine_codec(found, info.name) for info in plugin.codecs]
    datasets = [examine_dataset(found, info.name) for info in plugin.datasets]
    return [*codecs, *datasets, *(examine_task(found, info.name) for info in plugin.tasks)]


def examine(found: PluginSet, name: str) -> list[Examination[Any]]:
    """The checks of the plugin `name`, or else of the codec, the dataset and the task that are called so.

    Raises `UserError` where nothing in force is called so, with the reason.
    """
    for plugin in found.active:
        if plugin.name == name:
            return examine_plugin(found, plugin)
    called: list[Examination[Any]] = [examine_codec(found, name)] if name in found.codecs else []
    called += [examine_dataset(found, name)] if name in found.datasets else []
    called += [examine_task(found, name)] if name in found.tasks else []
    return called or [examine_codec(found, name)]
