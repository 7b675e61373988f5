"""What a stage makes of one batch: what it counts, what it encodes, and a batch that holds nothing to learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from colatent.config import load
from colatent.flow.objective import velocity_errors
from colatent.latents.packing import pack
from colatent.train.codec_stage import CodecStage
from colatent.train.codecs import build_codecs
from colatent.train.prepare import Run, prepare
from colatent.train.prior_stage import FIXED_TIMES, PriorStage
from colatent.train.sequences import at_time, build_sequences
from colatent_text.codec import TextCodec
from plugins_for_tests.grid import plugins_with_grid
from plugins_for_tests.runs import TEXT, changed, loss_of
from plugins_for_tests.runs import run as train_run

Build = Callable[..., Run]
SHORT = changed(TEXT, streams__grid={"codec": "grid"}, data__sources__captions={"dataset": "captions"})


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A run before its first step; `trained` names streams whose codec passes for a trained one."""

    def made(tree: dict[str, Any], *trained: str) -> Run:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        run = prepare(load(tmp_path / "config.yaml").config, plugins_with_grid())
        build_codecs(run)
        for name in trained:
            run.facts[name] = replace(run.facts[name], trained=True, std=(1.0,) * run.facts[name].channels)
        return run

    return made


def test_both_stages_count_data_units(build: Build) -> None:
    """Captions are shorter than their last block: their padding is no unit."""
    tree = changed(SHORT, data__sources={"captions": {"dataset": "captions"}})
    run = build(tree, "text", "grid")
    drawn = run.sources.mixture(seed=0).take(5)
    text, pixels = (sum(len(one.sample["text"]) + 1 for one in drawn), sum(one.sample["grid"].size for one in drawn))
    latents = sum(len(record.mean_LC) for record in run.codecs["text"].encode(run.items(drawn, "text")))
    assert text < latents
    grid_units = sum(int(r.units_L.sum()) for r in run.codecs["grid"].encode(run.items(drawn, "grid")))
    assert grid_units == pixels
    assert loss_of(PriorStage(run, run.config.stages["prior"]), drawn, 0)[2] == text + pixels
    fresh = build(tree)
    assert loss_of(CodecStage(fresh, fresh.config.stages["codec"]), drawn, 0)[2] == text + pixels


def test_a_batch_without_items_of_the_stream_under_training(build: Build) -> None:
    run = build(SHORT, "text")
    stage = CodecStage(run, run.config.stages["codec"])
    drawn = [one for one in run.sources.mixture(seed=0).take(20) if one.source == "counting"][:3]
    assert len(drawn) == 3
    loss, parts, units = loss_of(stage, drawn, 0)
    loss.backward()
    assert (float(loss.detach()), parts, units) == (0.0, {}, 0)


def test_a_stream_of_a_rare_source_is_prepared_and_measured_on_its_own_samples(build: Build) -> None:
    run = build(changed(SHORT, data__sources__captions={"dataset": "captions", "weight": 1e-9}))
    stage = CodecStage(run, run.config.stages["codec"])
    stage.finish()
    assert all(facts.trained for facts in run.facts.values())
    assert {one.source for one in run.sources.mixture(seed=0, stream="grid").take(9)} == {"captions"}


@torch.no_grad()
def test_held_out_samples_are_encoded_once_for_all_times(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls, encode = build(TEXT, "text"), [], TextCodec.encode
    stage = PriorStage(run, run.config.stages["prior"])
    torch.nn.init.normal_(stage.module.exit["text"].weight)  # type: ignore[union-attr,operator,arg-type,index]
    monkeypatch.setattr(TextCodec, "encode", lambda self, items: calls.append(len(items)) or encode(self, items))
    found = stage.evaluate()
    assert calls == [16, 16]
    assert list(found) == [f"counting/text/t={t}" for t in FIXED_TIMES]
    (drawn,) = run.sources.held(32, seed=0).values()
    plain = run.config.flow.model_copy(update={"ragged": 0.0, "history_dropout": 0.0})
    error = weight = 0.0
    for one in drawn:
        (sequence,) = build_sequences(
            [one], streams=run.streams, segments=run.sources.segments, flow=plain, seed=run.config.seed
        )
        error_S, weight_S = velocity_errors(stage.module, pack([at_time(sequence, 0.7)]))["text"]  # type: ignore[arg-type]
        error, weight = error + float((error_S * weight_S).sum()), weight + float(weight_S.sum())
    assert found["counting/text/t=0.7"] == pytest.approx(error / weight, rel=1e-5)


def test_codecs_are_in_training_mode_where_they_learn_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, encode = [], TextCodec.encode

    def noted(self: TextCodec, items: Any, **rest: Any) -> Any:
        modes.append((self.training, torch.is_grad_enabled()))
        return encode(self, items, **rest)

    monkeypatch.setattr(TextCodec, "encode", noted)
    train_run(
        changed(TEXT, stages__codec__steps=2, stages__prior__steps=2), tmp_path / "run", "stages.codec.eval_every=1"
    )
    assert set(modes) == {(True, True), (False, False)}


def test_an_item_is_tokenised_once_a_step(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    run = build(changed(SHORT, data__sources={"captions": {"dataset": "captions"}}), "text", "grid")
    stage, seen = PriorStage(run, run.config.stages["prior"]), []
    tokenizer = type(run.codecs["text"].tokenizer)  # type: ignore[attr-defined]
    encode = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda self, text: seen.append(text) or encode(self, text))
    loss_of(stage, run.sources.mixture(seed=0).take(4), 0)
    assert len(seen) == 4
