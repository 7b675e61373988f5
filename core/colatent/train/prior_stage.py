"""Stage `prior`: flow matching over frozen codecs.

The codec must have been trained and be on scale: a prior that trains for days on mis-scaled latents in silence is what
this check is for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from colatent.checkpoint.codecs import check_same_codec, codec_contents, load_weights
from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.resolve import resolve_model
from colatent.config.checks import check_unchanged, validate
from colatent.config.schema import PriorConfig, StageConfig
from colatent.data.mixture import Drawn
from colatent.errors import UserError
from colatent.evaluate.sampling import Sampled
from colatent.flow.objective import flow_counts, flow_losses, total_loss, velocity_errors
from colatent.latents.draws import digest
from colatent.latents.packing import pack
from colatent.latents.posterior import SCALE_RANGE, overall_std
from colatent.latents.sequence import LatentSequence
from colatent.prior.dit import Prior
from colatent.prior.fused import fuse
from colatent.train.alike import row_counts, with_rows
from colatent.train.cached import read_no_samples
from colatent.train.codec_stage import merge
from colatent.train.prepare import Run
from colatent.train.samples import sample_prior
from colatent.train.sequences import at_time, build_sequences
from colatent.train.stage import Part, Prepared

FIXED_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
EVAL_SAMPLES = 32
EVAL_BATCH = 16


class PriorStage:
    """Trains the DiT; the codecs only encode, where no cache has their latents."""

    name = "prior"
    sharded = False
    """Whether processes hold shares of the weights, which they must then use alike."""

    def __init__(self, run: Run, config: StageConfig) -> None:
        self.run, self.config = run, config
        check_codecs_trained(run, self.name)
        for codec in run.codecs.values():
            codec.requires_grad_(False).eval()  # type: ignore[attr-defined]
        if run.cache is not None:
            read_no_samples(run)
        start = build_prior(run)
        self.module: Prior = start.prior
        self.module.recompute = config.recompute
        if config.compile:
            fuse(self.module)
        self.window = start.window
        self.module.in_layers = self.sharded = config.parallel == "fsdp" and run.world.size > 1

    @property
    def parts(self) -> dict[str, Part]:
        """The prior alone."""
        return {"prior": Part(module=self.module, hidden=self.module.hidden(), layers=list(self.module.layers))}

    def prepare(self, drawn: Sequence[Drawn], step: int, *, alone: bool) -> Prepared:
        """The packed batch, and the number of data units (tokens, ...) that are generated."""
        config = self.run.config
        sequences = build_sequences(
            drawn,
            streams=self.run.streams,
            segments=self.run.sources.segments,
            flow=config.flow,
            seed=config.seed,
            cache=self.run.cache,
        )
        self.window = max(self.window, *(longest_history(sequence) for sequence in sequences))
        batch = pack(sequences).to(self.run.device)
        counts = flow_counts(batch)
        if self.sharded:
            counts |= row_counts(batch)
        return Prepared(batch=(batch, generated_units(sequences)), counts=counts)

    def encodes(self, step: int) -> bool:
        """No: they are frozen."""
        return False

    def loss(self, prepared: Prepared, counts: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float], int]:
        """Weighted flow loss, its parts by stream, and the data units that are generated."""
        batch, units = prepared.batch
        if self.sharded:
            batch = with_rows(batch, self.module, counts)
        losses = flow_losses(self.module, batch, counts)
        parts = {f"{name}/flow": float(value.detach()) for name, value in losses.items()}
        return total_loss(losses, self.run.config.flow.weights), parts, units

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Flow loss at fixed t per source and stream, on held-out samples."""
        return score_prior(self.run, self.module)

    def samples(self) -> Sequence[Sampled]:
        """What the prior generates."""
        return sample_prior(self.run, self.module, window=self.window)

    def finish(self) -> None:
        """Nothing to measure: the loop has evaluated already."""

    def contents(self) -> dict[str, dict[str, Any]]:
        """The frozen codecs, and what the prior remembers of them."""
        self.window = self.run.world.largest(self.window)
        return model_contents(self.run, self.module, window=self.window)

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Take up what a checkpoint knows beside weights."""
        self.window = checkpoint.document("model")["window"]


def model_contents(run: Run, prior: nn.Module, *, window: int, **more: Any) -> dict[str, dict[str, Any]]:
    """The run's codecs as they are, and all that is said of the prior over them; `more` goes into the same document."""
    model = {
        "prior": run.config.prior.model_dump(mode="json"),
        "channels": prior.channels,
        "window": window,
        "sample": run.config.sample.model_dump(mode="json"),
        "codecs": {name: facts.to_json() for name, facts in run.facts.items()},
        **more,
    }
    codecs = [codec_contents(name, codec, run.facts[name]) for name, codec in run.codecs.items()]
    return merge([*codecs, {"documents": {"model": model}}])


def score_prior(run: Run, prior: nn.Module) -> dict[str, float]:
    """Flow loss at fixed t per source and stream, on held-out samples."""
    found = {}
    for source, drawn in run.sources.held(EVAL_SAMPLES, seed=0).items():
        for (stream, t), loss in fixed_t_losses(run, prior, drawn).items():
            found[f"{source}/{stream}/t={t}"] = loss
    return found


def generated_units(sequences: Sequence[LatentSequence]) -> int:
    """Data units (tokens, ...) that are generated."""
    return sum(segment.units for sequence in sequences for segment in sequence if segment.generated)


def longest_history(sequence: LatentSequence) -> int:
    """Latents that the last block of a sequence looks back at."""
    return sum(len(segment.z_LC) for segment in sequence) - sequence[-1].block_lengths[-1]


def check_order(run: Run, stage: str) -> None:
    """Refuse a stage over codecs that nothing trains before it."""
    stages: list[str] = list(run.config.stages)
    if "codec" not in stages[: stages.index(stage)]:
        check_codecs_trained(run, stage)


def check_init(run: Run) -> None:
    """Refuse `init` where its prior does not fit. Built for that alone: the stage builds its own, in a folder that must
    not exist before this is known."""
    if run.config.init is not None:
        build_prior(run)


def check_codecs_trained(run: Run, stage: str) -> None:
    """Refuse codecs that were never trained, and those that are off scale."""
    for stream, facts in run.facts.items():
        check_trained(stream, facts.trained, stage=stage)
        check_scale(stream, facts.std)


def check_trained(stream: str, trained: bool, *, stage: str) -> None:
    """A prior needs a trained codec."""
    if not trained:
        what = "its codec was never trained: its latents mean nothing to a prior"
        do = (
            f"put stages.codec before stages.{stage} (with 0 steps where it is frozen), "
            f"or set streams.{stream}.weights to a run that trained it"
        )
        raise UserError(what, where=f"streams.{stream}", do=do)


def check_scale(stream: str, std: Sequence[float]) -> None:
    """A prior needs latents at unit scale."""
    low, high = SCALE_RANGE
    overall = overall_std(std)
    if not low <= overall <= high:
        what = f"its latents are off scale: std {overall:.3g}, allowed {low} to {high}"
        do = "measure the scale again with stage codec, or change it where its config fixes it"
        raise UserError(what, where=f"streams.{stream}", do=do)


def check_resumed(checkpoint: Checkpoint, run: Run) -> None:
    """Refuse to go on from a checkpoint whose prior knows other codecs or was built in another way."""
    check_codecs(checkpoint, run)
    stored = validate(PriorConfig, checkpoint.document("model")["prior"], where="prior")
    check_unchanged(stored, run.config.prior, where="prior", do="put it back, or start a run of its own")


def check_codecs(checkpoint: Checkpoint, run: Run) -> None:
    """The prior in `checkpoint` must have been trained on the run's codecs."""
    remembered = checkpoint.document("model")["codecs"]
    for name, facts in run.facts.items():
        if name in remembered:
            known = facts.__class__(**remembered[name])
            check_same_codec(known, facts, stream=name, where=str(checkpoint.path))


@dataclass(frozen=True, kw_only=True, eq=False)
class StartingPrior:
    """A prior before its first step, and how many latents it has been trained to look back at so far."""

    prior: Prior
    window: int


def build_prior(run: Run) -> StartingPrior:
    """A prior with fresh weights, or those of `init` where that is given."""
    config = run.config
    channels = {name: codec.latent_spec().channels for name, codec in run.codecs.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(digest(config.seed, "prior") % 2**63)
        prior = Prior(config.prior, channels)
    window = 0 if config.init is None else _take_over(prior, run, config.init)
    return StartingPrior(prior=prior.to(run.device), window=window)


def _take_over(prior: Prior, run: Run, origin: str) -> int:
    """Start from the weights of another prior: streams that both know, and all that is shared. Gives its window."""
    checkpoint = resolve_model(origin)
    if not checkpoint.has("prior"):
        return 0
    check_codecs(checkpoint, run)
    before = validate(PriorConfig, checkpoint.document("model")["prior"], where="prior")
    ours = run.config.prior.model_copy(update={"layers": before.layers, "dual_layers": before.dual_layers})
    check_unchanged(before, ours, where="prior", do="start from init with the same setting")
    group = "prior.ema" if checkpoint.has("prior.ema") else "prior"
    state, present = prior.state_dict(), checkpoint.tensors(group)
    found = {name: present[place] for name in state if (place := _place_before(name, present))}
    dropped = tuple(f".{name}." for name in checkpoint.document("model")["channels"] if name not in prior.channels)
    used = {_place_before(name, present) for name in state}
    lost = [name for name in present if name not in used and not any(part in name for part in dropped)]
    if lost:
        do = "keep its number of layers, and layers that were dual dual"
        raise UserError(f"this prior has no place for {lost[0]} of {checkpoint.path}", where="init", do=do)
    load_weights(prior, {**state, **found}, where="init")
    return int(checkpoint.document("model")["window"])


def _place_before(name: str, present: Mapping[str, Tensor]) -> str | None:
    """Where a parameter stood in another prior: under its own name, or in a shared layer that is a stream's own now."""
    if name in present:
        return name
    parts = name.split(".")
    if parts[0] == "layers":  # layers.NUMBER.branches.STREAM....
        parts[3] = "shared"
    shared = ".".join(parts)
    return shared if shared in present else None


def fixed_t_losses(run: Run, module: nn.Module, drawn: Sequence[Drawn]) -> dict[tuple[str, float], float]:
    """Flow loss by stream and t, with every generated block at that noise level. The noise is the same at each t and at
    each call; nothing is pinned or dropped, and padding does not count."""
    config, totals = run.config, defaultdict[tuple[str, float], Tensor](lambda: torch.zeros(2))
    off = dict.fromkeys(("padding", "ragged", "history_dropout", "condition_dropout"), 0.0)
    plain = config.flow.model_copy(update=off)
    for start in range(0, len(drawn), EVAL_BATCH):
        sequences = build_sequences(
            drawn[start : start + EVAL_BATCH],
            streams=run.streams,
            segments=run.sources.segments,
            flow=plain,
            seed=config.seed,
        )
        for t in FIXED_TIMES:
            batch = pack([at_time(sequence, t) for sequence in sequences]).to(run.device)
            for name, (error_S, weight_S) in velocity_errors(module, batch).items():  # type: ignore[arg-type]
                totals[name, t] += torch.stack([(error_S * weight_S).sum(), weight_S.sum()]).cpu()
    ordered = sorted(totals, key=lambda key: FIXED_TIMES.index(key[1]))
    return {key: float(totals[key][0] / totals[key][1].clamp(min=1e-9)) for key in ordered}
