"""Estimates of log p(x) under a trained model: log weights by importance sampling from the encoder.

For latents z drawn from the posterior q(z | x),

    log w = log p(x | z) + log p(z) - log q(z | x).

The mean of log w over M draws is the ELBO-like estimate, the log of the mean of w (logmeanexp) the IWAE-like one.
docs/likelihood.md says what of this is a bound. Each term is kept per block: the decoder's and the posterior's
factorise over blocks as the prior's does, so block terms sum to those of the item.

Latents that are padding count in p(z) as in q(z | x). The model as it is sampled generates them too, and its decoder
and the rest of their block see them: left out of both, they would tell the model for free what it is charged for.

Axes: M posterior draws, K scored blocks of one example, L latents of one item, C channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colatent.errors import UserError
from colatent.evaluate.prior_density import Solve, block_log_densities
from colatent.flow.likelihood import log_normal
from colatent.latents.draws import Name, normal
from colatent.latents.sequence import LatentSequence, Segment
from colatent.plugins.contract import Codec, Scorable
from colatent.plugins.latents import Encoded, Item, Latents

BATCH = 16
"""Draws whose flow is solved together."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One item in a sequence that is scored: scored itself, or given (its posterior mean is only looked at)."""

    stream: str
    item: Item
    given: bool = False
    same_group: bool = False


@dataclass(frozen=True, kw_only=True)
class Example:
    """One sequence of items; `key` names its random draws and its place in a report."""

    key: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class BlockName:
    """Which block a column is of: stream, number of the piece, number of the block in it, and its data units."""

    stream: str
    piece: int
    block: int
    units: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """The three terms of log w of one example, float64, (M, K) each, in nats."""

    key: str
    blocks: tuple[BlockName, ...]
    decoder_MK: Tensor
    prior_MK: Tensor
    posterior_MK: Tensor

    @property
    def log_w_MK(self) -> Tensor:
        """Log weight of each draw, block by block."""
        return self.decoder_MK + self.prior_MK - self.posterior_MK

    @property
    def units(self) -> int:
        """Data units (tokens, ...) that are scored."""
        return sum(block.units for block in self.blocks)

    @property
    def elbo(self) -> float:
        """Mean of log w."""
        return float(self.log_w_MK.sum(-1).mean())

    @property
    def iwae(self) -> float:
        """Log of the mean of w."""
        return log_mean_exp(self.log_w_MK.sum(-1))


def log_mean_exp(x_M: Tensor) -> float:
    """ln of the mean of exp(x)."""
    return float(torch.logsumexp(x_M, 0) - torch.log(torch.tensor(float(len(x_M)), dtype=x_M.dtype)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draw:
    """One posterior draw of an example: its sequence, and the items and noise of what is scored."""

    sequence: LatentSequence
    names: tuple[Name, ...]
    items: tuple[Item, ...]
    posterior_K: Tensor


@torch.no_grad()
def log_weights(
    prior: Any,
    codecs: Mapping[str, Codec],
    examples: Sequence[Example],
    *,
    samples: int = 8,
    seed: int = 0,
    solve: Solve | None = None,
    batch: int = BATCH,
    window: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Weights]:
    """Log weights of `samples` posterior draws of each example, block by block.

    Draw m of an example depends on (seed, its key, m), never on the batch. `window` is how far the prior looked back in
    training: a warning says where an example goes beyond. `progress(done, total)` counts draws. Raises `UserError`
    where a scored stream has no density.
    """
    check_scorable(codecs, examples)
    encoded = [_encode(codecs, example) for example in examples]
    if window is not None:
        _check_window(examples, encoded, window)
    places = [(number, draw) for number in range(len(examples)) for draw in range(samples)]
    terms: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(places), batch):
        some = [
            _draw(examples[n], encoded[n], (seed, "likelihood", examples[n].key, m)) for n, m in places[start:][:batch]
        ]
        priors = block_log_densities(
            prior, [draw.sequence for draw in some], [draw.names for draw in some], solve=solve or Solve()
        )
        decoders = _decoder_terms(codecs, some)
        terms += [(d, p, draw.posterior_K) for d, p, draw in zip(decoders, priors, some, strict=True)]
        if progress is not None:
            progress(len(terms), len(places))
    return [
        _weights(example, records, terms[number * samples :][:samples])
        for number, (example, records) in enumerate(zip(examples, encoded, strict=True))
    ]


def check_scorable(codecs: Mapping[str, Codec], examples: Sequence[Example]) -> None:
    """Refuse streams whose likelihood cannot be had, and examples of which nothing is scored."""
    for example in examples:
        if all(piece.given for piece in example.pieces):
            raise UserError("has no item to score", where=example.key)
        for piece in example.pieces:
            if not piece.given and not isinstance(codecs[piece.stream], Scorable):
                what = f"the codec of stream {piece.stream!r} gives no probabilities (it is not Scorable)"
                raise UserError(what, do="score another stream")


def _encode(codecs: Mapping[str, Codec], example: Example) -> list[Encoded]:
    records = []
    for piece in example.pieces:
        (record,) = codecs[piece.stream].encode([piece.item])
        if not len(record.mean_LC):
            raise UserError(f"an item of stream {piece.stream!r} has no latents", where=example.key, do="leave it out")
        if record.logvar_LC is None and not piece.given:
            what = f"the encoder of stream {piece.stream!r} is deterministic: log q(z | x) does not exist"
            raise UserError(what, do="train a codec with a posterior, or score another stream")
        records.append(record)
    return records


def _check_window(examples: Sequence[Example], encoded: Sequence[Sequence[Encoded]], window: int) -> None:
    for example, records in zip(examples, encoded, strict=True):
        history = sum(len(record.mean_LC) for record in records) - records[-1].block_lengths[-1]
        if history > window:
            what = f"{example.key}: looks back at {history} latents, in training the prior saw at most {window}"
            warnings.warn(f"{what}: its likelihood extrapolates", stacklevel=3)


def _draw(example: Example, records: Sequence[Encoded], names: tuple[Name, ...]) -> _Draw:
    segments, posterior = [], []
    for index, (piece, record) in enumerate(zip(example.pieces, records, strict=True)):
        noise_LC = None if piece.given else normal(record.mean_LC.shape, *names, index).to(record.mean_LC)
        z_LC = record.sample(noise_LC).z_LC.cpu()
        segments.append(
            Segment(
                stream=piece.stream,
                z_LC=z_LC,
                block_lengths=record.block_lengths,
                positions_LA=record.positions_LA.cpu(),
                generated=not piece.given,
                same_group=piece.same_group,
                noise_LC=z_LC,
                t_K=(0.0,) * len(record.block_lengths),
            )
        )
        if noise_LC is not None:
            posterior.append(posterior_log_density(record, noise_LC))
    items = tuple(piece.item for piece in example.pieces if not piece.given)
    return _Draw(sequence=tuple(segments), names=names, items=items, posterior_K=torch.cat(posterior))


def posterior_log_density(record: Encoded, noise_LC: Tensor) -> Tensor:
    """log q(z | x) of z = mean + std * noise, block by block. (K,) float64"""
    assert record.logvar_LC is not None
    density_L = (log_normal(noise_LC.double()) - 0.5 * record.logvar_LC.double()).sum(-1).cpu()
    return torch.stack([part.sum() for part in density_L.split(list(record.block_lengths))])


def _decoder_terms(codecs: Mapping[str, Codec], draws: Sequence[_Draw]) -> list[Tensor]:
    """log p(x | z) block by block of each draw, each stream's items in one call."""
    scored = [[segment for segment in draw.sequence if segment.generated] for draw in draws]
    found: dict[tuple[int, int], Tensor] = {}
    for stream in {segment.stream for segments in scored for segment in segments}:
        places = [(n, i) for n, segments in enumerate(scored) for i, one in enumerate(segments) if one.stream == stream]
        codec = codecs[stream]
        assert isinstance(codec, Scorable)
        latents = [_latents(scored[n][i]) for n, i in places]
        found |= zip(places, codec.log_likelihood([draws[n].items[i] for n, i in places], latents), strict=True)
    return [torch.cat([found[n, i].double().cpu() for i in range(len(some))]) for n, some in enumerate(scored)]


def _latents(segment: Segment) -> Latents:
    return Latents(z_LC=segment.z_LC, block_lengths=segment.block_lengths, positions_LA=segment.positions_LA)


def _weights(example: Example, records: Sequence[Encoded], terms: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Weights:
    blocks = tuple(
        BlockName(stream=piece.stream, piece=index, block=number, units=int(units_L.sum()))
        for index, (piece, record) in enumerate(zip(example.pieces, records, strict=True))
        for number, units_L in enumerate(record.units_L.split(list(record.block_lengths)))
        if not piece.given
    )
    decoder_MK, prior_MK, posterior_MK = (torch.stack(some) for some in zip(*terms, strict=True))
    return Weights(key=example.key, blocks=blocks, decoder_MK=decoder_MK, prior_MK=prior_MK, posterior_MK=posterior_MK)
