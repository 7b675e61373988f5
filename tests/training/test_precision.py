"""Generation in bf16: what is cast, what is not, and that nothing of it leaks to the caller."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from colatent import load
from colatent.cli.main import main
from colatent.errors import UserError
from colatent.generate.precision import Precision
from colatent.prior.packed import PackedLinear, packing
from plugins_for_tests.runs import TEXT, run

PROMPTS = ["ab", "", "a longer one"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(TEXT, tmp_path_factory.mktemp("precision") / "run")


def test_matrices_are_cast_once_and_nothing_else(folder) -> None:
    model = load(folder, precision="bf16")
    networks = [model.prior, *model.codecs.values()]
    linears = [m for network in networks for m in network.modules() if isinstance(m, torch.nn.Linear)]
    assert linears
    assert {linear.weight.dtype for linear in linears} == {torch.bfloat16}
    cast = {id(parameter) for linear in linears for parameter in linear.parameters()}
    others = [
        tensor
        for tensor in chain(*((*network.parameters(), *network.buffers()) for network in networks))
        if id(tensor) not in cast and tensor.is_floating_point()
    ]
    assert others
    assert {tensor.dtype for tensor in others} == {torch.float32}


def has_packed(network: Any) -> bool:
    return any(isinstance(module, PackedLinear) for module in network.modules())


@pytest.mark.skipif(not packing(torch.device("cpu")), reason="this CPU or this PyTorch multiplies no packed matrices")
@pytest.mark.parametrize(("how", "packs"), [("float32", False), ("bf16", True)])
def test_matrices_are_packed_in_bf16_alone(folder, how: Precision, packs: bool) -> None:
    model = load(folder, precision=how)
    networks = (model.prior, *model.codecs.values())
    linears = [m for network in networks for m in network.modules() if isinstance(m, torch.nn.Linear)]
    assert {isinstance(linear, PackedLinear) for linear in linears} == {packs}


def test_what_a_compiler_has_is_not_packed(folder, monkeypatch) -> None:
    """It knows no packed matrices, and packs by itself where that pays."""
    monkeypatch.setattr("colatent.generate.model.check_compiler", lambda device, *, where: None)
    model = load(folder, precision="bf16", compiled=True)
    assert not has_packed(model.prior)
    assert has_packed(model.codecs["text"]) == packing(torch.device("cpu"))


def test_latents_stay_near_those_of_float32_and_are_float32(folder) -> None:
    exact, rounded = (load(folder, precision=name) for name in ("float32", "bf16"))
    results = [model.generate_many(PROMPTS, max_new_tokens=8, steps=4) for model in (exact, rounded)]
    for one, other in zip(*results, strict=True):
        first, second = one[0].latents_LC, other[0].latents_LC
        assert second.dtype == torch.float32
        length = min(len(first), len(second))
        error, size = (first[:length] - second[:length]).square().mean().sqrt(), first.square().mean().sqrt()
        assert 0 < error < 0.1 * size


def test_a_caller_between_two_pieces_computes_as_before(folder) -> None:
    model = load(folder, precision="bf16")
    x = torch.ones(2, 2, requires_grad=True)
    for _ in model.watch("ab", max_new_tokens=8, steps=2):
        assert not torch.is_autocast_enabled("cpu")
        assert (x @ x).dtype == torch.float32
        assert (x @ x).requires_grad


def test_command_and_mistake(folder, capsys) -> None:
    main(["generate", str(folder), "--prompt", "ab", "--precision", "bf16", "--max-new", "4", "--json"])
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    assert sample["prompt"] == "ab"
    with pytest.raises(UserError, match=r"load: precision is 'fp8'; use one of float32, bf16"):
        load(folder, precision="fp8")  # type: ignore[arg-type]
