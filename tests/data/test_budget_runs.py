"""Runs whose steps have a budget of latents: what a step's loss is a mean of, resuming, caches, and what is refused.

Text tells its lengths; pictures of this codec are encoded to know them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from colatent.data.mixture import Drawn
from colatent.errors import UserError
from colatent.flow.objective import flow_losses, velocity_errors
from colatent.train.budgets import budgeted, mean_latents, measure_of
from colatent.train.cached import epochs_of, open_cache
from colatent.train.codecs import build_codecs
from colatent.train.prepare import Run, prepare
from colatent.train.prior_stage import PriorStage
from colatent.train.sequences import build_sequences
from plugins_for_tests.cached_runs import made, pictures, settings
from plugins_for_tests.grid import plugins_with_grid
from plugins_for_tests.runs import assert_same_run, changed, metrics, run
from plugins_for_tests.stops import PowerCutError, StopsAt

STAGE = {"steps": 8, "budget": 60, "warmup": 2, "ema": 0.9, "eval_every": 0, "log_every": 1, "save_every": 3}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return changed(pictures(tmp_path_factory.mktemp("codecs"), plugins_with_grid()), stages={"prior": STAGE})


@pytest.fixture(scope="module")
def whole(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tree, tmp_path_factory.mktemp("whole") / "run", plugins=plugins_with_grid())


def prepared(tree: dict[str, Any], folder: Path, *overrides: str) -> Run:
    found = prepare(settings(tree, folder, *overrides), plugins_with_grid())
    build_codecs(found)
    return found


def test_lengths_are_those_of_the_sequences(tree: dict[str, Any], tmp_path: Path) -> None:
    ready = prepared(changed(tree, flow={}), tmp_path)
    drawn = ready.sources.mixture(seed=1).take(30)
    rest = {"streams": ready.streams, "segments": ready.sources.segments, "flow": ready.config.flow, "seed": 0}
    found = [sum(len(segment.z_LC) for segment in one) for one in build_sequences(drawn, **rest)]
    assert measure_of(ready)(drawn) == found
    assert len(set(found)) > 3
    assert min(found) <= mean_latents(ready) <= max(found)


def test_the_loss_is_the_mean_over_the_latents_of_the_step(tree: dict[str, Any], tmp_path: Path) -> None:
    """However unequal samples are, and in however many passes: each latent counts once."""
    stage = PriorStage(ready := prepared(tree, tmp_path), ready.config.stages["prior"])
    drawn = budgeted(ready, ready.sources.mixture(seed=0), stage="prior").take(16)
    sums, rows = dict.fromkeys(ready.streams, 0.0), dict.fromkeys(ready.streams, 0.0)
    for one in drawn:
        batch, *_ = stage.prepare([one], 0, alone=True).batch
        for name, (error_S, weight_S) in velocity_errors(stage.module, batch).items():
            sums[name] += float((error_S * weight_S).sum().detach())
            rows[name] += float(weight_S.sum())
    batch, *_ = stage.prepare(drawn, 0, alone=True).batch
    for name, loss in flow_losses(stage.module, batch).items():
        assert float(loss.detach()) == pytest.approx(sums[name] / rows[name], rel=1e-5)


def test_a_run_logs_that_loss_and_keeps_the_budget(tree: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    ready = prepared(tree, tmp_path)
    draws, measure = budgeted(ready, ready.sources.mixture(seed=0), stage="prior"), measure_of(ready)
    steps = [draws.take(16) for _ in range(STAGE["steps"])]
    assert all(0 < sum(measure(step)) <= STAGE["budget"] for step in steps)
    stage = PriorStage(ready, ready.config.stages["prior"])
    batch, *_ = stage.prepare(steps[0], 0, alone=True).batch
    with torch.no_grad():
        losses = flow_losses(stage.module, batch)
    first = next(record for record in metrics(whole) if "loss" in record)
    assert {name: first[f"{name}/flow"] for name in losses} == pytest.approx({k: float(v) for k, v in losses.items()})


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_and_resumed_is_never_stopped(tree: dict[str, Any], whole: Path, tmp_path: Path, workers: int) -> None:
    folder, plugins = tmp_path / "run", plugins_with_grid()
    with pytest.raises(PowerCutError):
        run(tree, folder, plugins=plugins, reporter=StopsAt("prior", 5, None))
    run(tree, folder, f"data.workers={workers}", plugins=plugins, resume=True)
    assert_same_run(whole, folder, stages=("prior",))


def test_a_cache_tells_the_same_lengths_without_reading(tree: dict[str, Any], tmp_path: Path) -> None:
    cache = made(tree, tmp_path / "cache", plugins=plugins_with_grid(), draws=2)
    ready, fresh = (prepared(tree, tmp_path, *more) for more in ((f"data.cache={cache}",), ()))
    with pytest.warns(UserWarning, match="so draws repeat"):
        open_cache(ready)
    drawn = ready.sources.mixture(seed=0).take(12)
    known = [one for one in drawn if one.epoch < 2]
    assert measure_of(ready)([Drawn(source=one.source, key=one.key, epoch=one.epoch, sample={}) for one in known])
    assert measure_of(ready)(known) == measure_of(fresh)(known)


def test_how_often_a_source_is_read_is_estimated_from_lengths(tree: dict[str, Any], tmp_path: Path) -> None:
    ready = prepared(tree, tmp_path, "stages.prior.steps=200")
    draws = budgeted(ready, ready.sources.mixture(seed=0), stage="prior")
    for _ in range(200):
        draws.take(16)
    read = draws.state()["drawn"]["paint"] / 10
    assert epochs_of(ready, "paint") == pytest.approx(read, rel=0.3)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("stages.prior.budget=0", r"stages\.prior\.budget"),
        ("stages.prior.batch=8", r"stages\.prior\.batch is 8, and budget decides how many samples a step has"),
        ("stages.prior.draw=step", r"stages\.prior\.budget has no meaning with draw: step"),
        ("stages.prior.accumulate=61", r"stages\.prior\.accumulate is 61, more than its budget \(60\)"),
        ("stages.codec={steps: 2, budget: 9}", r"stages\.codec\.budget has no effect in stage codec"),
    ],
)
def test_settings_that_do_not_go_with_a_budget_are_refused(
    tree: dict[str, Any], tmp_path: Path, override: str, line: str
) -> None:
    with pytest.raises(UserError, match=line):
        settings(tree, tmp_path, override)


def test_a_budget_that_a_text_may_exceed_is_refused_before_the_run_begins(tree: dict[str, Any], tmp_path: Path) -> None:
    line = (
        r"stages\.prior\.budget: is 8: a sequence of source 'paint' may have 9 latents; raise it, or lower data\.length"
    )
    with pytest.raises(UserError, match=line):
        run(tree, tmp_path / "run", "stages.prior.budget=8", plugins=plugins_with_grid())
    assert not (tmp_path / "run").exists()
