"""Stage `codec`: reconstruction + beta KL + whatever the codec adds (BERT-style masking for text).

The core draws the latents and computes the KL from the posteriors; the codec only turns them into losses. The stage
ends by taking over the averaged weights and measuring the latents' scale, without which no prior accepts the codec.

Axes: N latents of a batch, C channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from colatent.checkpoint.codecs import codec_contents, facts_now
from colatent.checkpoint.folder import Checkpoint
from colatent.config.stages import StageConfig
from colatent.data.mixture import Drawn
from colatent.data.streams import Stream
from colatent.errors import UserError
from colatent.evaluate.sampling import Sampled
from colatent.latents.draws import Name, normal, torch_generator, torch_seed
from colatent.plugins.contract import Codec, TrainableCodec
from colatent.plugins.latents import Encoded, Item, Latents
from colatent.train.prepare import Run
from colatent.train.stage import Loss, Part, Prepared

SCALE_SAMPLES = 256
"""Training samples over which the scale of the latents is measured."""
SCORE_SAMPLES = 256
"""Held-out samples over which reconstruction is scored."""


def kl_to_standard_normal(mean_NC: Tensor, logvar_NC: Tensor) -> Tensor:
    """KL(q || N(0, I)) summed over channels, averaged over latents; in nats."""
    return 0.5 * (mean_NC.square() + logvar_NC.exp() - 1.0 - logvar_NC).sum(-1).mean()


class CodecStage:
    """Trains every codec of the run that can be trained and has no trained weights yet."""

    name = "codec"

    def __init__(self, run: Run, config: StageConfig) -> None:
        self.run, self.config = run, config
        self.trained = {
            name: stream
            for name, stream in run.streams.items()
            if isinstance(stream.codec, TrainableCodec) and not run.facts[name].trained
        }
        if self.trained and not config.steps:
            what = f"is 0, and the codec of stream {next(iter(self.trained))!r} is there to be trained"
            raise UserError(what, where="stages.codec.steps", do="give it steps; only frozen codecs need none")
        codecs = {name: stream.codec for name, stream in self.trained.items()}
        self._weights = LossWeights(config.losses, stage=self.name, streams=self.trained)
        self.module: nn.Module = nn.ModuleDict(codecs)  # type: ignore[arg-type]

    @property
    def parts(self) -> dict[str, Part]:
        """All codecs as one."""
        return {"codec": Part(module=self.module, settles=True)}

    def prepare(self, drawn: Sequence[Drawn], step: int, *, alone: bool) -> Prepared:
        """The samples of every stream that has some in this batch."""
        found = {name: self.run.having(drawn, name) for name in self.trained}
        batch = {name: held for name, held in found.items() if held}
        counts = [self._counts(held, name, alone=alone) for name, held in batch.items()]
        return Prepared(batch=batch, counts={name: count for some in counts for name, count in some.items()})

    @torch.no_grad()
    def _counts(self, held: Sequence[Drawn], stream: str, *, alone: bool) -> dict[str, Tensor]:
        """Data units of the items of a stream, and latents. Only encoding them tells."""
        if alone:
            return {stream: torch.ones(()), latents_of(stream): torch.ones(())}
        return unit_counts(stream, self.trained[stream].codec.encode(self.run.items(held, stream)))

    def encodes(self, step: int) -> bool:
        """No: they are run where the loss is."""
        return False

    def early(self) -> bool:
        """No: only the codec tells how many units its items have."""
        return False

    def loss(self, prepared: Prepared, counts: Mapping[str, Tensor], step: int) -> Loss:
        """Weighted loss, its parts by name, and the number of data units."""
        # A batch may hold no item of a stream that is trained: then there is nothing to learn from it, and no error.
        total, parts, units = torch.zeros((), device=self.run.device, requires_grad=True), {}, 0
        for name, held in prepared.batch.items():
            stream, items = self.trained[name], self.run.items(held, name)
            names = (self.run.config.seed, "codec", name, step, held[0].key)  # of this pass
            noise = [(*names[:3], one.epoch, one.key) for one in held]
            records = stream.codec.encode(items, generator=torch_generator(*names, "encode"))
            held_units = sum(int(record.units_L.sum()) for record in records)
            if not held_units:  # nor any latent that holds data: there is nothing to take a mean over
                continue
            share, kl_share = (float(prepared.counts[key] / counts[key]) for key in (name, latents_of(name)))
            assert isinstance(stream.codec, TrainableCodec)
            losses = stream.codec.losses(items, draw_each(records, noise), generator=torch_generator(*names, "losses"))
            weights = self._weights.of(name, losses)
            for key, value in losses.items():
                total = total + share * weights[key] * value
                parts[f"{name}/{key}"] = share * value
            if records[0].logvar_LC is not None:
                kl = posterior_kl(records)
                total = total + kl_share * self.config.kl * kl
                parts[f"{name}/kl"] = kl_share * kl
            units += held_units
        return total, {key: value.detach() for key, value in parts.items()}, units

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Reconstruction of held-out samples."""
        size = self.config.batch
        return {f"{name}/reconstruction_score": score(self.run, one, batch=size) for name, one in self.trained.items()}

    def samples(self) -> Sequence[Sampled]:
        """None: nothing generates without a prior."""
        return ()

    @torch.no_grad()
    def finish(self) -> None:
        """Measure scale and reconstruction of every codec of the run and note them as its facts."""
        for name, stream in self.run.streams.items():
            if self.run.facts[name].trained:
                continue
            mean_C, std_C = measure_scale(self.run, stream)
            if not bool((std_C >= 1e-6).all()):  # a single latent has no std at all
                what = f"channel {int(std_C.argmin())} of its latents never varies"
                raise UserError(what, where=f"streams.{name}", do="use fewer channels or more varied data")
            stream.codec.set_scale(mean_C, std_C)
            mean_C, std_C = measure_scale(self.run, stream)
            trainable = isinstance(stream.codec, TrainableCodec)
            note(
                self.run,
                name,
                trained=True,
                mean=tuple(mean_C.tolist()),
                std=tuple(std_C.tolist()),
                reconstruction=score(self.run, stream, batch=self.config.batch) if trainable else None,
            )

    def contents(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint holds of this stage beside the weights under training."""
        for name in self.trained:
            if not self.run.facts[name].trained:
                note(self.run, name, trained=False)
        return merge(codec_contents(name, codec, self.run.facts[name]) for name, codec in self.run.codecs.items())

    def go_on(self, checkpoint: Checkpoint) -> None:
        """There is nothing beside weights."""


def unit_counts(stream: str, records: Sequence[Encoded]) -> dict[str, Tensor]:
    """What a codec's own losses are weighted by, data units, and what means over latents are, those that hold any."""
    held_N = torch.cat([record.units_L for record in records])
    return {stream: held_N.sum().float(), latents_of(stream): (held_N > 0).sum().float()}


def latents_of(stream: str) -> str:
    """The name of the count of a stream's latents."""
    return f"{stream}/latents"


class LossWeights:
    """Weights of the codecs' losses by name; a loss that no codec has is refused, once all have told theirs."""

    def __init__(self, weights: Mapping[str, float], *, stage: str, streams: Collection[str]) -> None:
        self._weights, self._stage, self._streams = weights, stage, streams
        self._told: dict[str, set[str]] = {}

    def of(self, stream: str, losses: Collection[str]) -> dict[str, float]:
        """The weight of each of these losses, which are all that the codec of a stream has."""
        if stream not in self._told:
            self._told[stream] = set(losses)
            self._check()
        return {name: self._weights.get(name, 1.0) for name in losses}

    def _check(self) -> None:
        known = set().union(*self._told.values())
        unknown = sorted(set(self._weights) - known)
        if unknown and len(self._told) == len(self._streams):
            where, do = f"stages.{self._stage}.losses.{unknown[0]}", f"use one of {', '.join(sorted(known))}"
            raise UserError("no codec of this run has such a loss", where=where, do=do)


def note(run: Run, stream: str, **known: Any) -> None:
    """Write down the facts of a codec as it is now."""
    before = run.facts[stream]
    run.facts[stream] = facts_now(run.codecs[stream], name=before.codec, settings=before.config, **known)


def measure_scale(run: Run, stream: Stream) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of a stream's latents, over training samples."""
    drawn = run.sources.mixture(seed=run.config.seed, stream=stream.name).take(SCALE_SAMPLES)
    return latent_statistics(stream.codec, run.items(drawn, stream.name), (run.config.seed, "scale", stream.name))


def score(run: Run, stream: Stream, *, batch: int) -> float:
    """Share of the units of held-out samples that a trainable codec reconstructs."""
    right = count = 0
    for drawn in run.sources.held(SCORE_SAMPLES // len(run.sources.heldout), seed=0).values():
        for number, some in enumerate(batches(run.items(drawn, stream.name), batch)):
            names = (run.config.seed, "score", stream.name)
            latents = draw(stream.codec.encode(some), names, first=number * batch)
            good, total = stream.codec.reconstruction_score(some, latents)  # type: ignore[attr-defined]
            right, count = right + good, count + total
    return right / max(1, count)


def draw(records: Sequence[Encoded], names: Sequence[Name], *, first: int = 0) -> list[Latents]:
    """One posterior sample per record; they are numbered from `first`."""
    return draw_each(records, [(*names, number) for number in range(first, first + len(records))])


def draw_each(records: Sequence[Encoded], names: Sequence[Sequence[Name]]) -> list[Latents]:
    """One posterior sample per record, each by names of its own."""
    drawn = []
    for record, some in zip(records, names, strict=True):
        noise_LC = normal(record.mean_LC.shape, *some, "posterior").to(record.mean_LC.device)
        drawn.append(record.sample(noise_LC, seed=torch_seed(*some, "losses")))
    return drawn


def posterior_kl(records: Sequence[Encoded]) -> Tensor:
    """KL to the standard normal over the latents of a batch that hold data."""
    held_N = torch.cat([record.units_L for record in records]) > 0
    logvars = [record.logvar_LC for record in records if record.logvar_LC is not None]
    mean_NC, logvar_NC = torch.cat([record.mean_LC for record in records]), torch.cat(logvars)
    held_N = held_N.to(mean_NC.device)
    return kl_to_standard_normal(mean_NC[held_N], logvar_NC[held_N])


def latent_statistics(codec: Codec, items: Sequence[Item], names: Sequence[Name]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of posterior samples, over the latents that hold data."""
    drawn = []
    for number, some in enumerate(batches(items, 32)):
        records = codec.encode(some)
        for record, latents in zip(records, draw(records, (*names, number)), strict=True):
            drawn.append(latents.z_LC[(record.units_L > 0).to(latents.z_LC.device)].float().cpu())
    z_NC = torch.cat(drawn)
    return z_NC.mean(0), z_NC.std(0)


def batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Runs of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def merge(contents: Any) -> dict[str, dict[str, Any]]:
    """Several checkpoint contents as one."""
    merged: dict[str, dict[str, Any]] = {"tensors": {}, "documents": {}, "files": {}}
    for content in contents:
        for kind, entries in content.items():
            merged[kind].update(entries)
    return merged
