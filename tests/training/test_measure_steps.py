"""The script that measures fewer steps, on a tiny run: what it compares, what it counts, what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import colatent
from colatent.evaluate.tasks import Verdict
from colatent.generate.model import Model
from measure_steps import Bench, passes, picture
from plugins_for_tests.runs import TEXT, run


class Letters:
    """A task: how many letters a model writes."""

    def judge(self, model: Model, *, run: Any, seed: int, progress: Any) -> Verdict:
        made = model.generate_many(["one, ", "two, "], target="text", max_new_tokens=8, seed=seed)
        return Verdict(figures={"letters": float(sum(len(some[0].item) for some in made))})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return colatent.load(run(TEXT, tmp_path_factory.mktemp("steps") / "run", "stages.codec.steps=10"))


def test_every_way_is_compared_with_many_steps(model: Model, tmp_path: Path) -> None:
    bench, told = Bench(model=model, task=Letters(), seed=0), list[dict[str, Any]]()
    ways = [{"solver": "ab2", "shift": 1.0, "steps": 32}] + [
        {"solver": solver, "shift": 1.0, "steps": steps} for solver in ("euler", "heun") for steps in (1, 8)
    ]
    rows = bench.measure(ways, reference=32, say=told.append)
    assert rows == told
    exact, same, one, eight, _, heun = rows
    assert (exact["errors"], same["errors"]) == ({}, {"text": 0.0})
    assert same["figures"] == exact["figures"]
    assert one["errors"]["text"] > 2 * eight["errors"]["text"] > 0
    assert heun["errors"]["text"] > 0
    picture(rows, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")


def test_settings_go_before_those_of_streams(model: Model) -> None:
    streams = {"text": colatent.config.sampling.StreamSampleConfig(steps=1, guidance=2.0)}
    own = Model(
        prior=model.prior,
        codecs=model.codecs,
        sample=model.sample.model_copy(update={"streams": streams}),
        window=model.window,
    )
    way = {"solver": "euler", "shift": 1.0, "steps": 3}
    found = [Bench(model=one, task=Letters(), seed=0).judged({**way, "guidance": 2.0}) for one in (own, model)]
    assert found[0].errors(found[1]) == {"text": 0.0}


@pytest.mark.parametrize(("solver", "count"), [("euler", 8), ("ab2", 8), ("midpoint", 16), ("heun", 16)])
def test_passes_of_a_block(solver: str, count: int) -> None:
    assert passes({"solver": solver, "steps": 8}) == count
