"""The check that a codec leaves the process as it found it: everything in it is shared with others.

A default dtype or a warning filter that one codec sets changes what every other codec of a run computes or says, and a
draw from a global random state makes their results hang on the order of calls.
"""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from colatent.plugins.contract import TrainableCodec
from colatent.plugins.items import FileCodec, Showable
from colatent.plugins.latents import PlanRequest
from colatent.testing.process import RANDOM, SETTINGS, kept
from colatent.testing.requiring import require
from colatent.testing.running import check
from colatent.testing.subject import Subject, default_options


@check()
def global_state(subject: Subject) -> None:
    """Building and using a codec leave the process as it was: defaults, threads, warnings, folder, environment; use
    leaves its random states too."""
    with torch.enable_grad():
        with kept(SETTINGS) as changed:
            codec = subject.build()
        require(not changed, f"building changes {', '.join(changed)}")
        with kept(SETTINGS + RANDOM) as changed:
            _use(codec, subject)
        require(not changed, f"use changes {', '.join(changed)}")


def _use(codec: Any, subject: Subject) -> None:
    """Call what a run would call."""
    items = codec.example_batch(len(subject.items))
    codec.encode(items)
    codec.decode(subject.latents())
    codec.finished(subject.latents()[0])
    list(islice(codec.plan(PlanRequest(options=default_options(codec))), 1))
    if isinstance(codec, TrainableCodec):
        codec.losses(items, subject.latents(), generator=torch.Generator().manual_seed(0))
        codec.reconstruction_score(items, subject.latents())
    if isinstance(codec, Showable):
        codec.show(items[0])
    if isinstance(codec, FileCodec):
        with tempfile.TemporaryDirectory() as folder:
            codec.read_item(codec.write_item(items[0], Path(folder) / "item"))
