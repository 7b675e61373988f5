"""A shape said by flags, as the config of a run that is made up.

It names a codec as every config does. What the flags call vocabulary and VAE are settings of that codec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from colatent.config import RunConfig

CODEC = "text"
NAME = "bench"
VOCABULARY = 256
"""Ids below this are drawn where a config decides the vocabulary: every tokenizer has so many."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag of the shape; `default` where it does not hang on the others."""

    help: str
    default: int | None = None
    least: int = 1


FLAGS = {
    "layers": Flag(help="Layers of the prior.", default=8),
    "width": Flag(help="Its width.", default=512),
    "heads": Flag(help="Its heads.", default=8),
    "mlp": Flag(help="Inner width of its feed-forward, over the width.", default=4),
    "latent": Flag(help="Channels of a latent.", default=16),
    "block": Flag(help="Latents of a block.", default=16),
    "vocab": Flag(help="Token ids of the codec.", default=32_000, least=2),
    "vae_layers": Flag(help="Layers of the codec's encoder, and of its decoder.", default=2),
    "vae_width": Flag(help="Width of the codec. [default: three quarters of --width]"),
    "vae_heads": Flag(help="Its heads. [default: heads as wide as the prior's]"),
}


def shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags, for a command."""
    for name, flag in reversed(FLAGS.items()):
        shown = flag.help if flag.default is None else f"{flag.help} [default: {flag.default}]"
        command = click.option(f"--{name.replace('_', '-')}", type=click.IntRange(flag.least), help=shown)(command)
    return command


def check_alone(config: str | None, said: Mapping[str, Any]) -> None:
    """A shape is said by flags or by a config."""
    given = [name for name, value in said.items() if value is not None]
    if config is not None and given:
        raise click.UsageError(f"--{given[0].replace('_', '-')} is for CONFIG to say: override its key instead")


def vocabulary(said: Mapping[str, int | None]) -> int:
    """How many token ids the shape has."""
    return said["vocab"] or FLAGS["vocab"].default or VOCABULARY


def shape_config(said: Mapping[str, int | None], *, length: int, device: str, **stage: Any) -> RunConfig:
    """The config of the shape that flags say, with sequences of `length` latents; `stage`: settings of stage prior."""
    from colatent.config import RunConfig, validate

    shape = {name: flag.default if said[name] is None else said[name] for name, flag in FLAGS.items()}
    length = -(-length // shape["block"]) * shape["block"]  # type: ignore[operator]
    values = {
        "name": NAME,
        "device": device,
        "streams": {CODEC: {"codec": CODEC, "config": _codec_settings(shape, window=length)}},
        "data": {"length": length, "sources": {NAME: {"dataset": NAME}}},
        "prior": {
            "layers": shape["layers"],
            "width": shape["width"],
            "heads": shape["heads"],
            "mlp_ratio": shape["mlp"],
        },
        "stages": {"prior": {"steps": 1, "ema": 0.0, **stage}},
    }
    return validate(RunConfig, values, file="flags")


def _codec_settings(shape: Mapping[str, Any], *, window: int) -> dict[str, Any]:
    width = shape["vae_width"] or max(2, shape["width"] * 3 // 4)
    heads = shape["vae_heads"] or max(1, width * shape["heads"] // shape["width"])
    return {
        "tokenizer": {"kind": "ids", "size": shape["vocab"]},
        "channels": shape["latent"],
        "block": shape["block"],
        "width": width,
        "heads": heads,
        "encoder_layers": shape["vae_layers"],
        "decoder_layers": shape["vae_layers"],
        "window": window,
    }
