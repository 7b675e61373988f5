"""Attention in tiles of queries: values and gradients against the formula, whatever the rectangle."""

from __future__ import annotations

import pytest
import torch
from attending import assert_like_the_formula, drawn, formula, seen_by, two_copies

from colatent.latents.rows import AttentionPart, Layout, Rows
from colatent.prior.attention import attend
from colatent.prior.backends import tiled
from colatent_text.layouts import cut_layout, items_layout


def scattered_part() -> Layout:
    """Three samples of seven rows, each of which sees any of them and the last; no rows of their own."""
    rows = Rows([0, 7, 14], [7, 7, 7])
    mask_BQK = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.4
    mask_BQK[:, :, 6] = True
    return Layout((AttentionPart(queries=rows, keys=rows, mask_BQK=mask_BQK),), 21)


LAYOUTS = {
    "alike": lambda make: two_copies(make, (3, 3)),
    "of several lengths": lambda make: two_copies(make, (3, 1, 2)),
    "long": lambda make: two_copies(make, (9, 4), 5),
    "a codec's window": lambda make: items_layout((20, 12), block=4, window=8, attention="block_causal"),
    "a codec's cuts": lambda make: cut_layout((20, 12), ((1, 3), ()), block=4, window=8),
    "anything": lambda make: scattered_part(),
}


@pytest.fixture(params=[(1, 1), (4, 8), (64, 128)])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tiles, which are used from one key on."""
    monkeypatch.setattr(tiled, "LEAST", 1)
    monkeypatch.setattr(tiled, "TILE", request.param)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("backend", ["matrix"], indirect=True)
@pytest.mark.parametrize("name", LAYOUTS)
def test_values_and_gradients_equal_the_formula(make_segment, backend: str, name: str) -> None:
    layout = LAYOUTS[name](make_segment)
    assert_like_the_formula(layout)
    assert any(("tiles", torch.device("cpu")) in part.made for part in layout.parts)


@pytest.mark.parametrize("backend", ["matrix"], indirect=True)
def test_bfloat16_is_as_near_as_whole_rectangles(make_segment, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From so many keys on tiles are used by themselves."""
    layout = two_copies(make_segment, (20, 18), 16)
    assert [tiled.takes(part) for part in layout.parts] == [True, True]
    truth = [x.requires_grad_() for x in drawn(layout.length, head_dim=64)]
    true = torch.autograd.grad(formula(*truth, seen_by(layout)).square().sum(), truth)
    errors = {}
    for least in (tiled.LEAST, 10_000):
        monkeypatch.setattr(tiled, "LEAST", least)
        found = [x.detach().bfloat16().requires_grad_() for x in truth]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            o_NHD = attend(*found, layout=layout)
        assert o_NHD.dtype == torch.bfloat16
        got = torch.autograd.grad(o_NHD.square().sum(), found)
        errors[least] = [float((g.double() - t).norm() / t.norm()) for g, t in zip(got, true, strict=True)]
    tiles, whole = errors.values()
    assert all(one < 1.3 * other and one < 2e-2 for one, other in zip(tiles, whole, strict=True)), errors


def test_there_is_no_second_derivative(make_segment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than a wrong one."""
    monkeypatch.setenv("COLATENT_ATTENTION", "matrix")
    monkeypatch.setattr(tiled, "LEAST", 1)
    layout = two_copies(make_segment)
    q, k, v = (x.requires_grad_() for x in drawn(layout.length))
    (slope,) = torch.autograd.grad(attend(q, k, v, layout=layout).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
