"""`import-cola`: a published checkpoint as one of ours.

What comes out is a checkpoint like any other, which `load`, `generate`, `init:` and the rest take without knowing where
it came from, and beside it a config from which training goes on. What our layout has no place for (settings without
effect, stored rotary frequencies, the tensors' dtype) is kept in the checkpoint, so that an export gives the same
bytes.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from colatent.checkpoint.codecs import CodecFacts, codec_group, codec_hash
from colatent.checkpoint.published import (
    Pair,
    PublishedPrior,
    prior_pairs,
    rotary_buffers,
    to_ours,
    to_published,
    without_bookkeeping,
)
from colatent.checkpoint.storage import temporary_beside, write_chunks
from colatent.checkpoint.write import write_checkpoint
from colatent.config.checks import validate
from colatent.config.sampling import SampleConfig
from colatent.errors import UserError
from colatent.latents.draws import generator
from colatent.latents.posterior import SCALE_RANGE, overall_std
from colatent.plugins import load_plugins
from colatent.prior.dit import Prior
from colatent.train.versions import versions
from colatent_text.codec import TextCodec
from colatent_text.cola.files import CONFIG, PRIOR, TOKENIZER, VAE, PublishedModel, check_new, move_in, read_model
from colatent_text.cola.layout import PublishedVAE, our_config, vae_pairs
from colatent_text.cola.special import DEFAULT, Special, read_tokenizer, tokenizer_settings
from colatent_text.cola.training import training_config
from colatent_text.config import TextConfig
from colatent_text.items import Text
from colatent_text.tokenizers import ASSET

STREAM = "text"
ORIGIN = "cola"
"""Name of the document and of the tensors that keep what our layout has no place for."""
WINDOW = 2048
"""Latents of history that an imported model looks back at, unless told otherwise. (The published code keeps all.)"""
SCALE = ("shift_C", "scale_C")
"""The codec's tensors that stand in the published config, not among its weights."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What weights can be stored as: float32 holds each exactly, so that an export gives the same bytes."""
RANDOM_BLOCKS = 32
"""Blocks of random tokens that the scale of a VAE without normalised means is measured on."""
SAMPLE = SampleConfig(
    steps=16, solver="euler", guidance=7.0, max_units=32, options={STREAM: {"repetition_penalty": 1.1}}
)
"""How the published code generates."""


def import_cola(source: Path, out: Path, *, special: Special = DEFAULT, window: int = WINDOW) -> Path:
    """Read the published layout in `source` into the new folder `out`; returns it."""
    check_new(out)
    models = {name: read_model(source / name) for name in (PRIOR, VAE)}
    prior = _settings(PublishedPrior, models[PRIOR], source / PRIOR)
    vae = _settings(PublishedVAE, models[VAE], source / VAE)
    _check_pair(prior, vae, source)
    assets = {ASSET: read_tokenizer(source / TOKENIZER)} if os.path.lexists(source / TOKENIZER) else {}
    tokenizer = tokenizer_settings(assets, special, size=vae.vocab_size, path=source / TOKENIZER)
    config = validate(TextConfig, our_config(vae, tokenizer=tokenizer, window=window), where=str(source / VAE))
    contents = _contents(models, prior, config, assets, source)
    _write(out, contents, training_config(config, prior.ours(), sample=SAMPLE, init=out))
    _say_off_scale(CodecFacts(**contents["documents"]["model"]["codecs"][STREAM]), source)
    return out


def _say_off_scale(facts: CodecFacts, source: Path) -> None:
    low, high = SCALE_RANGE
    overall = overall_std(facts.std)
    if not low <= overall <= high:
        what = f"{source / VAE}: its latents have std {overall:.3g}"
        warnings.warn(f"{what}: the model generates, but training refuses what is not {low} to {high}", stacklevel=3)


def _settings(kind: type[Any], model: PublishedModel, folder: Path) -> Any:
    file = str(folder / CONFIG)
    try:
        settings = validate(kind, without_bookkeeping(model.config), file=file)
    except UserError as error:  # what validate advises is for configs of ours
        raise UserError(error.what, where=error.where, do="such a model cannot be imported: see docs/cola.md") from None
    if getattr(settings, "causal", False):
        warnings.warn(f"{file}: causal has no effect in the published code, and has none here", stacklevel=2)
    return settings


def _check_pair(prior: PublishedPrior, vae: PublishedVAE, source: Path) -> None:
    for here, there in (("txt_in_channels", "latent_dim"), ("block_size", "block_size")):
        if getattr(prior, here) != getattr(vae, there):
            what = f"{here} of {PRIOR} is {getattr(prior, here)}, {there} of {VAE} is {getattr(vae, there)}"
            raise UserError(what, where=str(source), do="give a prior and a VAE that belong together")
    if prior.rope_dim % 2 or prior.rope_dim > prior.head_dim:
        what = f"rope_dim {prior.rope_dim} must be even and at most head_dim ({prior.head_dim})"
        raise UserError(
            what, where=str(source / PRIOR / CONFIG), do="such a model cannot be imported: see docs/cola.md"
        )


def _contents(
    models: Mapping[str, PublishedModel],
    prior: PublishedPrior,
    config: TextConfig,
    assets: Mapping[str, bytes],
    source: Path,
) -> dict[str, dict[str, Any]]:
    """What the checkpoint holds, in the terms of `write_checkpoint`."""
    published = dict(models[PRIOR].tensors)
    kept = {f"{PRIOR}/{name}": published.pop(name, None) for name in rotary_buffers(prior.num_layers, rope_dim=2)}
    network, of_codec = _on_paper(prior, config, assets, source)
    weights = _ours(prior_pairs(prior.ours(), stream=STREAM), published, network, source / PRIOR)
    codec = _ours(vae_pairs(config), models[VAE].tensors, of_codec, source / VAE) | _scale(config)
    _check_rotary(kept, prior, source / PRIOR)
    facts = _facts(config, codec, assets)
    model = {
        "prior": prior.ours().model_dump(mode="json"),
        "channels": {STREAM: prior.txt_in_channels},
        "window": config.window,
        "sample": SAMPLE.model_dump(mode="json"),
        "codecs": {STREAM: facts.to_json()},
    }
    dtypes = {
        f"{name}/{tensor}": str(value.dtype).removeprefix("torch.")
        for name, one in models.items()
        for tensor, value in one.tensors.items()
        if value.dtype != torch.float32
    }
    origin = {"configs": {name: dict(one.config) for name, one in models.items()}, "dtypes": dtypes}
    return {
        "tensors": {
            "prior": weights,
            codec_group(STREAM): codec,
            ORIGIN: {name: tensor for name, tensor in kept.items() if tensor is not None},
        },
        "documents": {"model": model, codec_group(STREAM): facts.to_json(), ORIGIN: origin},
        "files": {f"{codec_group(STREAM)}/{name}": data for name, data in assets.items()},
    }


def _on_paper(
    prior: PublishedPrior, config: TextConfig, assets: Mapping[str, bytes], source: Path
) -> tuple[Prior, TextCodec]:
    """Both networks without memory, to hold the weights against."""
    try:
        with torch.device("meta"):
            return Prior(prior.ours(), {STREAM: prior.txt_in_channels}), TextCodec(config, assets)
    except RuntimeError as error:  # sizes whose product no machine can count
        do = "give config and weights that belong together"
        raise UserError("its configs describe no possible network", where=str(source), do=do) from error


def _scale(config: TextConfig) -> dict[str, Tensor]:
    """The codec's fixed scale, as its buffers hold it."""
    return {
        "shift_C": torch.full((config.channels,), config.shifting_factor),
        "scale_C": torch.full((config.channels,), config.scaling_factor or 1.0),
    }


def _facts(config: TextConfig, codec: Mapping[str, Tensor], assets: Mapping[str, bytes]) -> CodecFacts:
    """Facts of the codec. There are no data to measure its latents on. Where the mean is normalised over C channels its
    mean square is 1, which fixes the scale over all channels; where it is not, random tokens tell its order."""
    settings, factor = config.model_dump(mode="json"), config.scaling_factor or 1.0
    mean, std = (-config.shifting_factor * factor,) * config.channels, (factor,) * config.channels
    if not config.mean_norm:
        mean, std = _measured(config, codec, assets)
    return CodecFacts(
        codec="text",
        config=settings,
        channels=config.channels,
        hash=codec_hash("text", settings, tensors=codec, assets=assets),
        trained=True,
        mean=mean,
        std=std,
    )


def _measured(
    config: TextConfig, tensors: Mapping[str, Tensor], assets: Mapping[str, bytes]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of what random tokens encode to."""
    codec = TextCodec(config, assets).eval()
    codec.load_state_dict(dict(tensors))
    size = RANDOM_BLOCKS * config.block * config.tokens_per_latent
    ids = generator("import", "scale").integers(0, codec.tokenizer.vocab_size - 1, size=size)
    with torch.no_grad():
        (record,) = codec.encode([Text(ids=tuple(ids.tolist()), ends=False)])
    return tuple(record.mean_LC.mean(0).tolist()), tuple(record.mean_LC.std(0).tolist())


def _ours(
    pairs: Sequence[Pair], published: Mapping[str, Tensor], network: nn.Module, folder: Path
) -> dict[str, Tensor]:
    """Published tensors under our names, each checked against the one that `network` would be written as.

    Checked before they are joined: matrices that are stacked into one of ours could otherwise trade rows unnoticed.
    """
    state = {name: tensor for name, tensor in network.state_dict().items() if name not in SCALE}
    for name, expected in to_published(pairs, state, where=str(folder)).items():
        found = published.get(name)
        if found is not None and found.shape != expected.shape:
            what = f"{name} is {tuple(found.shape)}, its config asks for {tuple(expected.shape)}"
            raise UserError(what, where=str(folder), do="give config and weights that belong together")
        if found is not None and not found.isfinite().all():
            raise UserError(f"{name} is not finite everywhere", where=str(folder), do="copy or save the weights again")
        if found is not None and found.dtype not in DTYPES:
            what = f"{name} is {str(found.dtype).removeprefix('torch.')}, which float32 does not hold"
            raise UserError(what, where=str(folder), do="give weights in float32, bfloat16 or float16")
    return to_ours(pairs, published, where=str(folder))


def _check_rotary(kept: Mapping[str, Tensor | None], prior: PublishedPrior, folder: Path) -> None:
    """Stored frequencies that are not those of the config would be lost here: this prior computes its own, and in
    float32 also where they were rounded to bfloat16 together with the weights."""
    expected = next(iter(rotary_buffers(1, rope_dim=prior.rope_dim).values()))
    for name, tensor in kept.items():
        if tensor is None:
            continue
        rounding = max(1e-4, torch.finfo(tensor.dtype).eps) if tensor.dtype in DTYPES else 0.0
        if not (tensor.shape == expected.shape and torch.allclose(tensor.float(), expected, rtol=rounding)):
            what = f"{name} does not hold the rotary frequencies of rope_dim {prior.rope_dim}"
            raise UserError(what, where=str(folder), do="give config and weights that belong together")


def _write(out: Path, contents: Mapping[str, dict[str, Any]], config: str) -> None:
    temporary = temporary_beside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        write_checkpoint(temporary, step=0, fingerprint=load_plugins().fingerprint, versions=versions(), **contents)
        write_chunks(temporary / "train.yaml", [config.encode()])
        move_in(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
