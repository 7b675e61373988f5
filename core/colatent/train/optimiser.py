"""AdamW and Muon and learning-rate schedules, each in its plainest form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from colatent.config.stages import StageConfig
from colatent.train.engine import cut_like
from colatent.train.stage import Part

_PREFIX = {"adamw": "", "muon": "muon."}


def build_optimisers(parts: Mapping[str, Part], config: StageConfig) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of a stage by name: `adamw`, and `muon` for what parts call hidden where the config asks for it.

    Decay is on matrices only: gains, biases and single vectors have nothing to be decayed to. A part's learning rate
    over the stage's is kept as "rate" in its parameter groups.
    """
    groups: dict[str, list[dict[str, Any]]] = {"adamw": [], "muon": []}
    for part in parts.values():
        hidden = {id(one) for one in part.hidden} if config.optimiser == "muon" else set()
        trained = [one for one in part.module.parameters() if one.requires_grad]
        rest = [one for one in trained if id(one) not in hidden]
        decayed, plain = ([one for one in rest if (one.ndim > 1) == matrix] for matrix in (True, False))
        decay = {"weight_decay": config.weight_decay, "rate": part.rate}
        groups["adamw"].append({"params": decayed, **decay})
        groups["adamw"].append({"params": plain, **decay, "weight_decay": 0.0})
        groups["muon"].append({"params": [one for one in trained if id(one) in hidden], **decay})
    adamw, muon = ([group for group in some if group["params"]] for some in groups.values())
    found: dict[str, torch.optim.Optimizer] = {}
    if adamw:
        found["adamw"] = torch.optim.AdamW(adamw, lr=config.lr, betas=config.betas, fused=True)
    if muon:  # its updates are given the size of AdamW's, so that one learning rate serves both
        found["muon"] = torch.optim.Muon(muon, lr=config.lr, adjust_lr_fn="match_rms_adamw")
    return found


def learning_rate(config: StageConfig, step: int) -> float:
    """Learning rate of step `step` (from 0): linear warm-up, then cosine, constant, or constant and linear decay."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "wsd":  # the warm-up is not cut short where decay would begin before it ends
        length = min(max(1, round(config.decay * config.steps)), config.steps - config.warmup)
        return config.min_lr + (config.lr - config.min_lr) * min(1.0, (config.steps - step) / length)
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.min_lr + 0.5 * (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress))


def optimiser_tensors(optimisers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Their state, flat: "3.exp_avg" is AdamW's running mean of its parameter 3, "muon.3.momentum_buffer" Muon's."""
    found: dict[str, Tensor] = {}
    for name, optimiser in optimisers.items():
        for number, entry in optimiser.state_dict()["state"].items():
            found |= {f"{_PREFIX[name]}{number}.{key}": value for key, value in entry.items()}
    return found


def load_optimisers(optimisers: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Take up the state that `optimiser_tensors` gave."""
    states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in optimisers}
    parameters = {
        name: [parameter for group in optimiser.param_groups for parameter in group["params"]]
        for name, optimiser in optimisers.items()
    }
    for place in tensors:
        name = "muon" if place.startswith(_PREFIX["muon"]) else "adamw"
        number, key = place.removeprefix(_PREFIX[name]).split(".", 1)
        states[name].setdefault(int(number), {})[key] = cut_like(tensors, place, parameters[name][int(number)])
    for name, optimiser in optimisers.items():
        optimiser.load_state_dict({"state": states[name], "param_groups": optimiser.state_dict()["param_groups"]})
