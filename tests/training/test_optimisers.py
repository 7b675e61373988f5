"""Which optimiser moves which weight, and that Muon's steps are PyTorch's own at the stage's learning rate."""

from __future__ import annotations

import pytest
import torch

from colatent.config.prior import PriorConfig
from colatent.config.stages import StageConfig
from colatent.prior.dit import Prior
from colatent.train.optimiser import build_optimisers, load_optimisers, optimiser_tensors
from colatent.train.stage import Part

MUON = StageConfig(steps=1, optimiser="muon", lr=0.01, weight_decay=0.1)
HIDDEN = {"qkv.weight", "attention_out.weight", "mlp_in.weight", "mlp_out.weight"}


@pytest.fixture
def prior() -> Prior:
    """Two streams, one layer of their own and a shared one."""
    torch.manual_seed(0)
    config = PriorConfig(width=8, heads=2, dual_layers=1, layers=1)
    return Prior(config, {"text": 3, "image": 5})


def part(prior: Prior) -> dict[str, Part]:
    """The prior as its stage trains it."""
    return {"prior": Part(module=prior, hidden=prior.hidden(), rate=0.5)}


def fill_gradients(prior: Prior) -> None:
    """Some gradient everywhere."""
    generator = torch.Generator().manual_seed(1)
    for parameter in prior.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_muon_moves_the_matrices_of_layers_and_adamw_all_else(prior: Prior) -> None:
    found = build_optimisers(part(prior), MUON)
    moved = {name: {id(p) for group in one.param_groups for p in group["params"]} for name, one in found.items()}
    for name, parameter in prior.named_parameters():
        hidden = name.startswith("layers.") and name.split(".", 4)[4] in HIDDEN
        assert [key for key, some in moved.items() if id(parameter) in some] == ["muon" if hidden else "adamw"], name


def test_without_muon_adamw_moves_all(prior: Prior) -> None:
    found = build_optimisers(part(prior), StageConfig(steps=1))
    assert list(found) == ["adamw"]
    assert sum(len(group["params"]) for group in found["adamw"].param_groups) == len(list(prior.parameters()))


def test_only_matrices_decay_and_all_groups_know_their_rate(prior: Prior) -> None:
    for optimiser in build_optimisers(part(prior), MUON).values():
        for group in optimiser.param_groups:
            assert group["rate"] == 0.5
            assert all((p.ndim > 1) == (group["weight_decay"] == 0.1) for p in group["params"])


def test_a_step_is_orthogonal_and_of_the_size_of_adamws(prior: Prior) -> None:
    weight, before = prior.layers[1].branch("").mlp_in.weight, prior.layers[1].branch("").mlp_in.weight.detach().clone()  # type: ignore[operator,union-attr]
    fill_gradients(prior)
    for optimiser in build_optimisers(part(prior), MUON).values():
        optimiser.step()
    update = (before * (1 - 0.01 * 0.1) - weight.detach()) / 0.01
    singular = torch.linalg.svdvals(update) / (0.2 * max(update.shape) ** 0.5)
    # Five Newton-Schulz iterations bring singular values near 1, not to it.
    assert float(singular.min()) > 0.6
    assert float(singular.max()) < 1.3
    assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)


def test_their_state_comes_back(prior: Prior) -> None:
    fill_gradients(prior)
    first = build_optimisers(part(prior), MUON)
    for optimiser in first.values():
        optimiser.step()
    stored = optimiser_tensors(first)
    second = build_optimisers(part(prior), MUON)
    load_optimisers(second, stored)
    assert any(name.startswith("muon.") for name in stored)
    assert {name: value.tolist() for name, value in optimiser_tensors(second).items()} == {
        name: value.tolist() for name, value in stored.items()
    }
