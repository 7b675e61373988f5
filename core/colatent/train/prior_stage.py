"""Stage `prior`: flow matching over frozen codecs.

Codecs must have been trained, and be on scale (`refusals.py`). Where the prior is sharded, `Prior.in_layers` says so,
and processes use its weights alike (`alike.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from colatent.checkpoint.codecs import codec_contents
from colatent.checkpoint.folder import Checkpoint
from colatent.config.stages import StageConfig
from colatent.data.mixture import Drawn
from colatent.evaluate.sampling import Sampled
from colatent.flow.objective import flow_counts, flow_losses, total_loss, velocity_errors
from colatent.latents.packing import pack
from colatent.latents.sequence import LatentSequence
from colatent.train.alike import row_counts, with_rows
from colatent.train.cached import read_no_samples
from colatent.train.codec_stage import merge
from colatent.train.prepare import Run
from colatent.train.refusals import check_codecs_trained
from colatent.train.samples import sample_prior
from colatent.train.sequences import at_time, build_sequences
from colatent.train.stage import Loss, Part, Prepared
from colatent.train.starting import prior_to_train

FIXED_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
EVAL_SAMPLES = 32
EVAL_BATCH = 16


class PriorStage:
    """Trains the DiT; the codecs only encode, where no cache has their latents."""

    name = "prior"

    def __init__(self, run: Run, config: StageConfig) -> None:
        self.run, self.config = run, config
        check_codecs_trained(run, self.name)
        for codec in run.codecs.values():
            codec.requires_grad_(False).eval()  # type: ignore[attr-defined]
        if run.cache is not None:
            read_no_samples(run)
        start = prior_to_train(run, config)
        self.module, self.window = start.prior, start.window

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
        batch = pack(sequences).to(self.run.device)
        counts = flow_counts(batch)
        if self.module.in_layers:
            counts |= row_counts(batch)
        longest = max(longest_history(sequence) for sequence in sequences)
        return Prepared(batch=(batch, generated_units(sequences), longest), counts=counts)

    def encodes(self, step: int) -> bool:
        """No: they are frozen."""
        return False

    def early(self) -> bool:
        """Yes: codecs are frozen."""
        return True

    def loss(self, prepared: Prepared, counts: Mapping[str, Tensor], step: int) -> Loss:
        """Weighted flow loss, its parts by stream, and the data units that are generated."""
        batch, units, longest = prepared.batch
        self.window = max(self.window, longest)
        if self.module.in_layers:
            batch = with_rows(batch, self.module, counts)
        losses = flow_losses(self.module, batch, counts)
        parts = {f"{name}/flow": value.detach() for name, value in losses.items()}
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
