"""Linear layers over packed matrices give what plain ones give, for what the matrix is now."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from colatent.evaluate.flops import count_flops
from colatent.prior.layer import GeluLinear
from colatent.prior.packed import PackedGelu, PackedLinear, pack, packing

pytestmark = pytest.mark.skipif(
    not packing(torch.device("cpu")), reason="this CPU or this PyTorch multiplies no packed matrices"
)
Change = Callable[[nn.Linear], object]


def packed(layer: nn.Module) -> nn.Module:
    """The layer in bf16, packed."""
    network = nn.Sequential(layer.bfloat16().requires_grad_(False))
    pack(network)
    return network[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (0, 48), (33, 48), (2, 5, 48), (48,)])
def test_products_are_the_same_to_the_bit(shape: tuple[int, ...], bias: bool) -> None:
    plain = nn.Linear(48, 80, bias=bias).bfloat16()
    layer, x = packed(copy.deepcopy(plain)), torch.randn(shape)
    assert type(layer) is PackedLinear
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), plain(x))
        assert torch.equal(layer(x.bfloat16()), plain(x))


def test_rows_may_lie_apart() -> None:
    plain, x = nn.Linear(48, 80).bfloat16(), torch.randn(48, 24).bfloat16().T
    with torch.no_grad():
        for rows in (x, x[::2]):
            assert torch.equal(packed(copy.deepcopy(plain))(rows), plain(rows))


def test_gelu_is_nearer_to_the_exact_one_than_rounded_twice() -> None:
    plain, x = GeluLinear(512, 512).bfloat16(), torch.randn(64, 512).bfloat16()
    layer = packed(copy.deepcopy(plain))
    assert type(layer) is PackedGelu
    with torch.no_grad():
        exact = F.gelu(F.linear(x.double(), plain.weight.double(), plain.bias.double()), approximate="tanh")
        errors = [(found.double() - exact).square().mean().sqrt() for found in (layer(x), plain(x))]
    assert 0 < errors[0] < errors[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.weight.mul_(2.0),
        lambda layer: layer.load_state_dict({"weight": torch.ones(8, 32), "bias": torch.zeros(8)}),
        lambda layer: setattr(layer.weight, "data", torch.ones(8, 32).bfloat16()),
        lambda layer: setattr(layer, "weight", nn.Parameter(torch.ones(8, 32).bfloat16(), requires_grad=False)),
    ],
    ids=["in place", "loaded", "other data", "another parameter"],
)
@torch.no_grad()
def test_a_matrix_that_has_changed_is_packed_again(change: Change) -> None:
    layer, x = packed(nn.Linear(32, 8)), torch.randn(4, 32).bfloat16()
    assert isinstance(layer, nn.Linear)
    before = layer(x)
    change(layer)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert not torch.equal(layer(x), before)


@torch.no_grad()
@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_is_of_its_own_matrix(again: Callable[[nn.Linear], nn.Linear]) -> None:
    layer, x = packed(nn.Linear(32, 8)), torch.randn(4, 32).bfloat16()
    assert isinstance(layer, nn.Linear)
    wanted = layer(x)
    other = again(layer)
    layer.weight.zero_()
    assert torch.equal(other(x), wanted)


def test_with_a_gradient_it_is_a_plain_layer() -> None:
    layer, x = packed(GeluLinear(32, 8)), torch.randn(4, 32).bfloat16().requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    with torch.no_grad():
        assert layer.float()(torch.randn(4, 32)).dtype == torch.float32


def test_a_matrix_that_counts_no_changes_is_multiplied_as_it_is() -> None:
    with torch.inference_mode():
        layer, x = packed(nn.Linear(32, 8)), torch.randn(4, 32).bfloat16()
        assert isinstance(layer, nn.Linear)
        for _ in range(2):
            assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
            layer.weight.mul_(2.0)


@torch.no_grad()
def test_a_matrix_at_the_place_of_an_older_one_is_packed() -> None:
    for _ in range(20):
        layer, x = packed(nn.Linear(1024, 1024, bias=False)), torch.randn(4, 1024).bfloat16()
        assert isinstance(layer, nn.Linear)
        layer(x)
        layer.to_empty(device="meta").to_empty(device="cpu")
        layer.load_state_dict({"weight": torch.randn(1024, 1024)})
        assert torch.equal(layer(x), F.linear(x, layer.weight))


@torch.no_grad()
def test_a_matrix_of_another_dtype_lets_go_of_what_was_kept() -> None:
    layer, x = packed(nn.Linear(32, 8)), torch.randn(4, 32).bfloat16()
    layer(x)
    assert "_kept" in vars(layer)
    layer.float()(x.float())
    assert "_kept" not in vars(layer)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on the way to its rules
def test_forward_derivatives_are_those_of_a_plain_layer() -> None:
    layer = packed(nn.Linear(32, 8))
    with forward_ad.dual_level():
        x = forward_ad.make_dual(torch.randn(4, 32).bfloat16(), torch.ones(4, 32).bfloat16())
        assert forward_ad.unpack_dual(layer(x)).tangent is not None


@torch.no_grad()
@pytest.mark.parametrize("how", ["nested", "sparse", "vmap", "traced", "scripted beside it"])
def test_what_the_operator_does_not_take_goes_to_a_plain_layer(how: str) -> None:
    plain = nn.Linear(32, 8).bfloat16().requires_grad_(False)
    layer, x = packed(copy.deepcopy(plain)), torch.randn(4, 32).bfloat16()
    calls: dict[str, Callable[[nn.Module], torch.Tensor]] = {
        "nested": lambda one: one(torch.nested.nested_tensor([x, x[:2]])).to_padded_tensor(0.0),
        "sparse": lambda one: one(x.to_sparse()),
        "vmap": lambda one: torch.vmap(one)(x.repeat(3, 1, 1)),
        "traced": lambda one: torch.jit.trace(one, x)(x),
        "scripted beside it": lambda one: packed(nn.Sequential(torch.jit.script(nn.ReLU()), one))(x),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of prototypes and of what is on its way out
        assert torch.equal(calls[how](layer), calls[how](plain))


@torch.no_grad()
@pytest.mark.parametrize("x", [torch.ones(4, 32), torch.ones(4, 32).double(), torch.ones(4, 31).bfloat16()])
def test_what_a_plain_layer_refuses_is_refused_alike(x: torch.Tensor) -> None:
    plain = nn.Linear(32, 8).bfloat16()
    with pytest.raises(RuntimeError) as wanted:
        plain(x)
    with pytest.raises(RuntimeError) as found:
        packed(plain)(x)
    assert str(found.value) == str(wanted.value)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_empty_layers_stay() -> None:
    for layer in (nn.Linear(0, 8), nn.Linear(32, 0)):
        assert type(packed(layer)) is nn.Linear


def test_layers_of_other_classes_and_matrices_that_are_made_anew_stay() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    normed = parametrizations.weight_norm(nn.Linear(32, 8))
    assert type(packed(Doubled(32, 8))) is Doubled
    assert type(packed(normed)) is type(normed)
    with torch.no_grad():
        normed(torch.randn(4, 32).bfloat16())


@torch.no_grad()
def test_its_flops_are_counted() -> None:
    plain, x = nn.Linear(32, 8).bfloat16(), torch.randn(3, 5, 32).bfloat16()
    layer = packed(copy.deepcopy(plain))
    assert count_flops(lambda: layer(x)) == count_flops(lambda: plain(x)) == 2 * 15 * 32 * 8
