"""Whole runs of stage joint: each regime trains, saves, goes on to the bit, and gives a model whose parts fit."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import colatent
from colatent.checkpoint.codecs import read_facts
from colatent.errors import UserError
from colatent.train.interrupts import Interrupted
from colatent.train.loop import Trainer
from plugins_for_tests import grid_codec
from plugins_for_tests.grid import plugins_with_grid
from plugins_for_tests.joint_runs import REGIMES, SHORT, FrozenGrid, tree_of
from plugins_for_tests.runs import TEXT, assert_same_run, changed, last, metrics, run
from plugins_for_tests.stops import PowerCutError, StopsAt

JOINT = changed(TEXT, stages={"codec": dict(SHORT), "joint": dict(SHORT)})


def trained(regime: str, folder: Path, *overrides: str, **more: Any) -> Path:
    return run(tree_of(regime), folder, *overrides, plugins=plugins_with_grid(), **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A run of each regime that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return {regime: trained(regime, folder / regime) for regime in REGIMES}


def stages_of(regime: str) -> tuple[str, ...]:
    return ("joint",) if regime == "scratch" else ("codec", "joint")


def evaluations(folder: Path) -> list[dict[str, float]]:
    return [one["eval"] for one in metrics(folder) if one["stage"] == "joint" and "eval" in one]


@pytest.mark.parametrize("regime", REGIMES)
def test_a_run_gives_a_model_whose_codec_is_its_own(regime: str, whole: Mapping[str, Path]) -> None:
    checkpoint = last(whole[regime], "joint")
    model = colatent.load(whole[regime], plugins=plugins_with_grid())
    remembered = checkpoint.document("model")["codecs"]
    for stream in ("text", "grid"):
        facts = read_facts(checkpoint, stream)
        assert facts.trained
        assert facts.hash == remembered[stream]["hash"]
        assert len(facts.mean) == facts.channels
        if regime != "fixed":  # what is loaded beside the averaged prior is the averaged codec
            average = checkpoint.tensors("codec.ema")
            for name, value in checkpoint.tensors(f"codec.{stream}").items():
                assert torch.equal(value, average[f"{stream}.{name}"])
    assert all(torch.equal(v, checkpoint.tensors("prior.ema")[k]) for k, v in model.prior.state_dict().items())
    assert isinstance(model.generate("up", target="text", max_new_tokens=3), str)


@pytest.mark.parametrize("regime", REGIMES)
def test_flow_at_fixed_times_and_reconstruction_are_both_scored(regime: str, whole: Mapping[str, Path]) -> None:
    found = evaluations(whole[regime])
    assert len(found) == 3
    for one in found:
        assert {"text/reconstruction_score", "grid/reconstruction_score", "paint/text/t=0.5"} <= one.keys()
    assert read_facts(last(whole[regime], "joint"), "text").reconstruction == found[-1]["text/reconstruction_score"]


@pytest.mark.parametrize(
    ("regime", "step", "how"),
    [
        ("joint", 4, signal.SIGINT),
        ("fixed", 4, None),
        ("interval", 5, None),
        ("scratch", 5, signal.SIGINT),
        ("detached", 4, None),
        ("detached", 5, signal.SIGINT),
        ("detached", 7, None),
    ],
)
def test_stopped_and_resumed_is_never_stopped(
    regime: str, step: int, how: signal.Signals | None, whole: Mapping[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted if how else PowerCutError):
        trained(regime, tmp_path / "run", reporter=StopsAt("joint", step, how))
    trained(regime, tmp_path / "run", resume=True)
    assert_same_run(whole[regime], tmp_path / "run", stages_of(regime))


def test_a_model_can_be_loaded_from_a_run_under_way(tmp_path: Path) -> None:
    """Its codec is the average of that step, measured then, though training goes on from other weights."""
    with pytest.raises(Interrupted):
        trained("scratch", tmp_path / "run", reporter=StopsAt("joint", 5, signal.SIGINT))
    checkpoint = last(tmp_path / "run", "joint")
    assert checkpoint.step == 5
    raw, average = (checkpoint.tensors(name)["text.encoder.wte.weight"] for name in ("codec", "codec.ema"))
    assert not torch.equal(raw, average)
    assert torch.equal(checkpoint.tensors("codec.text")["encoder.wte.weight"], average)
    assert isinstance(colatent.load(tmp_path / "run", plugins=plugins_with_grid()).generate("up", target="text"), str)


def test_the_raw_prior_is_not_paired_with_the_averaged_codec(whole: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its codecs are saved as their average.*load it with ema=True"):
        colatent.load(whole["joint"], plugins=plugins_with_grid(), ema=False)
    assert colatent.load(whole["fixed"], plugins=plugins_with_grid(), ema=False)
    plain = trained("joint", tmp_path / "plain", "stages.joint.ema=0")
    checkpoint = last(plain, "joint")
    raw = checkpoint.tensors("codec")
    for name, value in checkpoint.tensors("codec.text").items():
        assert torch.equal(value, raw[f"text.{name}"])
    assert colatent.load(plain, plugins=plugins_with_grid(), ema=False)


def test_fixed_is_stage_prior(tmp_path: Path) -> None:
    """The same steps to the bit, through the other stage."""
    fixed = run(changed(JOINT, joint={"regime": "fixed"}), tmp_path / "fixed")
    prior = run(changed(TEXT, stages={"codec": SHORT, "prior": SHORT}), tmp_path / "prior")
    for group in ("prior", "prior.ema", "codec.text", "optimiser"):
        one, other = last(fixed, "joint").tensors(group), last(prior, "prior").tensors(group)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), group


class Watched:
    """The weights of each part before every step of stage joint, and at the end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: list[dict[str, dict[str, Tensor]]] = []
        self.averages: list[dict[str, dict[str, Tensor]]] = []
        step = Trainer.train_step

        def watched(trainer: Trainer) -> Any:
            if trainer.stage.name != "joint":
                return step(trainer)
            if not self.states:
                self._look(trainer)
            record = step(trainer)
            self._look(trainer)
            return record

        monkeypatch.setattr(Trainer, "train_step", watched)

    def _look(self, trainer: Trainer) -> None:
        states = {name: part.module.state_dict() for name, part in trainer.parts.items()}
        self.states.append({name: {k: v.clone() for k, v in state.items()} for name, state in states.items()})
        shadows = {name: average.shadow for name, average in trainer.averages.items()}
        self.averages.append({name: {k: v.clone() for k, v in some.items()} for name, some in shadows.items()})

    def moved(self, step: int) -> set[str]:
        """Parts that changed in a step."""
        before, after = self.states[step : step + 2]
        return {name for name in before if any(not torch.equal(before[name][k], v) for k, v in after[name].items())}


def test_parts_move_by_turns_in_regime_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    trained("interval", tmp_path / "run")
    assert [watched.moved(step) for step in range(8)] == [{"codec"}, {"codec"}, {"prior"}, {"prior"}] * 2


def test_the_tail_of_regime_detached_stands_on_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    folder = trained("detached", tmp_path / "run")
    assert all(watched.moved(step) == {"codec", "prior"} for step in range(6))  # the sixth makes it its average
    assert all(watched.moved(step) == {"prior"} for step in range(6, 8))
    average = watched.averages[5]["codec"]  # after five steps the tail begins
    for states in watched.states[6:]:
        assert all(torch.equal(states["codec"][name], value) for name, value in average.items())
    checkpoint = last(folder, "joint")
    for group in ("codec", "codec.ema"):
        assert all(torch.equal(checkpoint.tensors(group)[name], value) for name, value in average.items())
    for name, value in checkpoint.tensors("codec.text").items():
        assert torch.equal(value, average[f"text.{name}"])


def test_the_ratio_of_learning_rates_is_the_codecs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW's first step is the learning rate in size, so a hundredth of it is a hundredth of the step."""
    moves = {}
    for ratio in (1.0, 0.01):
        watched = Watched(monkeypatch)
        tree = changed(tree_of("joint"), stages__joint__weight_decay=0.0, stages__joint__warmup=0)
        short = [f"joint.codec_lr={ratio}", "stages.joint.steps=1", "stages.codec.steps=1"]
        run(tree, tmp_path / str(ratio), *short, plugins=plugins_with_grid())
        before, after = watched.states[:2]
        moves[ratio] = {
            part: {k: after[part][k].double() - v.double() for k, v in before[part].items()} for part in before
        }
        monkeypatch.undo()
    assert all(torch.equal(moves[0.01]["prior"][k], v) for k, v in moves[1.0]["prior"].items())
    full, small = (max(float(v.abs().max()) for v in moves[ratio]["codec"].values()) for ratio in (1.0, 0.01))
    assert full == pytest.approx(3e-3, rel=1e-3)
    assert small == pytest.approx(3e-5, rel=1e-2)


def test_scratch_starts_from_an_untrained_codec(whole: Mapping[str, Path]) -> None:
    checkpoint = last(whole["scratch"], "joint")
    for stream in ("text", "grid"):
        tensors = checkpoint.tensors(f"codec.{stream}")
        assert not tensors["shift_C"].any()  # its scale was never folded in
        assert torch.equal(tensors["scale_C"], torch.ones_like(tensors["scale_C"]))
    first, *_, end = evaluations(whole["scratch"])
    assert first["text/reconstruction_score"] < 0.1
    assert end["text/reconstruction_score"] > 0.3


@pytest.mark.parametrize("regime", ["joint", "interval", "detached"])
def test_the_scale_stays_that_of_stage_codec(regime: str, whole: Mapping[str, Path]) -> None:
    before, after = (last(whole[regime], stage).tensors("codec.grid") for stage in ("codec", "joint"))
    assert torch.equal(before["shift_C"], after["shift_C"])
    assert torch.equal(before["scale_C"], after["scale_C"])
    assert not torch.equal(before["encoder.weight"], after["encoder.weight"])


def test_latents_that_end_off_scale_are_told_and_another_prior_refuses_them(tmp_path: Path) -> None:
    wild = ["stages.joint.lr=0.5", "stages.joint.clip=1000", "stages.joint.ema=0", "stages.joint.weight_decay=0"]
    with pytest.warns(UserWarning, match=r"its latents are off scale: std .*; other priors will refuse this codec"):
        folder = trained("joint", tmp_path / "run", "joint.vae=0", "joint.reference=0", *wild)
    model = colatent.load(folder, plugins=plugins_with_grid())
    assert model.generate(target="grid").shape == (4, 4)
    tree = changed(tree_of("joint"), joint={"regime": "fixed"}, stages={"joint": SHORT}, init=str(folder))
    with pytest.raises(UserError, match=r"its latents are off scale"):
        run(tree, tmp_path / "next", plugins=plugins_with_grid())


def test_a_frozen_codec_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_codec, "GridCodec", FrozenGrid)
    folder = trained("joint", tmp_path / "run")
    before, after = (last(folder, stage) for stage in ("codec", "joint"))
    assert read_facts(before, "grid") == read_facts(after, "grid")
    assert read_facts(before, "text").hash != read_facts(after, "text").hash
    assert not any(name.startswith("grid") for name in after.tensors("codec"))
    only = {"stages": {"joint": SHORT}, "joint": {"regime": "scratch"}}
    with pytest.raises(UserError, match=r"^streams\.grid: its codec was never trained"):
        run(tree_of("joint") | only, tmp_path / "scratch", plugins=plugins_with_grid())


def test_a_fixed_log_snr_trains_through(tmp_path: Path) -> None:
    folder = run(changed(JOINT, streams__text__config__log_snr=4.5, joint={"reference": 0.01}), tmp_path / "run")
    values = {round(one["text/log_q"], 5) for one in metrics(folder) if one["stage"] == "joint" and "loss" in one}
    assert len(values) == 1
    assert colatent.load(folder).generate("1 2", max_new_tokens=4)


def test_bf16_and_weights_of_the_codecs_losses(tmp_path: Path) -> None:
    folder = run(changed(JOINT, stages__joint__losses={"mask": 0.0}), tmp_path / "run", "stages.joint.precision=bf16")
    records = [one for one in metrics(folder) if one["stage"] == "joint" and "loss" in one]
    for one in records:
        parts = one["text/flow"] + one["text/reconstruction"] + 1e-4 * one["text/log_q"]
        assert one["loss"] == pytest.approx(parts, rel=1e-3)
    with pytest.raises(UserError, match=r"stages\.joint\.losses\.msak: no codec of this run has such a loss"):
        run(changed(JOINT, stages__joint__losses={"msak": 0.0}), tmp_path / "other")


def test_codec_and_prior_of_a_joint_run_go_on_elsewhere(whole: Mapping[str, Path], tmp_path: Path) -> None:
    """`init` takes the pair over, for a stage prior or a further stage joint."""
    tree = changed(tree_of("joint"), init=str(whole["detached"]), stages={"prior": SHORT})
    del tree["joint"]
    again = run(tree, tmp_path / "prior", plugins=plugins_with_grid())
    first = next(one["eval"] for one in metrics(again) if "eval" in one)
    before = evaluations(whole["detached"])[-1]
    assert first == {name: before[name] for name in first}
    more = changed(tree_of("joint"), init=str(whole["detached"]), stages={"joint": SHORT})
    assert evaluations(run(more, tmp_path / "joint", plugins=plugins_with_grid()))[0] == before


# What is refused.


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["joint.regime=both"], r'joint\.regime: is "both", must be '),
        (["joint.regime=scratch"], r"joint\.regime scratch starts from an untrained codec: take stages\.codec out"),
        (["joint={regime: scratch, reference: 1}"], r"joint: reference has no meaning in regime scratch"),
        (["joint.frozen_tail=0.2"], r"joint: frozen_tail has no effect in regime joint: take it out"),
        (["joint.interval=3"], r"joint: interval has no effect in regime joint"),
        (["joint={regime: fixed, codec_lr: 0.01}"], r"joint: codec_lr has no effect in regime fixed"),
        (["joint={regime: fixed}", "stages.joint.losses={mask: 0}"], r"stages\.joint\.losses has no effect in joint"),
        (["joint={regime: detached}", "stages.joint.ema=0"], r"stages\.joint\.ema must not be 0"),
        (["stages.joint.kl=1"], r"stages\.joint\.kl has no effect in stage joint: take it out"),
        (["stages.prior={steps: 3}"], r"stages\.prior and stages\.joint would each train a prior: use init"),
        (["joint.codec_lr=0"], r"joint\.codec_lr: is 0, must be greater than 0"),
        (["joint.flow=0"], r"joint\.flow: is 0, must be greater than 0"),
        (["joint={regime: interval, interval: 8}"], r"joint\.interval 8 leaves the prior no turn in 8 steps"),
        (["joint.regim=fixed"], r"joint\.regim: unknown key; did you mean regime\?"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_settings_that_do_not_go_together(overrides: list[str], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        run(JOINT, tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        (changed(TEXT, stages__prior__kl=1.0), r"stages\.prior\.kl has no effect in stage prior"),
        (changed(TEXT, stages__prior__losses={"mask": 1}), r"stages\.prior\.losses has no effect in stage prior"),
        (changed(TEXT, joint={"vae": 2.0}), r"joint\.vae has no effect without stages\.joint"),
        (changed(JOINT, stages={"joint": SHORT, "codec": SHORT}), r"put it after stages\.codec"),
        (
            changed(JOINT, stages={"joint": SHORT}),
            r"^streams\.text: its codec was never trained.* before stages\.joint",
        ),
    ],
    ids=["kl", "losses", "no stage joint", "order", "untrained"],
)
def test_configs_without_a_use(tree: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        run(tree, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scratch_refuses_a_trained_codec_and_joint_takes_it(whole: Mapping[str, Path], tmp_path: Path) -> None:
    tree = changed(tree_of("scratch"), init=str(whole["fixed"] / "checkpoints" / "codec"))
    with pytest.raises(UserError, match=r"^streams\.text: its codec is trained already.*leave out weights and init"):
        run(tree, tmp_path / "scratch", plugins=plugins_with_grid())
    folder = run(tree, tmp_path / "joint", "joint.regime=joint", plugins=plugins_with_grid())
    began = last(folder, "joint").document("joint")["began"]
    assert began["text"] == read_facts(last(whole["fixed"], "codec"), "text").hash


def test_a_run_without_a_codec_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_codec, "GridCodec", FrozenGrid)
    tree = tree_of("joint")
    tree["streams"] = {"grid": tree["streams"]["grid"]}
    tree["data"]["sources"] = {"paint": {"dataset": "captions"}}
    with pytest.raises(
        UserError, match=r"joint\.regime: is joint, but no codec of this run can be trained; use regime"
    ):
        run(tree, tmp_path / "run", plugins=plugins_with_grid())


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("joint.vae=2", r"^joint\.vae: is 2\.0, but this run was started with 1\.0"),
        ("stages.codec.kl=0.5", r"^stages\.codec\.kl: is 0\.5, but this run was started with"),
        ("stages.joint.losses={mask: 2}", r"^stages\.joint\.losses: is \{'mask': 2\.0\}, but this run was started"),
        ("stages.joint.ema=0", r"^stages\.joint\.ema > 0: is False, but this run was started with True"),
        ("joint.reference=0", r"^joint\.reference: is 0\.0, but this run was started with 0\.05"),
        ("prior.layers=2", r"^prior\.layers: is 2, this was built with 1"),
        ("stages.joint.steps=9", r"^stages\.joint\.steps: is 9, but this stage ended after 8 steps"),
    ],
)
def test_resume_refuses_another_objective(override: str, line: str, whole: Mapping[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole["joint"], tmp_path / "run"))
    with pytest.raises(UserError, match=line):
        trained("joint", folder, override, resume=True)
    before = last(folder, "joint").manifest
    trained("joint", folder, "joint.codec_lr=0.5", resume=True)  # a learning rate may change
    assert last(folder, "joint").manifest == before


def test_regime_fixed_may_be_given_more_steps_and_detached_no_other_number(
    whole: Mapping[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole["fixed"], tmp_path / "fixed"))
    trained("fixed", folder, "stages.joint.steps=9", resume=True)
    assert last(folder, "joint").step == 9
    with pytest.raises(Interrupted):
        trained("detached", tmp_path / "detached", reporter=StopsAt("joint", 6, signal.SIGINT))
    with pytest.raises(UserError, match=r"^stages\.joint\.steps: is 20, but this run was started with 8"):
        trained("detached", tmp_path / "detached", "stages.joint.steps=20", resume=True)


def test_codecs_that_did_not_end_as_an_average_may_be_trained_on(tmp_path: Path) -> None:
    folder = trained("joint", tmp_path / "run", "stages.joint.ema=0")
    before = last(folder, "joint").tensors("codec")
    trained("joint", folder, "stages.joint.ema=0", "stages.joint.steps=9", resume=True)
    newest = last(folder, "joint")
    assert newest.step == 9
    assert not torch.equal(newest.tensors("codec")["text.encoder.wte.weight"], before["text.encoder.wte.weight"])
    assert torch.equal(
        newest.tensors("codec.text")["encoder.wte.weight"], newest.tensors("codec")["text.encoder.wte.weight"]
    )


def test_resume_refuses_another_codec_than_it_began_with(whole: Mapping[str, Path], tmp_path: Path) -> None:
    origin = Path(shutil.copytree(whole["fixed"], tmp_path / "origin"))
    tree = changed(tree_of("joint"), init=str(origin / "checkpoints" / "codec"), stages={"joint": SHORT})
    with pytest.raises(Interrupted):
        run(tree, tmp_path / "run", plugins=plugins_with_grid(), reporter=StopsAt("joint", 4, signal.SIGINT))
    other = run(changed(tree_of("fixed"), seed=1), tmp_path / "other", plugins=plugins_with_grid())
    shutil.rmtree(origin / "checkpoints" / "codec")
    shutil.copytree(other / "checkpoints" / "codec", origin / "checkpoints" / "codec")
    with pytest.raises(UserError, match=r"the codec that stage joint began with for stream 'text' is gone or was chan"):
        run(tree, tmp_path / "run", plugins=plugins_with_grid(), resume=True)


def test_a_checkpoint_whose_codec_is_not_its_priors_is_refused(whole: Mapping[str, Path], tmp_path: Path) -> None:
    from plugins_for_tests.runs import rewritten

    folder = Path(shutil.copytree(whole["joint"], tmp_path / "run"))
    step, codec = last(folder, "joint").path, last(folder, "codec").path
    for name in ("codec.text.safetensors", "codec.text.json"):
        shutil.copy(codec / name, step / name)
    rewritten(step)
    assert json.loads((step / "codec.text.json").read_text())["trained"]
    with pytest.raises(UserError, match=r"the prior was trained on another codec for stream 'text'"):
        colatent.load(folder, plugins=plugins_with_grid())
