"""The packed two-copy pass of the prior against a dense, unpacked float64 reference, and samples against neighbours.

Cases cover unequal lengths, several streams on one and two axes, groups, dual layers, dropped histories and pinned
latents; each is small enough that the reference, which loops over rows, answers at once.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from colatent.flow.objective import flow_losses, velocity_errors
from colatent.flow.path import interpolate
from colatent.latents.packing import PackedBatch, pack
from colatent.latents.sequence import LatentSequence
from colatent.prior.backends import flex
from colatent.prior.dit import Prior
from reference import ReferencePrior, reference_loss, two_copy_rows, two_copy_sees

CHANNELS = {"text": 3, "image": 4}


@pytest.fixture
def cases(double, make_segment) -> dict[str, list[LatentSequence]]:
    """Batches by name; all in float64."""
    text = lambda blocks, seed, **fields: make_segment("text", blocks, seed=seed, **fields)  # noqa: E731
    image = lambda blocks, seed, **fields: make_segment("image", blocks, seed=seed, channels=4, axes=2, **fields)  # noqa: E731
    values = torch.randn(8, 3, generator=torch.Generator().manual_seed(9))
    return {
        "equal": [(text((4, 4), seed),) for seed in range(3)],
        "unequal": [(text((4, 4, 4), 1),), (text((4,), 2),), (text((4, 4), 3),)],
        "equal blocks without history": [(text((4,), seed),) for seed in range(2)],
        "one block each": [(text((4,), 1),), (text((2,), 2),)],
        "pinned": [(text((4, 4), 1, pinned_K=(1, 3), pinned_LC=values),), (text((4, 4, 4), 2),)],
        "dropped": [(text((4, 4, 4), 1, alone_K=(False, True, False)),), (text((4, 4, 4), 2),)],
        "padded": [(text((4, 4), 1, weight_L=torch.tensor([1.0] * 6 + [0.0] * 2)),)],
        "two streams": [
            (text((4, 4), 1), image((6,), 2)),
            (image((3,), 3, generated=False), text((4,), 4, alone_K=(True,))),
            (text((2, 4), 5, generated=False), image((6,), 6), text((4, 4), 7)),
        ],
        "groups": [
            (text((4, 2), 1, generated=False), image((6,), 2, generated=False, same_group=True), text((4, 4), 3)),
            (image((3,), 4), text((4, 4), 5, same_group=True), image((6,), 6)),
        ],
    }


CASES = (
    "equal",
    "unequal",
    "equal blocks without history",
    "one block each",
    "pinned",
    "dropped",
    "padded",
    "two streams",
    "groups",
)

BACKENDS = ("auto", "sdpa", "matrix", "flex")


def velocities(prior: Prior, batch: PackedBatch, *, wanted: bool = True) -> dict[str, Tensor]:
    """Velocity of all noisy rows of a packed batch, by stream; with wanted=False of all rows."""
    rows = batch.streams
    index = {name: r.wanted_S for name, r in rows.items()}
    return prior(
        {name: interpolate(r.z0_SC, r.noise_SC, r.t_S[:, None]) for name, r in rows.items()},
        layout=batch.layout,
        rows={name: r.rows_S for name, r in rows.items()},
        positions_N3=batch.positions_N3,
        t_index_N=batch.t_index_N,
        modulation=prior.modulate(batch.t_T),
        wanted={name: some for name, some in index.items() if len(some)} if wanted else None,
    )


def reference_velocities(prior: Prior, sequences: list[LatentSequence]) -> dict[str, Tensor]:
    """The same from the reference, sequence by sequence."""
    slow, found = ReferencePrior(prior.state_dict(), prior.config), {}
    for sequence in sequences:
        rows = two_copy_rows(sequence)
        for row, v in zip(rows, slow.velocity(rows, two_copy_sees(rows)), strict=True):
            if not row.clean:
                found.setdefault(row.stream, []).append(v)
    return {name: torch.stack(some) for name, some in found.items()}


def assert_close(found: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float) -> None:
    """Same streams, same shapes, same values relative to the largest."""
    assert found.keys() == truth.keys()
    for name, value in truth.items():
        assert found[name].shape == value.shape
        assert float((found[name] - value).abs().max()) <= tolerance * float(value.abs().max()), name


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dual_layers", [0, 2])
@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_packed_velocity_equals_the_dense_reference(
    cases, make_prior, name: str, dual_layers: int, backend: str
) -> None:
    prior = make_prior(CHANNELS, dual_layers=dual_layers, layers=1, qk_bias=dual_layers > 0)
    assert_close(velocities(prior, pack(cases[name])), reference_velocities(prior, cases[name]), 1e-9)


@pytest.mark.parametrize("name", CASES)
def test_flex_takes_every_case(cases, name: str) -> None:
    assert flex.takes(pack(cases[name]).layout)  # else the tests of that backend would hold another


@torch.no_grad()
@pytest.mark.parametrize("settings", [{"rope_dim": 12}, {"rope_dim": 2, "heads": 4}, {"heads": 1, "mlp_ratio": 2}])
def test_every_shape_of_head_and_rotation(cases, make_prior, settings: dict[str, int]) -> None:
    prior = make_prior(CHANNELS, dual_layers=1, layers=2, **settings)
    assert_close(velocities(prior, pack(cases["two streams"])), reference_velocities(prior, cases["two streams"]), 1e-9)


def gradients(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradient by parameter; zero where the loss does not reach."""
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), found, strict=True)}


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at it, of tensors that are no leaves
@pytest.mark.parametrize("name", ["equal", "one block each", "pinned", "unequal", "groups"])
@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_loss_and_gradients_equal_those_of_the_reference(cases, make_prior, name: str, backend: str) -> None:
    prior = make_prior(CHANNELS, dual_layers=1, layers=1)
    leaves = {k: v.detach().clone().requires_grad_() for k, v in prior.named_parameters()}
    truth = reference_loss(ReferencePrior(leaves, prior.config), cases[name])
    found = flow_losses(prior, pack(cases[name]))
    assert_close({k: v.detach() for k, v in found.items()}, {k: v.detach() for k, v in truth.items()}, 1e-6)
    slow = gradients(torch.stack(list(truth.values())).sum(), leaves)
    fast = gradients(torch.stack(list(found.values())).sum(), dict(prior.named_parameters()))
    scale = max(float(g.abs().max()) for g in slow.values())
    assert max(float((fast[k] - slow[k]).abs().max()) for k in slow) <= 1e-7 * scale
    assert sum(float(g.abs().max()) > 1e-6 * scale for g in slow.values()) > len(slow) / 2  # the test sees gradients


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_packed_equals_one_by_one(cases, make_prior, name: str) -> None:
    prior = make_prior(CHANNELS, dual_layers=1, layers=1)
    alone = [velocities(prior, pack([sequence])) for sequence in cases[name]]
    joined = {
        stream: torch.cat([v[stream] for v in alone if stream in v]) for stream in velocities(prior, pack(cases[name]))
    }
    assert_close(velocities(prior, pack(cases[name])), joined, 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("name", ["equal", "unequal", "two streams"])
def test_a_sample_does_not_know_its_neighbours(cases, make_prior, name: str) -> None:
    prior = make_prior(CHANNELS, dual_layers=1, layers=1)
    first, second, *others = cases[name]
    other = tuple(replace(s, z_LC=s.z_LC * 5 + 1) for s in second)
    counts = {s.stream: 0 for s in first}
    for segment in first:
        counts[segment.stream] += len(segment.z_LC) * segment.generated
    before, after = velocities(prior, pack([first, second, *others])), velocities(prior, pack([first, other, *others]))
    for stream, count in counts.items():
        assert torch.equal(before[stream][:count], after[stream][:count])
    assert any(not torch.equal(before[stream], after[stream]) for stream in before)


@torch.no_grad()
def test_noisy_latents_never_reach_clean_ones_or_each_other(cases, make_prior, make_segment) -> None:
    prior = make_prior(CHANNELS, layers=2)
    one = make_segment("text", (4, 4, 4), seed=1)
    noise = one.noise_LC.clone()
    noise[4:8] += 3.0
    before, after = (velocities(prior, pack([(s,)]))["text"] for s in (one, replace(one, noise_LC=noise)))
    assert torch.equal(before[:4], after[:4])
    assert torch.equal(before[8:], after[8:])
    assert not torch.equal(before[4:8], after[4:8])


@torch.no_grad()
def test_pinned_latents_count_in_no_loss_and_padding_neither(cases, make_prior) -> None:
    prior = make_prior(CHANNELS)
    for name, expected in (("pinned", 8 + 12 - 4), ("padded", 6)):
        _, weight_S = velocity_errors(prior, pack(cases[name]))["text"]
        assert float(weight_S.sum()) == expected


@torch.no_grad()
def test_a_stream_that_is_only_given_needs_no_exit(cases, make_prior, make_segment) -> None:
    prior = make_prior(CHANNELS, dual_layers=1, layers=1)
    given = make_segment("image", (6,), seed=1, channels=4, axes=2, generated=False)
    assert flow_losses(prior, pack([(given, make_segment("text", (4,), seed=2))])).keys() == {"text"}


@torch.no_grad()
def test_float32_stays_near_float64(cases, make_prior) -> None:
    prior = make_prior(CHANNELS, dual_layers=1, layers=1)
    truth = velocities(prior, pack(cases["two streams"]))
    torch.set_default_dtype(torch.float32)
    single = [
        tuple(
            replace(
                s,
                z_LC=s.z_LC.float(),
                positions_LA=s.positions_LA.float(),
                noise_LC=None if s.noise_LC is None else s.noise_LC.float(),
            )
            for s in sequence
        )
        for sequence in cases["two streams"]
    ]
    assert_close({k: v.double() for k, v in velocities(prior.float(), pack(single)).items()}, truth, 1e-4)
