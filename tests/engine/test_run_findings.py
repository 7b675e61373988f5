"""What is read out of a run's history: it need not be whole, and a finding appears where it should and nowhere else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from colatent.checkpoint.run import METRICS, RunFolder
from colatent.evaluate.history import by_stage, levels, others, read_history
from colatent.evaluate.run_facts import run_facts
from colatent.evaluate.run_findings import CHECKS, RunFinding, run_findings
from plugins_for_tests.run_folders import FACTS, made_run, record, scores


def test_records_come_in_order_of_stages_and_names() -> None:
    found = by_stage([scores("codec", 0), record("codec", 1), record("codec", 2), record("prior", 1)])
    assert list(found) == ["codec", "prior"]
    assert [step for step, _ in found["codec"].logged["loss"]] == [1, 2]
    assert list(levels(found["codec"].scores)) == ["counting/text"]
    assert list(levels(found["codec"].scores)["counting/text"]) == [0.1, 0.5, 0.9]
    assert list(others(found["codec"].scores)) == ["text/reconstruction_score"]
    assert (found["codec"].last_step(), found["prior"].last_step()) == (2, 1)


STRANGE: list[dict[str, Any]] = [
    {},
    {"stage": "codec"},
    {"stage": 3, "step": 1, "loss": 1.0},
    {"stage": "codec", "step": "1", "loss": 1.0},
    {"stage": "codec", "step": 1, "loss": "high", "flag": True, "eval": 3, "keys": ["a"]},
    {"stage": "codec", "step": 1, "eval": {"a/t=x": 1.0, "b": None}},
]


@pytest.mark.parametrize("strange", STRANGE)
def test_strange_records_are_passed_over(strange: dict[str, Any]) -> None:
    found = by_stage([strange, record("codec", 2)])
    assert [point for point in found["codec"].logged["loss"] if point[0] == 2]
    assert found["codec"].logged.keys() == record("codec", 2).keys() - {"stage", "step"}
    assert not levels(found["codec"].scores)


def test_what_is_not_finite_is_kept_apart() -> None:
    found = by_stage([record("prior", 1), record("prior", 2, loss=math.nan, grad_norm=math.inf)])["prior"]
    assert found.broken == {"loss": 2, "grad_norm": 2}
    assert len(found.logged["loss"]) == 1


def test_torn_lines_are_counted(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", stages=("codec",))
    whole = read_history(RunFolder.open(run))
    assert whole.torn == 0
    with open(run / METRICS, "a", encoding="utf-8") as file:
        file.write('{"stage": "codec", "st')
    torn = read_history(RunFolder.open(run))
    assert (torn.torn, torn.stages) == (1, whole.stages)
    (run / METRICS).unlink()
    assert read_history(RunFolder.open(run)).stages == {}


def found_in(folder: Path, **made: Any) -> dict[str, RunFinding]:
    return {one.name: one for one in run_findings(run_facts(made_run(folder, stages=("prior",), **made)))}


def test_a_healthy_run_has_no_findings(tmp_path: Path) -> None:
    assert found_in(tmp_path / "run") == {}


def logged(*losses: float) -> list[dict[str, Any]]:
    return [record("prior", step, loss=loss) for step, loss in enumerate(losses, start=1)]


SICK: dict[str, dict[str, Any]] = {
    "not_finite": {"records": [record("prior", 5), record("prior", 6, loss=math.nan)], "finished": False},
    "stopped": {"finished": False},
    "off_scale": {"facts": {**FACTS, "std": [3.0] * 8}},
    "loss_rose": {"records": logged(*[3.0 - 0.1 * step for step in range(20)], *[1.0 + 0.1 * n for n in range(20)])},
    "held_out_loss_rose": {"records": [scores("prior", n, **{"counting/text/t=0.5": n % 7 + 1.0}) for n in (0, 7, 9)]},
    "score_fell": {"records": [scores("prior", n, **{"text/reconstruction_score": 1 - n}) for n in (0, 1)]},
}


@pytest.mark.parametrize("name", SICK)
def test_what_is_wrong_is_found(name: str, tmp_path: Path) -> None:
    found = found_in(tmp_path / "run", **SICK[name])
    assert found.keys() - {"stopped"} == {name} - {"stopped"}
    assert name in found
    assert found[name].text
    assert found[name].do


def test_damage_on_the_disk_is_found(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", stages=("prior",))
    (run / "checkpoints" / "prior" / "step-00000060" / "prior.safetensors").unlink()
    (run / METRICS).write_text("{\n{\n" + (run / METRICS).read_text())
    found = {one.name: one for one in run_findings(run_facts(run))}
    assert found.keys() == {"damaged_checkpoint", "torn_metrics"}
    damaged = found["damaged_checkpoint"]
    assert damaged.where == "prior/step-00000060"
    assert damaged.text == "is no valid checkpoint: prior.safetensors: is missing"
    assert found["torn_metrics"].text.startswith("2 lines")


def test_every_finding_is_tested() -> None:
    assert CHECKS.keys() == SICK.keys() | {"damaged_checkpoint", "torn_metrics"}


def test_noise_is_no_rise(tmp_path: Path) -> None:
    noisy = [1.0 + 0.9 * math.sin(7.0 * step) for step in range(200)]
    assert found_in(tmp_path / "run", records=logged(*noisy)) == {}


def test_the_last_tenth_is_the_end_of_the_run(tmp_path: Path) -> None:
    """29 losses: the rise is in the nine that are left over where tenths have two each."""
    falling, rising = [3.0 - 0.1 * n for n in range(20)], [1.5 + 0.5 * n for n in range(9)]
    found = found_in(tmp_path / "run", records=logged(*falling, *rising))
    assert "to 5 in its last tenth" in found["loss_rose"].text
