"""Layers that are computed again in the backward pass: the same loss and gradients to the bit, and what is not kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from colatent.config import load
from colatent.errors import UserError
from colatent.flow.objective import flow_losses
from plugins_for_tests.packed import make_batch, make_prior
from plugins_for_tests.runs import TEXT, assert_same_run, changed, run

RECOMPUTE = "stages.prior.recompute=true"


def loss_and_gradients(*, recompute: bool, dtype: torch.dtype | None) -> list[Tensor]:
    """Of every parameter, and of the latents."""
    prior, (batch, latents) = make_prior(3, recompute=recompute), make_batch()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        loss = torch.stack(list(flow_losses(prior, batch).values())).sum()
    return [loss.detach(), *torch.autograd.grad(loss, [*prior.parameters(), *latents])]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bf16"])
def test_loss_and_gradients_are_the_same_to_the_bit(dtype: torch.dtype | None) -> None:
    kept, computed = (loss_and_gradients(recompute=flag, dtype=dtype) for flag in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(kept, computed, strict=True))
    assert all(bool(gradient.any()) for gradient in kept[1:])


def kept_elements(layers: int, *, recompute: bool) -> int:
    """Elements of all storages that the backward pass keeps, parameters apart."""
    prior, (batch, _) = make_prior(layers, recompute=recompute), make_batch()
    known = {parameter.untyped_storage().data_ptr() for parameter in prior.parameters()}
    found: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in known:
            found[x.untyped_storage().data_ptr()] = x  # which is held, so that no other takes its place
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        torch.stack(list(flow_losses(prior, batch).values())).sum()
    return sum(x.untyped_storage().nbytes() // x.element_size() for x in found.values())


def test_nothing_within_a_layer_is_kept() -> None:
    three, nine = (kept_elements(layers, recompute=False) for layers in (3, 9))
    again = [kept_elements(layers, recompute=True) for layers in (3, 9)]
    table = 6 * 32 * 6  # elements of the modulation of six more layers at one time
    assert again[1] - again[0] < 20 * table < (nine - three) / 5
    assert again[0] < three / 3


def test_a_run_ends_the_same(tmp_path: Path) -> None:
    run(TEXT, tmp_path / "kept")
    run(TEXT, tmp_path / "again", RECOMPUTE)
    assert_same_run(tmp_path / "kept", tmp_path / "again")


def test_so_does_one_that_trains_the_codec_too(tmp_path: Path) -> None:
    tree = changed(TEXT, joint={"regime": "interval", "interval": 2}, stages__joint=TEXT["stages"]["prior"])
    del tree["stages"]["prior"]
    run(tree, tmp_path / "kept")
    run(tree, tmp_path / "again", "stages.joint.recompute=true")
    assert_same_run(tmp_path / "kept", tmp_path / "again", ("codec", "joint"))


def test_a_codec_has_no_layers_of_the_prior() -> None:
    tiny = Path(__file__).parents[2] / "examples" / "configs" / "tiny.yaml"
    with pytest.raises(UserError, match=r"stages\.codec\.recompute has no effect in stage codec: take it out"):
        load(tiny, ["stages.codec.recompute=true"])
