"""Stage `joint`: codecs and prior on one loss, in the regimes that the paper compares.

    vae (codec losses + entropy E log q) + flow L_flow + reference KL(q || q_ref)

The flow loss reaches an encoder through z_t alone; that is settled where the flow loss is (`flow.objective`), so a
regime decides only which part moves at a step and whether latents go into the flow loss with their gradient. A codec
is encoded once a step: what the prior learns to predict is the very sample that the codec must reconstruct.

Codecs keep the scale that stage `codec` measured, whatever they become: folding in a new one at the end would move the
latents away from the prior that was trained on them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from colatent.checkpoint.codecs import copy_codec
from colatent.checkpoint.folder import Checkpoint
from colatent.config.stages import JointConfig, StageConfig
from colatent.data.mixture import Drawn
from colatent.errors import UserError
from colatent.evaluate.sampling import Sampled
from colatent.flow.objective import flow_counts, flow_losses, total_loss
from colatent.latents.draws import torch_generator
from colatent.latents.packing import pack
from colatent.latents.posterior import entropy_term, reference_term
from colatent.plugins.contract import Codec, TrainableCodec
from colatent.prior.dit import Prior
from colatent.train.alike import row_counts, with_rows
from colatent.train.codec_stage import LossWeights, latents_of, measure_scale, merge, note, score, unit_counts
from colatent.train.prepare import Run
from colatent.train.prior_stage import generated_units, longest_history, model_contents, score_prior
from colatent.train.refusals import check_codecs_trained, check_scale, trained_codecs
from colatent.train.samples import sample_prior
from colatent.train.sequences import EncodedItems, encode_streams, join_sequences
from colatent.train.stage import Loss, Part, Prepared, always
from colatent.train.starting import prior_to_train


class JointStage:
    """Trains the prior and, unless the regime is `fixed`, every codec that can be trained."""

    name = "joint"

    def __init__(self, run: Run, config: StageConfig) -> None:
        self.run, self.config, self.joint = run, config, run.config.joint
        if self.joint.regime != "scratch":
            check_codecs_trained(run, self.name)
        self.began = {name: facts.hash for name, facts in run.facts.items()}
        self.trained = trained_codecs(run)
        for name, codec in run.codecs.items():
            if name not in self.trained:
                codec.requires_grad_(False).eval()  # type: ignore[attr-defined]
        start = prior_to_train(run, config)
        self.prior, self.window, self.ended = start.prior, start.window, False
        self.codecs = nn.ModuleDict(self.trained)  # type: ignore[arg-type]
        self.parts = build_parts(self.prior, self.codecs, joint=self.joint, steps=config.steps)
        self.references = self._references() if self.joint.reference else {}
        self._weights = LossWeights(config.losses, stage=self.name, streams=self.trained)

    def prepare(self, drawn: Sequence[Drawn], step: int, *, alone: bool) -> Prepared:
        """The items with their latents, which carry their gradient where the codec moves, and the packed batch."""
        config, codec_moves = self.run.config, self.encodes(step)
        encoded = encode_streams(
            drawn,
            streams=self.run.streams,
            segments=self.run.sources.segments,
            seed=config.seed,
            trained=self.trained if codec_moves else (),
            randomness=lambda name: torch_generator(config.seed, self.name, name, step, drawn[0].key, "encode"),
        )
        sequences = join_sequences(encoded, flow=config.flow, detached=self.joint.regime == "detached")
        longest = max(longest_history(sequence) for sequence in sequences)
        batch = pack(sequences).to(self.run.device)
        counts = {f"{name}/flow": count for name, count in flow_counts(batch).items()}
        for name, some in encoded.items():
            counts |= unit_counts(name, some.records)
        counts |= row_counts(batch) if self.prior.in_layers else {}
        return Prepared(batch=(batch, encoded, generated_units(sequences), longest), counts=counts)

    def encodes(self, step: int) -> bool:
        """In the codec's turn."""
        return "codec" in self.parts and self.parts["codec"].trains(step)

    def early(self) -> bool:
        """Where no codec trains."""
        return not self.trained

    def loss(self, prepared: Prepared, counts: Mapping[str, Tensor], step: int) -> Loss:
        """Weighted loss of the parts that move, its terms by name, and the number of data units to generate."""
        (batch, encoded, units, longest), weights = prepared.batch, self.run.config.flow.weights
        self.window = max(self.window, longest)
        rows = {name.removesuffix("/flow"): count for name, count in counts.items() if name.endswith("/flow")}
        if self.prior.in_layers:
            batch = with_rows(batch, self.prior, counts, gradient=self.encodes(step))
        losses = flow_losses(self.prior, batch, rows)
        # Where the codec has its turn and none of its items is in the batch, there is nothing to learn, and no error.
        total = self.joint.flow * total_loss(losses, weights) + torch.zeros((), requires_grad=True)
        terms = {f"{name}/flow": value for name, value in losses.items()}
        for name in (name for name in self.trained if self.encodes(step) and name in encoded):
            if not prepared.counts[name]:  # no unit, and so no latent either to take a mean over
                continue
            shares = {key: float(prepared.counts[key] / counts[key]) for key in (name, latents_of(name))}
            value, found = self._codec_loss(encoded[name], step, shares)
            total, terms = total + value, terms | found
        return total, {key: value.detach() for key, value in terms.items()}, units

    def _codec_loss(self, some: EncodedItems, step: int, shares: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """This pass's share in the weighted terms of one codec that are not the flow loss, and in each by itself."""
        name, codec, joint = some.stream.name, some.stream.codec, self.joint
        assert isinstance(codec, TrainableCodec)
        randomness = torch_generator(self.run.config.seed, self.name, step, *some.places[0].names, "losses")
        losses = codec.losses(some.items, some.latents, generator=randomness)
        weights = self._weights.of(name, losses)
        terms = {f"{name}/{key}": (joint.vae * weights[key], shares[name] * value) for key, value in losses.items()}
        posterior = self._posterior_terms(some).items()
        terms |= {key: (weight, shares[latents_of(name)] * value) for key, (weight, value) in posterior}
        total = sum((weight * value for weight, value in terms.values()), start=torch.zeros((), device=self.run.device))
        return total, {key: value for key, (_, value) in terms.items()}

    def _posterior_terms(self, some: EncodedItems) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of what the core makes of posteriors, where there is any."""
        name, joint, found = some.stream.name, self.joint, {}
        entropy = entropy_term(some.records)
        if entropy is not None:
            found[f"{name}/log_q"] = (joint.vae * joint.entropy, entropy)
        if name in self.references:
            with torch.no_grad():
                references = self.references[name].encode(some.items)
            distance = reference_term(some.records, references)
            if distance is not None:
                found[f"{name}/reference"] = (joint.reference, distance)
        return found

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Flow loss at fixed t, and reconstruction of every codec that could be trained, on held-out samples."""
        streams = [one for one in self.run.streams.values() if isinstance(one.codec, TrainableCodec)]
        scores = {f"{one.name}/reconstruction_score": score(self.run, one, batch=self.config.batch) for one in streams}
        return score_prior(self.run, self.prior) | scores

    def samples(self) -> Sequence[Sampled]:
        """What prior and codecs generate together."""
        return sample_prior(self.run, self.prior, window=self.window)

    def finish(self) -> None:
        """A codec that has ended as its average is not trained on."""
        self.ended = bool(self.trained and self.config.ema)

    @torch.no_grad()
    def contents(self) -> dict[str, dict[str, Any]]:
        """The codecs as they are, measured again, and what the prior remembers of them."""
        self.window = self.run.world.largest(self.window)
        self.codecs.eval()
        for name in self.trained:
            self._measure(name)
        average_only = bool(self.config.ema and self.trained)
        model = model_contents(self.run, self.prior, window=self.window, average_only=average_only)
        return merge([model, {"documents": {"joint": {"began": self.began, "ended": self.ended}}}])

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Take up what a checkpoint knows beside weights."""
        self.window, self.ended = checkpoint.document("model")["window"], checkpoint.document("joint")["ended"]

    def _references(self) -> dict[str, Codec]:
        """Frozen copies of the codecs as they are now."""
        plugins, device, found = self.run.plugins, self.run.device, {}
        for name, codec in self.trained.items():
            copy = copy_codec(codec, self.run.facts[name], plugins=plugins, where=f"streams.{name}")
            found[name] = copy.to(device).requires_grad_(False).eval()  # type: ignore[attr-defined]
        return found

    def _measure(self, name: str) -> None:
        """Note a codec's statistics as it is now. Off scale is no error here: the prior knows these latents."""
        stream = self.run.streams[name]
        mean_C, std_C = measure_scale(self.run, stream)
        known = {"mean": tuple(mean_C.tolist()), "std": tuple(std_C.tolist())}
        note(self.run, name, trained=True, reconstruction=score(self.run, stream, batch=self.config.batch), **known)
        try:
            check_scale(name, known["std"])
        except UserError as error:
            warnings.warn(f"{error.where}: {error.what}; other priors will refuse this codec", stacklevel=1)


def build_parts(prior: Prior, codecs: nn.ModuleDict, *, joint: JointConfig, steps: int) -> dict[str, Part]:
    """Which of prior and codecs moves at which step, and how fast."""
    by_turns = joint.regime == "interval"
    moves = _turn(joint.interval, first=False) if by_turns else always
    parts = {"prior": Part(module=prior, moves=moves, hidden=prior.hidden(), layers=list(prior.layers))}
    if len(codecs):
        parts["codec"] = Part(
            module=codecs,
            rate=joint.codec_lr,
            settles=True,
            moves=_turn(joint.interval, first=True) if by_turns else always,
            until=joint.tail(steps),
        )
    return parts


def _turn(length: int, *, first: bool) -> Callable[[int], bool]:
    """Every other run of `length` steps."""
    return lambda step: (step // length % 2 == 0) == first
