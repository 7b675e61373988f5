"""The flow without a network: path and velocity at both ends, time laws against their quantiles, solvers against a
field with a closed form, guidance, and what is drawn for a training block."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from colatent.config.prior import FlowConfig, TimeLawConfig
from colatent.flow.guidance import guide, rescale, spread
from colatent.flow.objective import draw_cuts, draw_noise, total_loss
from colatent.flow.path import interpolate, target_velocity
from colatent.flow.solvers import SOLVERS, shifted_grid, solve, times_visited
from colatent.flow.time_law import draw_times, width_law
from colatent.plugins.contract import Encoded

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "ab2": 2}
PASSES = {"euler": 1, "midpoint": 2, "heun": 2, "ab2": 1}
GRIDS = {"equal": 1.0, "short near the noise": 3.0, "short near the data": 0.7}


@pytest.fixture
def ends(double) -> tuple[Tensor, Tensor]:
    """Data and noise."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)


def test_zero_is_clean_and_one_is_noise(ends) -> None:
    z0, z1 = ends
    assert torch.equal(interpolate(z0, z1, torch.zeros(5, 1)), z0)
    torch.testing.assert_close(interpolate(z0, z1, torch.ones(5, 1)), z1, rtol=0, atol=1e-15)
    torch.testing.assert_close(interpolate(z0, z1, torch.full((5, 1), 0.25)), 0.75 * z0 + 0.25 * z1)


def test_velocity_is_the_derivative_of_the_path(ends) -> None:
    z0, z1 = ends
    for t in (0.0, 0.3, 1.0):
        h = 1e-5
        slope = (interpolate(z0, z1, torch.tensor(t + h)) - interpolate(z0, z1, torch.tensor(t - h))) / (2 * h)
        torch.testing.assert_close(slope, target_velocity(z0, z1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_the_true_velocity_points_at_both_ends(ends, t: float) -> None:
    z0, z1 = ends
    when = torch.full((5, 1), t)
    z_t, u = interpolate(z0, z1, when), target_velocity(z0, z1)
    torch.testing.assert_close(z_t - when * u, z0)
    torch.testing.assert_close(z_t + (1 - when) * u, z1)


@pytest.mark.parametrize(("channels", "loc"), [(16, 1.0), (64, 1.7), (128, 2.0)])
def test_width_law(channels: int, loc: float) -> None:
    assert width_law(channels) == pytest.approx(loc, abs=0.05)
    assert width_law(16) == 1.0


@pytest.mark.parametrize(
    ("law", "channels", "loc", "scale"),
    [({}, 16, 1.0, 1.0), ({}, 64, 1.693147, 1.0), ({"loc": -0.5, "scale": 0.7}, 64, -0.5, 0.7)],
)
def test_quantiles_of_the_logit_normal(law: dict[str, float], channels: int, loc: float, scale: float) -> None:
    t = np.array(draw_times(TimeLawConfig(**law), channels, 40_000, np.random.default_rng(0)))
    assert 0 < t.min() < t.max() < 1
    for deviations, share in ((-1.0, 0.158655), (0.0, 0.5), (1.0, 0.841345)):
        expected = 1 / (1 + math.exp(-(loc + scale * deviations)))
        assert float(np.quantile(t, share)) == pytest.approx(expected, abs=0.008)


def test_quantiles_of_the_uniform_law() -> None:
    t = np.array(draw_times(TimeLawConfig(kind="uniform"), 16, 40_000, np.random.default_rng(0)))
    assert np.quantile(t, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.01)


def bent(z: Tensor, t: float) -> Tensor:
    """dz/dt = z cos(t), whose solution is z(0) = z(1) exp(-sin(1))."""
    return z * math.cos(t)


@pytest.mark.parametrize("shift", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_order_of_a_solver(ends, solver: str, shift: float) -> None:
    truth = ends[1] * math.exp(-math.sin(1.0))
    grids = [shifted_grid(count, shift) for count in (64, 128, 256)]
    errors = [float((solve(solver, bent, ends[1], grid) - truth).abs().max()) for grid in grids]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(ORDERS[solver], abs=0.1)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_straight_paths_are_solved_exactly_in_any_number_of_steps(ends, solver: str, steps: int) -> None:
    z0, z1 = ends
    found = solve(solver, lambda z, t: target_velocity(z0, z1), z1, shifted_grid(steps))
    torch.testing.assert_close(found, z0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "ab2"])
def test_the_flow_to_one_point_is_straight_too(ends, solver: str) -> None:
    z0, z1 = ends  # Heun would ask for it at t = 0, where it is 0 / 0
    torch.testing.assert_close(solve(solver, lambda z, t: (z - z0) / t, z1, shifted_grid(4)), z0)


@pytest.mark.parametrize("shift", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("solver", SOLVERS)
def test_times_visited_are_those_asked_for(ends, solver: str, steps: int, shift: float) -> None:
    asked: list[float] = []

    def velocity(z: Tensor, t: float) -> Tensor:
        asked.append(t)
        return bent(z, t)

    grid = shifted_grid(steps, shift)
    solve(solver, velocity, ends[1], grid)
    assert times_visited(solver, grid) == tuple(sorted(set(asked), reverse=True))
    assert len(asked) == steps * PASSES[solver]


def test_the_grid_runs_from_noise_to_clean() -> None:
    assert shifted_grid(4) == (1.0, 0.75, 0.5, 0.25, 0.0)


@pytest.mark.parametrize("shift", [0.3, 2.0, math.e])
def test_a_shift_moves_every_time_by_its_logarithm(shift: float) -> None:
    first, *inner, last = shifted_grid(8, shift)
    assert (first, last) == (1.0, 0.0)
    for moved, equal in zip(inner, shifted_grid(8)[1:-1], strict=True):
        assert math.log(moved / (1 - moved)) == pytest.approx(math.log(equal / (1 - equal)) + math.log(shift))


def test_two_steps_of_adams_and_bashforth_by_hand(ends) -> None:
    asked = {1.0: torch.tensor([2.0]), 0.6: torch.tensor([3.0]), 0.0: None}
    found = solve("ab2", lambda z, t: asked[t], torch.tensor([10.0]), tuple(asked))
    # A line through both velocities is 3 at 0.6 and rises by 2.5 a unit towards 0: 3.75 in the middle of the last step.
    torch.testing.assert_close(found, torch.tensor([10.0 - 0.4 * 2.0 - 0.6 * 3.75]))


def test_guidance(ends) -> None:
    conditional, unconditional = ends
    torch.testing.assert_close(guide(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guide(conditional, unconditional, 0.0), unconditional)
    torch.testing.assert_close(
        guide(conditional, unconditional, 3.0), unconditional + 3 * (conditional - unconditional)
    )
    each = guide(conditional, unconditional, torch.tensor([1.0, 3.0, 1.0, 1.0, 3.0])[:, None])
    torch.testing.assert_close(each[1], 3 * conditional[1] - 2 * unconditional[1])
    torch.testing.assert_close(each[0], conditional[0])


@pytest.mark.parametrize("t", [1.0, 0.2])
def test_rescaled_guidance_has_the_spread_of_the_conditional_estimate(double, t: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z, conditional, unconditional = torch.randn(3, 2, 4, 3, generator=generator)
    free_BK = torch.tensor([[True] * 4, [False, True, True, True]])
    guided = guide(conditional, unconditional, 5.0)
    wide, true = (spread(z - t * v, free_BK) for v in (guided, conditional))
    torch.testing.assert_close(true[1], (z - t * conditional)[1, 1:].std(correction=0))
    for share, expected in ((0.0, wide), (0.5, 0.5 * (wide + true)), (1.0, true)):
        found = rescale(guided, conditional, z, t=t, share=share, free_BK=free_BK)
        torch.testing.assert_close(spread(z - t * found, free_BK), expected)
    torch.testing.assert_close(rescale(guided, conditional, z, t=t, share=0.0, free_BK=free_BK), guided)
    torch.testing.assert_close(rescale(conditional, conditional, z, t=t, share=1.0, free_BK=free_BK), conditional)
    assert torch.equal(rescale(guided, conditional, z, t=0.0, share=1.0, free_BK=free_BK), guided)


def encoded(blocks: int, block: int = 4, channels: int = 16) -> Encoded:
    length = blocks * block
    return Encoded(
        mean_LC=torch.zeros(length, channels),
        logvar_LC=None,
        block_lengths=(block,) * blocks,
        positions_LA=torch.arange(length, dtype=torch.float32)[:, None],
        units_L=torch.ones(length, dtype=torch.int64),
    )


def test_a_share_of_blocks_is_cut_anywhere_inside() -> None:
    lengths = (4,) * 4000
    cuts = np.array(draw_cuts(FlowConfig(ragged=0.6), lengths, 0, "a"))
    assert np.bincount(cuts, minlength=4) / 4000 == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.03)
    assert len(np.bincount(cuts)) == 4
    assert draw_cuts(FlowConfig(ragged=1.0), (1, 1), 0, "a") == (0, 0)
    assert set(draw_cuts(FlowConfig(ragged=0.0), lengths, 0, "a")) == {0}


def test_noise_times_and_dropped_histories_of_a_block() -> None:
    flow = FlowConfig(history_dropout=0.3, time=TimeLawConfig(loc=5.0), times={"text": TimeLawConfig(loc=-5.0)})
    drawn = draw_noise(flow, "text", encoded(4000), 0, "text", "key")
    other = draw_noise(flow, "image", encoded(4000), 0, "image", "key")
    assert len(drawn["t_K"]) == len(drawn["alone_K"]) == 4000
    assert np.median(drawn["t_K"]) < 0.02 < 0.98 < np.median(other["t_K"])
    assert sum(drawn["alone_K"]) / 4000 == pytest.approx(0.3, abs=0.03)
    assert float(drawn["noise_LC"].std()) == pytest.approx(1.0, abs=0.01)
    assert abs(np.corrcoef(drawn["t_K"][1:], drawn["t_K"][:-1])[0, 1]) < 0.05  # one t per block, independent


def test_weights_of_streams() -> None:
    losses = {"text": torch.tensor(2.0), "image": torch.tensor(3.0)}
    assert float(total_loss(losses, {"image": 0.5})) == 3.5
