"""Stage joint, property by property, on the gradients of one step: what reaches which weights, and how much of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from colatent.data.mixture import Drawn
from colatent.train.codec_stage import latents_of
from colatent.train.joint_stage import JointStage
from colatent.train.sequences import encode_streams, join_sequences
from plugins_for_tests import grid_codec
from plugins_for_tests.grid_codec import GridCodec
from plugins_for_tests.joint_runs import REGIMES, FrozenGrid, stage_of, tree_of
from plugins_for_tests.runs import loss_of
from reference import ReferencePrior, latent_gradients


def only(regime: str, **settings: Any) -> dict[str, Any]:
    """A regime's config with some settings of `joint`."""
    turns = {"interval": 2} if regime == "interval" else {}
    return tree_of(regime, joint={"regime": regime} | turns | settings)


def drawn_for(stage: JointStage, count: int = 6) -> list[Drawn]:
    return stage.run.sources.mixture(seed=0).take(count)


def gradients(stage: JointStage, step: int = 0) -> dict[str, Tensor]:
    """Gradient of a step's loss by parameter of prior and codecs; zero where it does not reach."""
    named = {f"prior.{name}": one for name, one in stage.prior.named_parameters()}
    named |= {f"{s}.{name}": one for s, codec in stage.run.codecs.items() for name, one in as_module(codec)}
    for part in stage.parts.values():
        part.module.requires_grad_(part.trains(step))
    for one in named.values():
        one.grad = None
    loss_of(stage, drawn_for(stage), step)[0].backward()
    return {name: torch.zeros_like(one) if one.grad is None else one.grad for name, one in named.items()}


def as_module(codec: object) -> list[tuple[str, nn.Parameter]]:
    assert isinstance(codec, nn.Module)
    return list(codec.named_parameters())


def largest(found: dict[str, Tensor], part: str) -> float:
    return max(float(gradient.abs().max()) for name, gradient in found.items() if name.startswith(f"{part}."))


@pytest.mark.parametrize("regime", ["joint", "scratch", "interval"])
def test_the_flow_loss_reaches_every_encoder_and_no_decoder(regime: str, tmp_path: Path) -> None:
    found = gradients(stage_of(only(regime, vae=0.0), tmp_path))
    for stream in ("text", "grid"):
        assert largest(found, f"{stream}.encoder") > 1e-4
        assert largest(found, f"{stream}.decoder") == 0.0


@pytest.mark.parametrize(("regime", "settings"), [("detached", {"vae": 0.0}), ("fixed", {})])
def test_no_gradient_of_the_flow_loss_reaches_a_codec(regime: str, settings: dict[str, Any], tmp_path: Path) -> None:
    found = gradients(stage_of(only(regime, **settings), tmp_path))
    assert largest(found, "prior") > 1e-4
    assert largest(found, "text") == largest(found, "grid") == 0.0


def test_detached_codecs_learn_by_their_own_losses_as_if_there_were_no_flow(tmp_path: Path) -> None:
    stage = stage_of(only("detached", reference=0.0), tmp_path)
    found = gradients(stage)
    for stream in ("text", "grid"):
        codec = stage.run.codecs[stream]
        own = {name: one.grad for name, one in as_module(codec)}
        names = dict(as_module(codec))
        encoded = encode(stage)[stream]
        loss, _ = stage._codec_loss(encoded, 0, {stream: 1.0, latents_of(stream): 1.0})
        alone = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
        for (name, _), gradient in zip(names.items(), alone, strict=True):
            if gradient is not None:
                torch.testing.assert_close(own[name], gradient)
        assert largest(found, f"{stream}.decoder") > 1e-4
        assert largest(found, f"{stream}.encoder") > 1e-4


def encode(stage: JointStage, **more: Any) -> dict[str, Any]:
    """The streams of the step that `gradients` looks at."""
    run = stage.run
    return encode_streams(
        drawn_for(stage),
        streams=run.streams,
        segments=run.sources.segments,
        seed=run.config.seed,
        trained=tuple(run.streams),
        **more,
    )


def test_the_encoder_is_reached_through_z_t_only(tmp_path: Path) -> None:
    """Its gradient is that of the dense float64 reference at the latents, with history and target held fixed, carried
    back through the encoder."""
    stage = stage_of(only("joint", vae=0.0, flow=2.0), tmp_path)
    found = gradients(stage)
    encoded = encode(stage)
    sequences = join_sequences(encoded, flow=stage.run.config.flow)
    prior = ReferencePrior(stage.prior.state_dict(), stage.run.config.prior)
    by_latent = latent_gradients(prior, sequences)
    latents = [segment.z_LC for sequence in sequences for segment in sequence]
    for stream in ("text", "grid"):
        names = [name for name, _ in as_module(stage.run.codecs[stream]) if name.startswith("encoder")]
        weights = [dict(as_module(stage.run.codecs[stream]))[name] for name in names]
        carried = [2.0 * g.to(z.dtype) for z, g in zip(latents, by_latent, strict=True)]
        truth = torch.autograd.grad(latents, weights, carried, retain_graph=True, allow_unused=True)
        scale = max(float(g.abs().max()) for g in truth if g is not None)
        for name, expected in zip(names, truth, strict=True):
            assert expected is not None
            assert float((found[f"{stream}.{name}"] - expected).abs().max()) <= 1e-4 * scale, name


def test_the_entropy_term_pulls_at_log_variances_alone(tmp_path: Path) -> None:
    """E log q falls by half a nat per unit of log-variance, whatever the latent: the bias gets beta / 2 per channel."""
    shares = []
    for beta in (0.0, 0.3):
        found = gradients(stage_of(only("detached", vae=2.0, entropy=beta, reference=0.0), tmp_path))
        shares.append(found["grid.encoder.bias"])
    difference = shares[1] - shares[0]
    torch.testing.assert_close(difference, torch.tensor([0.0] * 3 + [-0.5 * 0.3 * 2.0] * 3), atol=2e-6, rtol=0)


def test_the_reference_term_holds_the_encoder_where_it_began(tmp_path: Path) -> None:
    stage = stage_of(only("detached", vae=0.0, reference=0.5), tmp_path)
    assert largest(gradients(stage), "grid") == 0.0  # no distance yet
    codec, reference = stage.run.codecs["grid"], stage.references["grid"]
    assert isinstance(codec, GridCodec)
    assert isinstance(reference, GridCodec)
    with torch.no_grad():
        codec.encoder.bias += torch.tensor([0.3, 0.0, 0.0, 0.0, 0.2, 0.0])
    found = gradients(stage)["grid.encoder.bias"]
    logvar_NC = torch.cat([one.logvar_LC for one in reference.encode(encode(stage)["grid"].items)])  # type: ignore[misc]
    by_mean = 0.5 * 0.3 * torch.exp(-logvar_NC[:, 0]).mean()
    by_logvar = 0.5 * 0.5 * (torch.exp(torch.tensor(0.2)) - 1)
    truth = torch.tensor([float(by_mean), 0.0, 0.0, 0.0, float(by_logvar), 0.0])
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-4)
    assert all(one.grad is None for _, one in as_module(reference))


def test_a_deterministic_encoder_has_a_squared_distance_and_no_entropy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    encode_one = GridCodec._encode_one
    monkeypatch.setattr(GridCodec, "_encode_one", lambda self, item: replace(encode_one(self, item), logvar_LC=None))
    stage = stage_of(only("detached", vae=0.0, reference=0.5), tmp_path)
    with torch.no_grad():
        stage.run.codecs["grid"].encoder.bias[0] += 0.3  # type: ignore[attr-defined]
    found = gradients(stage)["grid.encoder.bias"]
    torch.testing.assert_close(found, torch.tensor([0.15, 0, 0, 0, 0, 0]), atol=1e-6, rtol=0)
    terms = loss_of(stage, drawn_for(stage), 0)[1]
    assert terms["grid/reference"] == pytest.approx(0.5 * 0.3**2, rel=1e-5)
    assert "text/log_q" in terms
    assert "grid/log_q" not in terms


def test_a_fixed_log_snr_makes_the_entropy_constant(tmp_path: Path) -> None:
    tree = only("joint", vae=0.0, reference=0.5)
    tree["streams"]["text"]["config"]["log_snr"] = 3.0
    stage = stage_of(tree, tmp_path)
    terms = loss_of(stage, drawn_for(stage), 0)[1]
    channels = 8
    assert terms["text/log_q"] == pytest.approx(-0.5 * channels * (1 + 1.8378770664 - 3.0), rel=1e-5)
    found = gradients(stage)
    assert largest(found, "text.encoder") > 1e-4
    bias = found["text.encoder.final_layer.bias"]
    assert bias[:channels].any()
    assert not bias[channels:].any()  # what would be the learned log-variance


@pytest.mark.parametrize("regime", list(REGIMES))
def test_which_parts_move_at_which_step(regime: str, tmp_path: Path) -> None:
    stage = stage_of(tree_of(regime), tmp_path)
    turns = {
        "joint": "pc" * 8,
        "scratch": "pc" * 8,
        "fixed": "p" * 8,
        "interval": "ccppccpp",
        "detached": "pc" * 5 + "p" * 3,
    }[regime]
    found = [name[0] for step in range(8) for name, part in stage.parts.items() if part.trains(step)]
    assert "".join(found) == turns
    for step in (0, 2, 7):
        reached = gradients(stage, step)
        for name, part in stage.parts.items():
            some = largest(reached, "prior") if name == "prior" else largest(reached, "grid")
            assert (some > 0) == part.trains(step)


def test_a_frozen_codec_among_trained_ones_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_codec, "GridCodec", FrozenGrid)
    stage = stage_of(only("joint", reference=0.1), tmp_path)
    assert isinstance(stage.run.codecs["grid"], FrozenGrid)
    assert list(stage.trained) == list(stage.references) == ["text"]
    found = gradients(stage)
    assert largest(found, "text.encoder") > 1e-4
    assert largest(found, "grid") == 0.0
    assert {name for name in stage.evaluate() if "/t=" not in name} == {"text/reconstruction_score"}


def test_a_codec_in_its_turn_without_items_learns_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_codec, "GridCodec", FrozenGrid)
    tree = only("interval", interval=2)
    tree["data"]["sources"]["alone"] = {"dataset": "captions", "segments": [{"stream": "grid"}]}
    stage = stage_of(tree, tmp_path)
    stage.prior.requires_grad_(False)
    drawn = [one for one in drawn_for(stage, 40) if one.source == "alone"][:3]
    assert len(drawn) == 3
    loss, terms, _ = loss_of(stage, drawn, 0)
    loss.backward()
    assert terms.keys() == {"grid/flow"}
    assert all(one.grad is None for _, one in as_module(stage.run.codecs["text"]))
