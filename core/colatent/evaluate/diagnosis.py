"""The diagnosis of a finished model: every number by stream, and what stands out among them.

It asks one question per room. Are the latents worth modelling? Does the decoder read them, also when they are a little
off? Does the prior know more of them than their mean and covariance? Whose fault is a wrong unit? A stream whose codec
cannot tell how many units are right (`TrainableCodec`) gets the first and the third; one that is never generated, the
first and the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from colatent.evaluate.diagnosis_decoder import Reconstruction, Robustness, reconstruction, robustness
from colatent.evaluate.diagnosis_denoise import Denoising, denoising
from colatent.evaluate.diagnosis_flow import FlowCurves, flow_curves
from colatent.evaluate.diagnosis_latents import LatentStatistics, latent_statistics, moments_of
from colatent.evaluate.heldout import Diagnosable, HeldOut
from colatent.plugins.contract import TrainableCodec

FORMAT = 1
"""Of diagnosis.json; grows when a key changes its meaning or goes."""
DIGITS = 6
"""Significant digits in JSON."""


@dataclass(frozen=True, kw_only=True)
class StreamDiagnosis:
    """One stream; None where the question does not arise (see the head of this file)."""

    items: int
    latents: LatentStatistics
    reconstruction: Reconstruction | None
    robustness: Robustness | None
    flow: FlowCurves | None
    denoising: Denoising | None


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All streams of a model, by name. `solver`, `steps` and `shift` are the model's; a stream may have its own."""

    seed: int
    samples: int
    solver: str
    steps: int
    shift: float
    streams: dict[str, StreamDiagnosis]

    def to_json(self) -> dict[str, Any]:
        """JSON-able, rounded to significant digits."""
        found: dict[str, Any] = rounded({"format": FORMAT, **asdict(self)})
        return found


def diagnose(
    model: Diagnosable,
    held: HeldOut,
    *,
    device: torch.device,
    say: Callable[[str], None] = lambda line: None,
) -> Diagnosis:
    """Measure everything. `say` is told what is measured next."""
    streams, decoders = {}, {}
    for name, items in held.items.items():
        say(f"{name}: latents and decoder")
        codec = model.codecs[name]
        decoders[name] = (
            (reconstruction(codec, items, seed=held.seed), robustness(codec, items, seed=held.seed))
            if isinstance(codec, TrainableCodec)
            else (None, None)
        )
    say("flow loss by t")
    curves = flow_curves(model.prior, held, device=device)
    say("denoising from each t")
    splits = denoising(model, held, device=device)
    for name, items in held.items.items():
        streams[name] = StreamDiagnosis(
            items=len(items),
            latents=latent_statistics(moments_of(items)),
            reconstruction=decoders[name][0],
            robustness=decoders[name][1],
            flow=curves.get(name),
            denoising=splits.get(name),
        )
    return Diagnosis(
        seed=held.seed,
        samples=len(held.sequences),
        solver=model.sample.solver,
        steps=model.sample.steps,
        shift=model.sample.shift,
        streams=streams,
    )


def rounded(value: Any) -> Any:
    """Floats anywhere inside, to significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
