"""Randomness as a function of names: the same names draw the same, any other names something else."""

from __future__ import annotations

import pytest
import torch

from colatent.config.prior import FlowConfig
from colatent.flow.objective import draw_noise
from colatent.latents.draws import digest, generator, normal, torch_generator
from colatent.plugins.contract import Encoded

NAMES = (0, "prior", 3, "sample-17", 5)


def test_same_names_same_draw() -> None:
    assert torch.equal(normal((4, 3), *NAMES), normal((4, 3), *NAMES))
    assert generator(*NAMES).uniform() == generator(*NAMES).uniform()
    same = [torch.rand(3, generator=torch_generator(*NAMES)) for _ in range(2)]
    assert torch.equal(*same)


@pytest.mark.parametrize(
    "other",
    [
        (0, "prior", 3, "sample-17", 6),
        (0, "prior", "sample-17", 3, 5),
        (0, "prior", 3, "sample-17"),
        (0, "prior", 3, "sample-17", "5"),
        (0, "prior", 3, "sample-1", 75),
        (0, "prior3", "sample-17", 5),
    ],
)
def test_other_names_another_draw(other: tuple[int | str, ...]) -> None:
    assert digest(*other) != digest(*NAMES)
    assert not torch.equal(normal((4, 3), *other), normal((4, 3), *NAMES))
    assert not torch.equal(
        torch.rand(3, generator=torch_generator(*other)), torch.rand(3, generator=torch_generator(*NAMES))
    )


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    long = normal((50, 3), *NAMES)
    for rows in (1, 7, 49):
        assert torch.equal(normal((rows, 3), *NAMES), long[:rows])


def test_draws_are_standard_normal_float32() -> None:
    z = normal((20_000, 4), *NAMES)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.mean(0), torch.zeros(4), rtol=0, atol=0.03)
    torch.testing.assert_close(z.T.cov(), torch.eye(4), rtol=0, atol=0.05)


def test_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before, state = normal((2, 2), *NAMES), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(normal((2, 2), *NAMES), before)
    torch.manual_seed(1)
    normal((2, 2), *NAMES)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_those_of_any_process_and_machine() -> None:
    assert digest(*NAMES) == 0xF13009ABF36F507BD1B061F81CA415AF
    torch.testing.assert_close(normal((3,), *NAMES), torch.tensor([0.93854, 0.781337, -0.871374]), rtol=0, atol=1e-6)


def test_noise_of_an_item_begins_with_that_of_the_item_cut_short() -> None:
    def item(blocks: int) -> Encoded:
        return Encoded(
            mean_LC=torch.zeros(4 * blocks, 3),
            logvar_LC=None,
            block_lengths=(4,) * blocks,
            positions_LA=torch.arange(4.0 * blocks)[:, None],
            units_L=torch.ones(4 * blocks, dtype=torch.int64),
        )

    flow = FlowConfig(history_dropout=0.5)
    short, long = (draw_noise(flow, "text", item(blocks), *NAMES) for blocks in (2, 5))
    assert torch.equal(short["noise_LC"], long["noise_LC"][:8])
    assert short["t_K"] == long["t_K"][:2]
    assert short["alone_K"] == long["alone_K"][:2]
