"""Training the example configs for a few steps, and the files that keep what came of it.

A curve is what `colatent train` logs. What a stage does before and after its steps (make a tokenizer, measure the scale
of latents, score held-out samples) is done on few samples. Arithmetic is the same from process to process on one kind
of machine, on one thread; another CPU, or another version of a library, sums in another order.
"""

from __future__ import annotations

import json
import platform
import sys
import unicodedata
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from colatent.config import load
from colatent.plugins.loader import Candidate, installed
from colatent.plugins.pluginset import PluginSet, load_plugins
from colatent.train import codec_stage, codecs, prior_stage
from colatent.train.progress import Reporter
from colatent.train.run import train
from curves.cases import CASES, HERE, Case

FOLDER = Path(__file__).resolve().parent
EXAMPLES = FOLDER.parents[1] / "examples"
PACKAGES = {"signal": "plugin-template", "strokes": "colatent-strokes", "pca": "colatent-pca"}
"""Folder of each plugin that the examples bring."""
LIBRARIES = ("torch", "numpy", "tokenizers", "scikit-learn", "matplotlib", "pillow")
"""What computes, and what data come from."""
UNICODE = unicodedata.unidata_version
FEW = (
    (codecs, {"SETUP_SAMPLES": 100}),
    (codec_stage, {"SCALE_SAMPLES": 64, "SCORE_SAMPLES": 8}),
    (prior_stage, {"EVAL_SAMPLES": 1}),
)
"""Numbers of samples that no config sets, in the modules that know them."""


class Recorder:
    """Trains cases in a folder, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._plugins, self._done = folder, _plugins(), dict[str, dict[str, Any]]()

    def record(self, name: str) -> dict[str, Any]:
        """The curve of a case, as it is stored."""
        if name not in self._done:
            case = CASES[name]
            if case.after:
                self.record(case.after)
            self._done[name] = {
                "config": f"examples/{case.config}",
                "overrides": case.settings(),
                "machine": machine(),
                "losses": self._losses(name, case),
            }
        return self._done[name]

    def _losses(self, name: str, case: Case) -> dict[str, list[float]]:
        """The loss of every step, by stage."""
        for file, write in case.made.items():
            write(self._folder / file)
        here = [one.replace(HERE, str(self._folder)) for one in case.settings()]
        loaded = load(EXAMPLES / case.config, [*here, f"out={self._folder / name}"])
        with ExitStack() as stack:
            for module, numbers in FEW:
                stack.enter_context(mock.patch.multiple(module, **numbers))
            run = train(loaded, plugins=self._plugins, reporter=Reporter(quiet=True))
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {
            stage: [shortest(one["loss"]) for one in records if one["stage"] == stage and "loss" in one]
            for stage in case.batches
        }


def shortest(value: float) -> float:
    """A float32 as the number with the fewest digits that is still the same float32."""
    assert float(np.float32(value)) == value
    return float(str(np.float32(value)))


def machine() -> dict[str, str]:
    """What a loss hangs on, to its last bit, beside the code."""
    found = {name: version(name) for name in LIBRARIES}
    return {"cpu": _cpu(), "instructions": torch.backends.cpu.get_cpu_capability(), **found, "unicode": UNICODE}


def _cpu() -> str:
    """The CPU's name, with the numbers of its kind: virtual machines give names that say little."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    named = [facts.get("model name", platform.machine())]
    return ", ".join(named + [f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts])


def _plugins() -> PluginSet:
    """What comes with colatent, and what the examples bring, installed or not."""
    sys.path += [str(EXAMPLES / folder) for folder in PACKAGES.values()]
    brought = [
        Candidate(name=name, distribution=f"colatent-{name}", version="0", target=f"colatent_{name}.plugin")
        for name in PACKAGES
    ]
    return load_plugins([*(one for one in installed() if one.builtin), *brought])


def stored(name: str) -> Path:
    """The file that keeps the curve of a case."""
    return FOLDER / f"{name}.json"
