"""Codecs in checkpoints: their weights, their assets, and the facts by which a prior recognises its codec.

A prior over the latents of another codec, or of one that was never trained, is the commonest silent failure of such
systems. So whatever holds a codec also holds its facts, and whoever uses both compares them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.tensors import hash_tensors
from colatent.config.checks import validate
from colatent.errors import UserError
from colatent.plugins.blame import blamed
from colatent.plugins.contract import Codec, OptionedCodec, PreparedCodec
from colatent.plugins.pluginset import PluginSet


@dataclass(frozen=True, kw_only=True)
class CodecFacts:
    """What is known of a stream's codec.

    codec           its name among the plugins
    config          its settings, defaults filled in
    channels        width of its latents
    hash            sha256 of all that decides what it does, see `codec_hash`
    trained         whether its scale was measured: at the end of stage codec, at every checkpoint of stage joint; a
                    prior refuses any other
    mean, std       of its unit-scale latents per channel, as measured last
    reconstruction  share of held-out units that it reconstructs; None where it cannot tell
    """

    codec: str
    config: Mapping[str, Any]
    channels: int
    hash: str
    trained: bool
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    reconstruction: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def codec_hash(
    name: str, settings: Mapping[str, Any], *, tensors: Mapping[str, Tensor], assets: Mapping[str, bytes]
) -> str:
    """sha256 over a codec's name, settings, assets (a tokenizer, ...) and weights."""
    files = {file: hashlib.sha256(data).hexdigest() for file, data in assets.items()}
    parts = [name, settings, files, hash_tensors(tensors)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def facts_now(codec: Codec, *, name: str, settings: Mapping[str, Any], **known: Any) -> CodecFacts:
    """Facts of a codec as it is at this moment; `known` are those that the codec does not tell."""
    return CodecFacts(
        codec=name,
        config=settings,
        channels=codec.latent_spec().channels,
        hash=codec_hash(name, settings, tensors=codec_tensors(codec), assets=codec_assets(codec)),
        **known,
    )


def codec_group(stream: str) -> str:
    """Name under which a stream's codec stands in a checkpoint."""
    return f"codec.{stream}"


def check_options(codec: Codec | type, options: Mapping[str, Any], *, stream: str, where: str) -> dict[str, Any]:
    """Options of a codec's generation against the model that it names; all of them, defaults filled in.

    where  key path of the options in a config, "" where they come from a call
    """
    if not isinstance(codec, OptionedCodec):
        if options:
            what = f"generating stream {stream!r} has no options, but {', '.join(options)} was given"
            raise UserError(what, where=where or None, do="leave it out")
        return {}
    try:
        return validate(codec.options_model(), options, where=where).model_dump()
    except UserError as error:
        raise UserError(error.what, where=error.where if where else f"option {error.where}", do=error.do) from None


def build_codec(name: str, settings: Mapping[str, Any], *, plugins: PluginSet, where: str, assets: Any = None) -> Codec:
    """A codec with fresh weights. `assets` is needed where the codec is a `PreparedCodec`."""
    cls = plugins.codec_class(name, where=where)
    config = validate(plugins.codec_config(name, where=where), settings, where=f"{where}.config")
    who = plugins.who("codec", name)
    with blamed(who, "be built", where=where):
        codec: Codec = cls(config, assets) if hasattr(cls, "prepare") else cls(config)
    if not issubclass(cls, nn.Module):
        raise UserError(f"{who} is no torch.nn.Module", where=where, do=f"see colatent plugins validate {name}")
    with blamed(who, "describe its latents", where=where):
        codec.latent_spec()
    return codec


def copy_codec(codec: Codec, facts: CodecFacts, *, plugins: PluginSet, where: str) -> Codec:
    """Another codec of the same settings, assets and weights."""
    copy = build_codec(facts.codec, facts.config, plugins=plugins, where=where, assets=codec_assets(codec))
    load_weights(copy, codec_tensors(codec), where=where)
    return copy


def codec_tensors(codec: Codec) -> dict[str, Tensor]:
    """The codec's state dict."""
    assert isinstance(codec, nn.Module)
    return dict(codec.state_dict())


def codec_assets(codec: Codec) -> dict[str, bytes]:
    """The codec's assets; none where it needs none."""
    return codec.assets() if isinstance(codec, PreparedCodec) else {}


def codec_contents(stream: str, codec: Codec, facts: CodecFacts) -> dict[str, dict[str, Any]]:
    """What to write of a codec, in the terms of `write_checkpoint`."""
    group = codec_group(stream)
    return {
        "tensors": {group: codec_tensors(codec)},
        "documents": {group: facts.to_json()},
        "files": {f"{group}/{name}": data for name, data in codec_assets(codec).items()},
    }


def read_facts(checkpoint: Checkpoint, stream: str) -> CodecFacts:
    """The facts of a stream's codec."""
    stored = checkpoint.document(codec_group(stream))
    return CodecFacts(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})


def load_codec(checkpoint: Checkpoint, stream: str, *, plugins: PluginSet) -> tuple[Codec, CodecFacts]:
    """The codec of a stream and its facts; refuses one that is not the one noted."""
    facts, group = read_facts(checkpoint, stream), codec_group(stream)
    where = f"{checkpoint.path}: stream {stream}"
    tensors, assets = checkpoint.tensors(group), checkpoint.files(group)
    if codec_hash(facts.codec, facts.config, tensors=tensors, assets=assets) != facts.hash:
        what = f"weights, settings or assets of codec {facts.codec!r} are not those that its facts were measured on"
        raise UserError(what, where=where, do="restore the checkpoint or train the codec again")
    codec = build_codec(facts.codec, facts.config, plugins=plugins, where=where, assets=assets)
    load_weights(codec, tensors, where=where)
    return codec, facts


def load_weights(module: Any, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """`load_state_dict` whose complaint is one line."""
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        what = f"weights do not fit: {first[0].strip()}"
        raise UserError(what, where=where, do="use the config and the plugin version that wrote them") from error


def check_same_codec(remembered: CodecFacts, present: CodecFacts, *, stream: str, where: str) -> None:
    """Refuse a codec that is not the one a prior was trained on."""
    if not present.trained:
        what = f"the codec of stream {stream!r} was never trained: its latents mean nothing to a prior"
        raise UserError(what, where=where, do="train stage codec first or set streams.*.weights")
    if remembered.hash != present.hash:
        what = (
            f"the prior was trained on another codec for stream {stream!r} "
            f"({remembered.hash[:12]}, here {present.hash[:12]})"
        )
        raise UserError(what, where=where, do="use the codec that the prior was trained on, or train the prior again")
