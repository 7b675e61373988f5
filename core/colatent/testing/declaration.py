"""Checks of what a plugin declares: the record and the settings, before any codec is built."""

from __future__ import annotations

import json
from typing import Any

import yaml

from colatent.plugins import LatentSpec
from colatent.testing.isolation import heavy_imports
from colatent.testing.requiring import check_closed, require
from colatent.testing.running import check
from colatent.testing.subject import Subject

SUMMARY = 100
"""Most characters of a summary: it stands in a table."""


@check(vital=True)
def config(subject: Subject) -> None:
    """The settings have defaults, are frozen and refuse unknown keys."""
    assert subject.config is not None
    check_closed(type(subject.config))


@check()
def light(subject: Subject) -> None:
    """Declaring the codec and asking its settings for `latent_spec()` import no deep-learning library."""
    owner = subject.found.owners["codec", subject.info.name]
    heavy = heavy_imports(target=owner.target, config=subject.info.config)
    require(not heavy, f"declaring or latent_spec() imports {', '.join(heavy)}")


@check()
def metadata(subject: Subject) -> None:
    """The declaration has a summary of one line, distinct fields, and what registry.toml says of the codec."""
    info = subject.info
    check_words(summary=info.summary, fields=info.fields)
    entry = subject.found.registry.codecs.get(info.name)
    for key in ("modality", "axes", "fields") if entry else ():
        declared, listed = getattr(info, key), getattr(entry, key)
        require(declared == listed, f"{key} is {declared!r}, registry.toml says {listed!r}")


@check()
def config_round_trip(subject: Subject) -> None:
    """The settings come back equal from JSON and from YAML."""
    check_round_trip(subject.config)


@check(vital=True)
def latent_spec(subject: Subject) -> None:
    """The settings tell channels, block and units per latent in a `LatentSpec`."""
    spec = subject.spec
    require(isinstance(spec, LatentSpec), f"latent_spec() gives {type(spec).__name__}, not LatentSpec")
    require(type(spec.channels) is int and spec.channels >= 1, f"channels is {spec.channels!r}")
    require(spec.block is None or (type(spec.block) is int and spec.block >= 1), f"block is {spec.block!r}")
    require(spec.units_per_latent > 0, f"units_per_latent is {spec.units_per_latent!r}")


def check_words(*, summary: str, fields: tuple[str, ...]) -> None:
    """What the loader lets pass and a person would stumble over."""
    require(bool(summary.strip()), "summary is empty: `colatent plugins list` has nothing to say of it")
    require(len(summary.splitlines()) == 1 and len(summary) <= SUMMARY, f"summary is longer than {SUMMARY} characters")
    require(len(set(fields)) == len(fields), f"fields {fields} name one twice")


def check_round_trip(settings: Any) -> None:
    """Settings equal what is read back of their JSON and YAML: checkpoints hold the one, runs the other."""
    model, dumped = type(settings), settings.model_dump(mode="json")
    again = {"JSON": json.loads(json.dumps(dumped)), "YAML": yaml.safe_load(yaml.safe_dump(dumped))}
    for form, read in again.items():
        found = model.model_validate(read)
        changed = [name for name in model.model_fields if getattr(found, name) != getattr(settings, name)]
        require(not changed, f"{', '.join(changed)} is another one after {form}")
