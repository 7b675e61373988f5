"""The config from which the training of an imported model goes on: its own settings, and data to be named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from colatent.config.prior import PriorConfig
from colatent.config.sampling import SampleConfig
from colatent_text.config import TextConfig

HEADER = """\
# Training goes on from the imported weights (stage prior, over the imported VAE as it is):
#
#   colatent train THIS_FILE data.path=FILE_OR_FOLDER
#
# The settings of streams and prior are those of the weights and cannot be changed; all others can.
"""
LENGTH = 512
"""Latents of a training sequence, as published."""


def training_config(codec: TextConfig, prior: PriorConfig, *, sample: SampleConfig, init: Path) -> str:
    """A run config in YAML, which starts from the imported model in the folder `init`."""
    length = max(codec.block, LENGTH // codec.block * codec.block)
    files: dict[str, Any] = {"path": "${data.path}", "window": 8 * length}
    if codec.tokenizer.kind == "ids":  # half an id is another id
        files["cut"] = "words"
    settings: dict[str, Any] = {
        "name": "cola",
        "init": str(init.absolute()).replace("${", "\\${"),  # a folder's name is no interpolation
        "streams": {"text": {"codec": "text", "config": codec.model_dump(mode="json", exclude_defaults=True)}},
        "data": {"path": "???", "length": length, "sources": {"text": {"dataset": "text-files", "config": files}}},
        "prior": prior.model_dump(mode="json", exclude_defaults=True),
        "stages": {"prior": {"steps": 1000, "lr": 1.5e-4, "min_lr": 1e-5, "precision": "bf16"}},
        "sample": sample.model_dump(mode="json", exclude_defaults=True),
    }
    return HEADER + OmegaConf.to_yaml(OmegaConf.create(settings))
