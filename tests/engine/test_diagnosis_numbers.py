"""The numbers of a diagnosis against closed forms: known posteriors, Gaussian latents with their exact velocity, and a
prior of random weights against the row-by-row reference.

Axes: L latents of an item, C channels, S rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colatent.config.schema import SegmentConfig
from colatent.evaluate.diagnosis_denoise import denoise, summary
from colatent.evaluate.diagnosis_flow import baselines, flow_curves, residual
from colatent.evaluate.diagnosis_latents import Moments, latent_statistics, moments_of
from colatent.evaluate.heldout import HeldItem, HeldOut, HeldSequence, noise_of
from colatent.plugins.contract import Encoded
from reference import ReferencePrior, next_block, reference_loss, two_copy_rows

CPU = torch.device("cpu")
VARIANCE_C = torch.tensor([2.0, 0.5, 0.05])
MEAN_C = torch.tensor([0.3, -1.0, 0.0])
GENERATED = SegmentConfig(stream="tones")


def held_item(
    mean_LC: Tensor, *, blocks: tuple[int, ...], key: str = "a/0", logvar: float | None = None, padding: int = 0
) -> HeldItem:
    """An item whose posterior is said; z is its mean."""
    length = len(mean_LC)
    units_L = torch.ones(length, dtype=torch.int64)
    units_L[length - padding :] = 0
    record = Encoded(
        mean_LC=mean_LC,
        logvar_LC=None if logvar is None else torch.full_like(mean_LC, logvar),
        block_lengths=blocks,
        positions_LA=torch.arange(length, dtype=torch.float32)[:, None],
        units_L=units_L,
    )
    return HeldItem(key=key, item=key, record=record, z_LC=mean_LC)


def held_out(items: list[HeldItem], *, segments: tuple[SegmentConfig, ...] = (GENERATED,), per: int = 1) -> HeldOut:
    """Sequences of `per` items each, all of one source."""
    sequences = [
        HeldSequence(source="made", items=tuple(items[start : start + per]), segments=segments)
        for start in range(0, len(items), per)
    ]
    return HeldOut(seed=0, sequences=tuple(sequences), items={"tones": tuple(items)})


def gaussian_items(count: int, *, length: int = 64) -> list[HeldItem]:
    generator = torch.Generator().manual_seed(1)
    noise = [torch.randn(length, 3, generator=generator) for _ in range(count)]
    latents = [MEAN_C + VARIANCE_C.sqrt() * each for each in noise]
    return [held_item(z_LC, blocks=(4,) * (length // 4), key=f"a/{i}") for i, z_LC in enumerate(latents)]


class Formula:
    """A prior whose velocity is a function of z_t and t alone."""

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.velocity = velocity

    def modulate(self, t_T: Tensor) -> Tensor:
        return t_T

    def __call__(
        self, x: Mapping[str, Tensor], *, t_index_N: Tensor, modulation: Tensor, wanted: Any, **context: object
    ) -> dict[str, Tensor]:
        ((name, z_SC),) = x.items()
        return {name: self.velocity(z_SC, modulation[t_index_N][:, None])[wanted[name]]}


def exact(z_SC: Tensor, t_S1: Tensor) -> Tensor:
    """E[z1 - z0 | z_t] for z0 ~ N(MEAN_C, diag VARIANCE_C): regression of each channel on its own z_t."""
    variance = (1 - t_S1) ** 2 * VARIANCE_C + t_S1**2
    gain = (t_S1 - (1 - t_S1) * VARIANCE_C) / variance
    return -MEAN_C + gain * (z_SC - (1 - t_S1) * MEAN_C)


# Latents.


def test_statistics_of_a_known_posterior() -> None:
    """Signal from the means alone, noise from the variances alone, and padding nowhere."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0], [-3.0, 0.0], [100.0, 100.0]])
    found = latent_statistics(moments_of([held_item(means, blocks=(5,), logvar=math.log(0.05), padding=1)]))
    assert found.latents == 4
    assert found.signal == pytest.approx([5.0, 0.0])
    assert found.noise == pytest.approx([0.05, 0.05])
    assert found.std == pytest.approx([5.05**0.5, 0.05**0.5])
    assert found.log_snr is not None
    assert found.log_snr[0] == pytest.approx(math.log(100.0))
    assert found.log_snr[1] == -27.0
    assert found.information is not None
    assert found.information[0] == pytest.approx(0.5 * math.log(101.0))
    assert found.overall_log_snr == pytest.approx(math.log(5.0 / 0.1), rel=1e-6)
    assert found.overall_std == pytest.approx((5.1 / 2) ** 0.5)
    assert (found.active, found.effective) == (1, pytest.approx(1.0))
    assert found.excess_kurtosis[0] == pytest.approx((1 + 81) / 2 / 25 - 3)
    assert found.mean == pytest.approx([0.0, 0.0])


def test_statistics_agree_with_numpy() -> None:
    mixing = torch.tensor([[1.0, 0.6, 0.0], [0.0, 0.8, 0.1], [0.0, 0.0, 0.7]])
    z_LC = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) @ mixing
    found = latent_statistics(moments_of([held_item(z_LC, blocks=(500,))]))
    assert (found.noise, found.log_snr, found.information, found.overall_log_snr) == (None, None, None, None)
    np.testing.assert_allclose(found.correlation, np.corrcoef(z_LC.double().T), atol=1e-9)
    np.testing.assert_allclose(found.std, z_LC.double().numpy().std(0), rtol=1e-9)
    spectrum = np.linalg.eigvalsh(np.cov(z_LC.double().T, bias=True))
    assert found.effective == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum())


def test_posterior_noise_weakens_correlation() -> None:
    z_LC = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 2)
    moments = Moments(mean_NC=z_LC.double(), variance_NC=torch.ones(400, 2, dtype=torch.float64))
    signal = float(z_LC.double().var(correction=0))
    assert latent_statistics(moments).correlation[0][1] == pytest.approx(signal / (signal + 1))


# Flow.


@pytest.mark.parametrize("t", [0.05, 0.4, 1.0])
def test_the_gaussian_baseline_is_the_residual_of_a_regression(t: float) -> None:
    """Ordinary least squares of u on z_t, channel by channel of correlated latents, on many draws."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.9], [0.0, 0.4]], dtype=torch.float64)
    z0 = torch.randn(200_000, 2, generator=generator, dtype=torch.float64) @ mixing + 0.7
    z1 = torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    design = torch.cat([(1 - t) * z0 + t * z1, torch.ones(len(z0), 1, dtype=torch.float64)], 1)
    target = z1 - z0
    fitted = design @ torch.linalg.lstsq(design, target).solution
    constant, gaussian, oracle = baselines(Moments(mean_NC=z0, variance_NC=None), t)
    assert gaussian == pytest.approx(float((target - fitted).square().mean()), rel=0.02)
    assert constant == pytest.approx(float((target - target.mean(0)).square().mean()), rel=0.02)
    assert oracle == 0.0


def test_ends_of_the_baseline() -> None:
    variance = torch.tensor([0.3, 0.0], dtype=torch.float64)
    assert residual(variance, 1.0).tolist() == pytest.approx([0.3, 0.0])
    assert residual(variance, 0.0).tolist() == pytest.approx([1.0, 0.0])


def test_the_exact_prior_of_gaussian_latents_lies_on_its_baseline() -> None:
    held = held_out(gaussian_items(48))
    curves = flow_curves(Formula(exact), held, device=CPU)["tones"]
    assert curves.loss == pytest.approx(curves.gaussian, rel=0.05)
    assert curves.after == pytest.approx(curves.alone)
    assert curves.history_share == pytest.approx(15 / 16)
    assert curves.by_source == {"made": curves.loss}
    mean_C = moments_of(held.items["tones"]).mean_NC.mean(0).float()
    still = flow_curves(Formula(lambda z, t: (-mean_C).expand_as(z)), held, device=CPU)["tones"]
    assert still.loss == pytest.approx(still.constant, rel=0.02)
    assert min(still.constant) > max(curves.gaussian)


def test_an_oracle_that_is_told_the_item_lies_on_its_baseline() -> None:
    """All latents of the item have one posterior; what is left to guess is the posterior's own noise."""
    logvar, count, length = math.log(0.04), 40, 64
    generator = torch.Generator().manual_seed(2)
    items = []
    for number in range(count):
        one = held_item(torch.full((length, 3), 0.5), blocks=(length,), key=f"a/{number}", logvar=logvar)
        items.append(replace(one, z_LC=0.5 + 0.2 * torch.randn(length, 3, generator=generator)))

    def told(z_SC: Tensor, t_S1: Tensor) -> Tensor:
        gain = (t_S1 - (1 - t_S1) * 0.04) / ((1 - t_S1) ** 2 * 0.04 + t_S1**2)
        return -0.5 + gain * (z_SC - (1 - t_S1) * 0.5)

    curves = flow_curves(Formula(told), held_out(items), device=CPU)["tones"]
    assert curves.loss == pytest.approx(curves.oracle, rel=0.05)
    assert curves.after is None
    assert curves.alone is None


def test_history_and_its_absence_agree_with_the_reference(make_prior) -> None:
    """Given and generated items, padding, and blocks without history, against a prior that loops over rows."""
    prior = make_prior({"tones": 3})
    draw = torch.Generator().manual_seed(5)
    shapes = [((2, 3), 0), ((3, 3, 3), 2), ((4,), 0), ((2, 2), 1)]
    items = [
        held_item(torch.randn(sum(blocks), 3, generator=draw), blocks=blocks, key=f"a/{i}", padding=padding)
        for i, (blocks, padding) in enumerate(shapes)
    ]
    given = SegmentConfig(stream="tones", role="given")
    for segments in ((GENERATED, GENERATED), (given, GENERATED)):
        held = held_out(items, segments=segments, per=2)
        curves = flow_curves(prior, held, device=CPU, times=(0.3, 0.8))["tones"]
        for number, t in enumerate((0.3, 0.8)):
            slow = ReferencePrior(prior.state_dict(), prior.config)
            seen = [one.at(t, seed=0) for one in held.sequences]
            assert curves.loss[number] == pytest.approx(float(reference_loss(slow, seen)["tones"]), rel=1e-4)
            for alone, found in ((False, curves.after), (True, curves.alone)):
                assert found is not None
                later = [without_first(one.at(t, seed=0, alone=alone)) for one in held.sequences]
                assert found[number] == pytest.approx(float(reference_loss(slow, later)["tones"]), rel=1e-4)


def without_first(sequence: Any) -> Any:
    """The loss of a sequence's first block left out: nothing stands before it."""
    first = sequence[0]
    weight_L = first.weight_L.clone()
    weight_L[: first.block_lengths[0]] = 0.0
    return (replace(first, weight_L=weight_L), *sequence[1:])


# Denoising.


@pytest.mark.parametrize("t", [0.2, 0.7, 1.0])
def test_the_exact_flow_of_a_gaussian_is_solved(t: float) -> None:
    """The probability flow of a Gaussian keeps quantiles: z0 = m + (z_t - (1 - t) m) sqrt(l / ((1 - t)^2 l + t^2))."""
    (item,) = gaussian_items(1, length=8)
    held = held_out([item])
    solved = denoise(Formula(exact), held.sequences, seed=0, t=t, solver="heun", steps=400, device=CPU)[0][0]
    z_t = (1 - t) * item.z_LC + t * noise_of(item, 0)
    truth = MEAN_C + (z_t - (1 - t) * MEAN_C) * residual(VARIANCE_C, t).sqrt()
    torch.testing.assert_close(solved, truth, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(
    ("solver", "steps", "shift"), [("euler", 3, 1.0), ("heun", 2, 1.0), ("midpoint", 2, 1.0), ("ab2", 3, 3.0)]
)
def test_every_block_is_solved_as_if_it_were_generated_after_the_truth(make_prior, solver, steps, shift) -> None:
    prior = make_prior({"tones": 3})
    blocks = (2, 3, 2)
    item = held_item(torch.randn(7, 3, generator=torch.Generator().manual_seed(3)), blocks=blocks)
    held = held_out([item])
    how = {"solver": solver, "steps": steps, "shift": shift}
    solved = denoise(prior, held.sequences, seed=0, t=1.0, **how, device=CPU)[0][0]
    rows = [row for row in two_copy_rows(held.sequences[0].at(0.5, seed=0)) if row.clean]
    slow, start = ReferencePrior(prior.state_dict(), prior.config), 0
    for length in blocks:
        stop = start + length
        places = [row.position for row in rows[start:stop]]
        block = next_block(
            slow, rows[:start], noise_of(item, 0)[start:stop], stream="tones", positions=places,
            **how, guidance=1.0,
        )  # fmt: skip
        torch.testing.assert_close(
            solved[start:stop].double(), torch.stack([row.z for row in block]), atol=1e-4, rtol=0
        )
        start = stop


def test_steps_are_no_longer_than_those_of_generation() -> None:
    asked: list[float] = []

    def noted(z_SC: Tensor, t_S1: Tensor) -> Tensor:
        asked.append(float(t_S1.max()))
        return torch.zeros_like(z_SC)

    held = held_out(gaussian_items(1, length=4))
    denoise(Formula(noted), held.sequences, seed=0, t=0.3, solver="euler", steps=8, device=CPU)
    assert asked == pytest.approx([0.3, 0.2, 0.1])
    asked.clear()
    denoise(Formula(noted), held.sequences, seed=0, t=0.6, solver="euler", steps=8, shift=3.0, device=CPU)
    assert asked == pytest.approx([0.6, 6 / 13, 3 / 11])  # 1/3, 2/9 and 1/9 before the shift


def test_the_split_is_stated_where_the_content_still_shows() -> None:
    t, undenoised = (0.1, 0.2, 0.3, 0.4), (0.98, 0.95, 0.5, 0.96)
    found = summary(clean=0.98, t=t, denoised=(0.98, 0.9, 0.4, 0.3), undenoised=undenoised)
    assert found.readable_t == 0.2
    assert found.prior_share == pytest.approx(0.8)
    assert found.decoder_share == pytest.approx(0.2)
    assert summary(clean=0.9, t=t, denoised=(1.0,) * 4, undenoised=undenoised).prior_share is None
    better = summary(clean=0.9, t=t, denoised=(0.95,) * 4, undenoised=undenoised)
    assert (better.prior_share, better.decoder_share) == (0.0, 1.0)
