"""Which held-out data a finished model is measured on: those of its own run, or of a config that is named.

A model does not know data; its run folder does. Shared by the commands of `colatent eval` that need samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from colatent.errors import UserError

if TYPE_CHECKING:
    from colatent.config.schema import RunConfig
    from colatent.evaluate.heldout import OpenedData
    from colatent.generate.model import Model


def data_config(model: str, data: str | None, overrides: tuple[str, ...]) -> RunConfig:
    """The config whose data are used, with overrides for what has moved since; read before torch is imported."""
    from colatent.checkpoint.resolve import run_of
    from colatent.checkpoint.run import CONFIG
    from colatent.config import load

    run = run_of(model)
    if data is None and run is None:
        from colatent.checkpoint.resolve import resolve_model

        resolve_model(model)  # what is no model at all is told first
        raise UserError("lies in no run folder, so it has no data", where=model, do="name a config with --data CONFIG")
    path = Path(data) if data is not None else Path(str(run and run.path)) / CONFIG
    return load(path, overrides).config


def load_with_data(model: str, config: RunConfig, *, n: int, seed: int, device: str) -> tuple[Model, OpenedData]:
    """The model, and the first `n` held-out samples of each source of `config`."""
    from colatent.checkpoint.codecs import read_facts
    from colatent.checkpoint.resolve import resolve_model
    from colatent.evaluate.heldout import open_held_out
    from colatent.generate.model import load
    from colatent.plugins import load_plugins

    plugins, checkpoint = load_plugins(), resolve_model(model)
    loaded = load(checkpoint.path, plugins=plugins, device=device)
    facts = {stream: read_facts(checkpoint, stream) for stream in loaded.codecs}
    names = {stream: one.codec for stream, one in facts.items()}
    settings = {stream: one.config for stream, one in facts.items()}
    found = open_held_out(config, codecs=loaded.codecs, names=names, settings=settings, plugins=plugins, n=n, seed=seed)
    return loaded, found
