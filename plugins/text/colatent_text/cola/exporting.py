"""`export-cola`: a model in the published form, in the published layout.

The inverse of an import, byte for byte; for a model that was trained on, its averaged weights in float32 and a config
that says the same network. Whatever the layout cannot say is refused by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colatent.checkpoint.codecs import codec_group, read_facts
from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.published import prior_pairs, published_prior, rotary_buffers, to_published
from colatent.checkpoint.resolve import resolve_model
from colatent.config.checks import validate
from colatent.config.prior import PriorConfig
from colatent.errors import UserError
from colatent.prior.dit import rotary_dim
from colatent_text.cola.files import PRIOR, VAE, PublishedModel, write_models
from colatent_text.cola.importing import ORIGIN, SCALE, WINDOW
from colatent_text.cola.layout import published_vae, vae_pairs
from colatent_text.cola.special import named_tokenizer
from colatent_text.config import TextConfig

KIND = {PRIOR: ("ColaDiTModel", "cola_dit"), VAE: ("ColaTextVAEModel", "cola_text_vae")}
"""Class and model type that the published code looks for."""


def export_cola(model: str | Path, out: Path, *, ema: bool = True) -> Path:
    """Write the model at `model` (a run, a checkpoint, an imported model) into the new folder `out`; returns it."""
    checkpoint = resolve_model(model)
    stream = _only_text(checkpoint)
    stored, facts = checkpoint.document("model"), read_facts(checkpoint, stream)
    if stored.get("average_only") and not ema:
        what = "its codecs are saved as their average, which goes with the averaged prior"
        raise UserError(what, where=str(checkpoint.path), do="export it without --raw")
    config = validate(TextConfig, facts.config, where=f"streams.{stream}.config")
    codec = checkpoint.tensors(codec_group(stream))
    prior = validate(PriorConfig, stored["prior"], where="prior")
    settings = {
        PRIOR: published_prior(prior, channels=config.channels, block=config.block, rope_dim=rotary_dim(prior)),
        VAE: published_vae(config, vocabulary=len(codec["encoder.wte.weight"]) - 1),
    }
    group = "prior.ema" if ema and checkpoint.has("prior.ema") else "prior"
    where = str(checkpoint.path)
    codec = {name: tensor for name, tensor in codec.items() if name not in SCALE}
    tensors = {
        PRIOR: to_published(prior_pairs(prior, stream=stream), checkpoint.tensors(group), where=where)
        | rotary_buffers(prior.layers, rope_dim=rotary_dim(prior)),
        VAE: to_published(vae_pairs(config), codec, where=where),
    }
    models = _as_imported(checkpoint, tensors, {name: each.model_dump(mode="json") for name, each in settings.items()})
    assets = checkpoint.files(codec_group(stream))
    write_models(out, models, files=named_tokenizer(config, assets))
    _say_windows(stored["window"], config.window, block=config.block)
    return out


def _say_windows(prior: int, codec: int, *, block: int) -> None:
    """The layout has no place for how far a model looks back."""
    what = f"it looks back at {prior} latents" + (f", its VAE at {codec}" if codec != prior else "")
    if prior != codec or not 0 <= codec - WINDOW < block:  # an import rounds up to whole blocks
        do = f"import it with --window {prior}" + (", which then holds for both" if codec != prior else "")
        warnings.warn(f"{what}, which the published layout cannot say: {do}", stacklevel=3)


def _only_text(checkpoint: Checkpoint) -> str:
    """The model's one stream, if it is one of text."""
    where = str(checkpoint.path)
    if not checkpoint.has("prior"):
        raise UserError("has no prior yet, only codecs", where=where, do="train stage prior first")
    streams = list(checkpoint.document("model")["channels"])
    if len(streams) > 1:
        what = f"has {len(streams)} streams ({', '.join(streams)}), the published layout has one of text"
        raise UserError(what, where=where, do="such a model cannot be exported")
    codec = read_facts(checkpoint, streams[0]).codec
    if codec != "text":
        what = f"its stream {streams[0]!r} has codec {codec!r}, the published layout has one of text"
        raise UserError(what, where=where, do="such a model cannot be exported")
    return streams[0]


def _as_imported(
    checkpoint: Checkpoint, tensors: Mapping[str, Mapping[str, Tensor]], settings: Mapping[str, dict[str, Any]]
) -> dict[str, PublishedModel]:
    """The models with what an import kept: dtypes, stored frequencies, settings without effect."""
    if not checkpoint.has(ORIGIN) and f"{ORIGIN}.json" not in checkpoint.manifest.files:
        names = {name: {"architectures": [kind], "model_type": short} for name, (kind, short) in KIND.items()}
        return {
            name: PublishedModel(config=names[name] | {"dtype": "float32"} | settings[name], tensors=tensors[name])
            for name in tensors
        }
    origin = checkpoint.document(ORIGIN)
    kept = checkpoint.tensors(ORIGIN) if checkpoint.has(ORIGIN) else {}
    models = {}
    for name, group in tensors.items():
        here = {key.removeprefix(f"{name}/"): tensor for key, tensor in kept.items() if key.startswith(f"{name}/")}
        found = {key: here.get(key, tensor) for key, tensor in group.items()}
        if name == PRIOR:  # a layout without stored frequencies gets none
            found = {key: value for key, value in found.items() if not key.endswith("rope.freqs") or key in here}
        dtypes = origin["dtypes"]
        cast = {
            key: value.to(getattr(torch, dtypes.get(f"{name}/{key}", "float32"))) if key not in here else value
            for key, value in found.items()
        }
        models[name] = PublishedModel(config=origin["configs"][name], tensors=cast)
    return models
