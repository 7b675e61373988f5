"""A run that was stopped and resumed is the run that was not, to the last bit; and what a resumed run refuses."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from colatent.checkpoint.run import RunFolder
from colatent.errors import UserError
from colatent.train.interrupts import Interrupted
from colatent.train.loop import Trainer
from plugins_for_tests.grid import CONFIG, plugins_with_grid
from plugins_for_tests.runs import TEXT, assert_same_run, changed, last, metrics, run
from plugins_for_tests.stops import PowerCutError, StopsAt

FREQUENT = {
    "steps": 7,
    "batch": 4,
    "warmup": 2,
    "lr": 5e-3,
    "ema": 0.9,
    "save_every": 3,
    "eval_every": 4,
    "log_every": 1,
}
TREE = changed(
    CONFIG,
    stages={"codec": FREQUENT, "prior": {**FREQUENT, "optimiser": "muon"}},
    flow={"history_dropout": 0.3},
    data__sources__paint__config={"size": 5},
    data__sources__describe__config={"size": 5},
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing stops: two modalities, both stages."""
    return run(TREE, tmp_path_factory.mktemp("whole") / "run", plugins=plugins_with_grid())


@pytest.mark.parametrize(
    ("stage", "step", "how"),
    [
        ("codec", 4, signal.SIGINT),
        ("codec", 5, None),
        ("codec", 7, signal.SIGINT),
        ("prior", 1, None),
        ("prior", 5, signal.SIGTERM),
        ("prior", 6, None),
    ],
)
def test_stopped_and_resumed_is_never_stopped(
    stage: str, step: int, how: signal.Signals | None, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plugins = tmp_path / "run", plugins_with_grid()
    with pytest.raises(Interrupted if how else PowerCutError) as stopped:
        run(TREE, folder, plugins=plugins, reporter=StopsAt(stage, step, how))
    if how:
        assert stopped.value.code == {signal.SIGINT: 130, signal.SIGTERM: 75}[how]
        assert last(folder, stage).step == step
        assert "--resume" in capsys.readouterr().out
        assert not (folder / "checkpoints" / "prior").exists() or stage == "prior"
    run(TREE, folder, plugins=plugins, resume=True)
    assert_same_run(whole, folder)


def test_killed_between_the_stages(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: RunFolder, stage: str) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "stage_done", cut)
        with pytest.raises(PowerCutError):
            run(TREE, tmp_path / "run", plugins=plugins_with_grid())
    run(TREE, tmp_path / "run", plugins=plugins_with_grid(), resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_killed_while_a_checkpoint_is_written(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Trainer.save

    def cut(self: Trainer) -> None:
        save(self)
        newest = last(tmp_path / "run", self.stage.name)
        if self.step == 6:
            (newest.path / "optimiser.safetensors").write_bytes(b"half")
            raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "save", cut)
        with pytest.raises(PowerCutError):
            run(TREE, tmp_path / "run", plugins=plugins_with_grid())
    run(TREE, tmp_path / "run", plugins=plugins_with_grid(), resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_a_finished_run_is_resumed_to_the_same(whole: Path) -> None:
    before, lines = last(whole, "prior"), metrics(whole)
    run(TREE, whole, plugins=plugins_with_grid(), resume=True)
    assert last(whole, "prior").manifest == before.manifest
    assert metrics(whole) == lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text run that needs no more steps."""
    return run(TEXT, tmp_path_factory.mktemp("finished") / "run")


def test_resume_goes_on_where_more_steps_are_asked_for(finished: Path, tmp_path: Path) -> None:
    folder = run(TEXT, tmp_path / "short", "stages.prior.steps=3", "stages.prior.schedule=constant")
    run(TEXT, folder, resume=True)
    assert last(folder, "prior").step == 8
    drawn = [last(path, "prior").document("state")["data"] for path in (folder, finished)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("streams.text.config.width=32", r"streams\.text\.config\.width: is 32, this was built with 16; put it back"),
        ("prior.heads=1", r"prior\.heads: is 1, this was built with 2; put it back"),
        ("stages.codec.steps=9", r"stages\.codec\.steps: is 9, but this stage ended after 8 steps"),
        ("data.sources.names.dataset=unicode-names", r"data\.sources: they are counting, names, the run"),
    ],
)
def test_a_changed_config_is_refused_and_nothing_is_lost(
    override: str, line: str, finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(UserError, match=line):
        run(TEXT, folder, override, resume=True)
    if not override.startswith("data"):
        assert {path: path.read_bytes() for path in before} == before
    run(TEXT, folder, resume=True)
    assert last(folder, "prior").step == 8


def test_a_solver_that_no_config_states_stays_that_of_the_checkpoint(tmp_path: Path) -> None:
    def solver() -> str:
        return last(folder, "prior").document("model")["sample"]["solver"]

    folder = run(TEXT, tmp_path / "run", "stages.prior.steps=1", "sample.solver=euler")
    (folder / "config.yaml").write_text(yaml.safe_dump(TEXT))  # as it was where euler was the default
    run(TEXT, folder, "stages.prior.steps=2", resume=True)
    assert (last(folder, "prior").step, solver()) == (2, "euler")
    run(TEXT, folder, "stages.prior.steps=3", "sample.solver=ab2", resume=True)
    assert (last(folder, "prior").step, solver()) == (3, "ab2")


def test_another_seed_or_objective_is_refused(tmp_path: Path) -> None:
    folder = run(TEXT, tmp_path / "run", "stages.prior.steps=2")
    before = (folder / "config.yaml").read_bytes()
    for override in ("seed=99", "flow.ragged=0.1", "data.length=8", "stages.prior.optimiser=muon"):
        key = re.escape(override.partition("=")[0])
        with pytest.raises(UserError, match=f"^{key}: is .*, but this run was started with"):
            run(TEXT, folder, override, "stages.prior.steps=3", resume=True)
    assert (folder / "config.yaml").read_bytes() == before
