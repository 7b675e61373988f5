"""The gradient of a table whose rows are looked up, summed as CUDA does it: by a matrix product."""

from __future__ import annotations

import pytest
import torch

from colatent.prior.passing import LookUp

INDEX = torch.tensor([0] * 2048 + [1, 2, 2, 4])
"""Thousands of rows at t = 0, and a time that no row has."""


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("width", [7, 24])  # a sum as of embeddings, and a product
def test_values_and_gradients_are_those_of_index_select(width: int) -> None:
    table = torch.randn(5, width).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LookUp.apply(x, INDEX[-6:]), (table,))
    rows, wanted = LookUp.apply(table, INDEX), table.index_select(0, INDEX)
    assert torch.equal(rows, wanted)
    weight = torch.randn(len(INDEX), width)
    found, truth = (torch.autograd.grad((x * weight).sum(), table)[0] for x in (rows, wanted))
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-12)


def test_a_sum_of_thousands_is_rounded_once() -> None:
    """Added one by one in bfloat16, 2048 ones would be 256."""
    table = torch.zeros(5, 24, dtype=torch.bfloat16, requires_grad=True)
    (found,) = torch.autograd.grad(LookUp.apply(table, INDEX).sum(), table)
    assert found[:, 0].tolist() == [2048.0, 1.0, 2.0, 0.0, 1.0]
