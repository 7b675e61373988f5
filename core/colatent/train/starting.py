"""The prior that a stage begins with: fresh weights or those of another prior, and how its layers are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from colatent.checkpoint.codecs import load_weights
from colatent.checkpoint.resolve import resolve_model
from colatent.config.checks import check_unchanged, validate
from colatent.config.prior import PriorConfig
from colatent.config.stages import StageConfig
from colatent.errors import UserError
from colatent.latents.draws import digest
from colatent.prior.dit import Prior
from colatent.prior.fused import fuse
from colatent.train.prepare import Run
from colatent.train.refusals import check_codecs


@dataclass(frozen=True, kw_only=True, eq=False)
class StartingPrior:
    """A prior before its first step, and how many latents it has been trained to look back at so far."""

    prior: Prior
    window: int


def prior_to_train(run: Run, config: StageConfig) -> StartingPrior:
    """The prior that a stage begins with, which runs its layers as the stage's config says."""
    start = build_prior(run)
    start.prior.recompute = config.recompute
    start.prior.in_layers = config.parallel == "fsdp" and run.world.size > 1
    if config.compile:
        fuse(start.prior)
    return start


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


def check_init(run: Run) -> None:
    """Refuse `init` where its prior does not fit. Built for that alone: the stage builds its own, in a folder that must
    not exist before this is known."""
    if run.config.init is not None:
        build_prior(run)
