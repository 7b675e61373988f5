"""The published prior's layout, in and out: its `config.json` as a `PriorConfig`, its tensors under our names.

A mapping is a list of `Pair`s, which say which published tensors become which of ours and back, so that one list serves
both directions and nothing can be read that could not be written. Modulations of a layer are four matrices there and
one here; all else is a new name. The codec's half of the layout is its plugin's, in the same terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from colatent.config.prior import PriorConfig
from colatent.config.settings import Settings
from colatent.errors import UserError

THETA = 10_000.0
"""Base of the published prior's rotary frequencies, which its config does not name."""

BOOKKEEPING = {"architectures", "auto_map", "dtype", "model_type", "torch_dtype", "transformers_version"}
BOOKKEEPING |= {"output_attentions", "output_hidden_states", "return_dict", "use_cache"}
"""What the library that wrote a published config adds; it says nothing of the network."""


class PublishedPrior(Settings):
    """`cola_dit/config.json`, with the defaults of the published code."""

    txt_in_channels: PositiveInt = 16
    txt_out_channels: PositiveInt = 16
    txt_dim: PositiveInt = 2048
    emb_dim: PositiveInt = 2048
    heads: PositiveInt = 16
    head_dim: PositiveInt = 128
    expand_ratio: PositiveInt = 4
    num_layers: PositiveInt = 24
    norm_eps: PositiveFloat = 1e-5
    qk_bias: bool = False
    patch_size: Literal[1] = 1
    rope_dim: PositiveInt = 96
    block_size: PositiveInt = 4

    @model_validator(mode="after")
    def _fits(self) -> PublishedPrior:
        for one, other in (("emb_dim", "txt_dim"), ("txt_out_channels", "txt_in_channels")):
            if getattr(self, one) != getattr(self, other):
                raise ValueError(f"{one} {getattr(self, one)} must equal {other} ({getattr(self, other)})")
        if self.heads * self.head_dim != self.txt_dim:
            raise ValueError(f"head_dim {self.head_dim} must be txt_dim / heads ({self.txt_dim} / {self.heads})")
        return self

    def ours(self) -> PriorConfig:
        """The same network in our settings."""
        return PriorConfig(
            layers=self.num_layers,
            width=self.txt_dim,
            heads=self.heads,
            rope_dim=self.rope_dim,
            rope_theta=THETA,
            mlp_ratio=self.expand_ratio,
            norm_eps=self.norm_eps,
            qk_bias=self.qk_bias,
        )


def published_prior(config: PriorConfig, *, channels: int, block: int, rope_dim: int) -> PublishedPrior:
    """Our settings in those of the published layout; refuses by name what it cannot say."""
    for name, value, only in (("dual_layers", config.dual_layers, 0), ("rope_theta", config.rope_theta, THETA)):
        if value != only:
            do = "such a model cannot be exported"
            raise UserError(f"is {value}, the published layout has {only} only", where=f"prior.{name}", do=do)
    return PublishedPrior(
        txt_in_channels=channels,
        txt_out_channels=channels,
        txt_dim=config.width,
        emb_dim=config.width,
        heads=config.heads,
        head_dim=config.width // config.heads,
        expand_ratio=config.mlp_ratio,
        num_layers=config.layers,
        norm_eps=config.norm_eps,
        qk_bias=config.qk_bias,
        rope_dim=rope_dim,
        block_size=block,
    )


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Published tensors and the one of ours that they become.

    join   from theirs, in order, to ours
    split  from ours to theirs
    """

    theirs: tuple[str, ...]
    ours: str
    join: Callable[[Sequence[Tensor]], Tensor]
    split: Callable[[Tensor], Sequence[Tensor]]


def renamed(theirs: str, ours: str) -> Pair:
    """The same tensor under another name."""
    return Pair(theirs=(theirs,), ours=ours, join=lambda parts: parts[0], split=lambda tensor: (tensor,))


def linear(theirs: str, ours: str, *, bias: bool = True) -> list[Pair]:
    """Weight and bias of a layer under another name."""
    return [renamed(f"{theirs}.{kind}", f"{ours}.{kind}") for kind in ("weight", "bias")[: 1 + bias]]


def prior_pairs(config: PriorConfig, *, stream: str) -> list[Pair]:
    """The published prior's tensors, where `stream` is the one whose latents it models."""
    pairs = [pair for part in ("in", "hid", "out") for pair in linear(f"emb_in.proj_{part}", f"time.proj_{part}")]
    pairs += linear("txt_in.proj", f"enter.{stream}") + linear("txt_out.proj", f"exit.{stream}")
    pairs += linear("txt_out_norm", f"exit_norm.{stream}") + linear("txt_out_ada.out_in.1", f"exit_modulation.{stream}")
    for number in range(config.layers):
        theirs, ours = f"blocks.{number}", f"layers.{number}.branches.shared"
        pairs += linear(f"{theirs}.msa.norm_q", f"{ours}.norm_q") + linear(f"{theirs}.msa.norm_k", f"{ours}.norm_k")
        pairs += linear(f"{theirs}.msa.proj_qkv", f"{ours}.qkv", bias=config.qk_bias)
        pairs += linear(f"{theirs}.msa.proj_out", f"{ours}.attention_out", bias=config.qk_bias)
        pairs += linear(f"{theirs}.mlp.proj_in", f"{ours}.mlp_in") + linear(f"{theirs}.mlp.proj_out", f"{ours}.mlp_out")
        pairs += [_modulation(theirs, ours, kind) for kind in ("weight", "bias")]
    return pairs


def _modulation(theirs: str, ours: str, kind: str) -> Pair:
    """Shift and scale before attention, its gate, shift and scale before the MLP, its gate: 2, 1, 2, 1 widths."""
    names = tuple(f"{theirs}.ada.{part}.1.{kind}" for part in ("msa_in", "msa_out", "mlp_in", "mlp_out"))

    def split(tensor: Tensor) -> Sequence[Tensor]:
        width = len(tensor) // 6
        return tensor.split((2 * width, width, 2 * width, width))

    return Pair(theirs=names, ours=f"{ours}.modulation.{kind}", join=lambda parts: torch.cat(list(parts)), split=split)


def rotary_buffers(layers: int, *, rope_dim: int) -> dict[str, Tensor]:
    """The rotary frequencies that the published layout stores with every layer and this prior computes."""
    frequencies = 1.0 / (THETA ** (torch.arange(0, rope_dim, 2)[: rope_dim // 2].float() / rope_dim))
    return {f"blocks.{number}.msa.rope.rope.freqs": frequencies.clone() for number in range(layers)}


def to_ours(pairs: Iterable[Pair], published: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Published tensors under our names, in float32. Every tensor must have its place, and every place its tensor."""
    found, left = {}, set(published)
    for pair in pairs:
        missing = [name for name in pair.theirs if name not in published]
        if missing:
            raise UserError(f"has no tensor {missing[0]!r}, which its config asks for", where=where)
        found[pair.ours] = pair.join([published[name].float() for name in pair.theirs]).contiguous()
        left.difference_update(pair.theirs)
    if left:
        raise UserError(f"has a tensor {min(left)!r} for which its config has no place", where=where)
    return found


def to_published(pairs: Iterable[Pair], ours: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Our tensors under the published names. One that has no place there is refused, never dropped."""
    found: dict[str, Tensor] = {}
    left = set(ours)
    for pair in pairs:
        if pair.ours not in ours:
            raise UserError(f"has no tensor {pair.ours!r}", where=where)
        found.update(zip(pair.theirs, pair.split(ours[pair.ours]), strict=True))
        left.discard(pair.ours)
    if left:
        raise UserError(f"has a tensor {min(left)!r}, for which the published layout has no place", where=where)
    return found


def without_bookkeeping(values: Mapping[str, Any]) -> dict[str, Any]:
    """A published config without what says nothing of the network."""
    return {name: value for name, value in values.items() if name not in BOOKKEEPING and not name.startswith("_")}
