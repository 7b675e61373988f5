"""What a process needs of the others: one that dies under torch's launcher, and what is refused before they meet."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from colatent.config import RunConfig
from colatent.errors import UserError
from colatent.train.spread import check_shares
from colatent.train.world import World, join
from plugins_for_tests.grid import CONFIG
from plugins_for_tests.ranks import torchrun
from plugins_for_tests.runs import TEXT, changed, last, metrics

BATCH = changed(CONFIG, stages__codec__batch=5, stages__prior__batch=5)


def test_a_process_that_is_killed_ends_the_others(tmp_path: Path) -> None:
    endless = changed(TEXT, device="cpu", stages__codec__steps=1_000_000)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(endless))
    process = torchrun("train", str(tmp_path / "config.yaml"), f"out={tmp_path / 'run'}")
    try:
        _await_steps(tmp_path / "run", process)
        os.kill(_process_of(rank=1, parent=process.pid), signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode not in (0, 75)
    assert "colatent: torchrun: process 0 lost another one: " in out
    assert "Signal 9 (SIGKILL)" in out


def test_a_signal_to_the_launcher_saves_though_it_reaches_what_reads_ahead(tmp_path: Path) -> None:
    endless = changed(TEXT, device="cpu", data__workers=1, stages__codec__steps=1_000_000)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(endless))
    process = torchrun("train", str(tmp_path / "config.yaml"), f"out={tmp_path / 'run'}")
    try:
        _await_steps(tmp_path / "run", process)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert out.count("stopped by SIGTERM; saved in") == 1, out
    assert last(tmp_path / "run", "codec").step == metrics(tmp_path / "run")[-1]["step"]


def _await_steps(folder: Path, process: subprocess.Popen[str]) -> None:
    lines, deadline = folder / "metrics.jsonl", time.monotonic() + 300
    while not lines.exists() or lines.read_text().count("\n") < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)


def _process_of(*, rank: int, parent: int) -> int:
    """The process of a rank below its launcher."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (found,) = (pid for pid in children if f"\0RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text())
    return int(found)


def test_steps_of_fewer_samples_than_processes_are_refused() -> None:
    config = RunConfig.model_validate(changed(BATCH, data__sources__paint__batch=2, stages__prior__draw="step"))
    with pytest.raises(UserError, match=r"data\.sources\.paint\.batch: is 2, too few for 3 processes"):
        check_shares(config, World(size=3))
    with pytest.raises(UserError, match=r"stages\.codec\.batch: is 5, too few for 6 processes"):
        check_shares(config, World(size=6))
    check_shares(config, World(size=2))
    passes = RunConfig.model_validate(changed(BATCH, stages__prior__parallel="fsdp", stages__prior__accumulate=2))
    with pytest.raises(UserError, match=r"stages\.prior\.batch: is 5, too few for 3 processes: stage prior needs 6"):
        check_shares(passes, World(size=3))
    check_shares(passes, World(size=1))


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            {"prior": {"parallel": "fsdp", "optimiser": "muon"}},
            "muon needs whole matrices, and parallel fsdp cuts them",
        ),
        ({"codec": {"parallel": "fsdp"}}, r"stages\.codec\.parallel has no effect in stage codec"),
    ],
)
def test_shares_where_they_cannot_be_are_refused(stages: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RunConfig.model_validate({**CONFIG, "stages": {name: {"steps": 1, **one} for name, one in stages.items()}})


@pytest.mark.parametrize(
    ("variables", "device", "said"),
    [
        ({"WORLD_SIZE": "2"}, "cpu", "RANK: is not set, and WORLD_SIZE is; start with torchrun"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "cpu", "WORLD_SIZE: is 'two', not a number"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "cuda:0", "device: is cuda:0, the same for all processes"),
    ],
)
def test_a_wrong_environment_is_refused(
    variables: dict[str, str], device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(said)), join(device):
        pass


def test_one_process_is_a_world_of_one() -> None:
    with join("cpu") as world:
        assert (world.rank, world.size, world.leads) == (0, 1, True)
        assert world.sum({"loss": 1.5}) == {"loss": 1.5}
        assert (world.largest(3), world.gather("a")) == (3, ["a"])
        with pytest.raises(UserError, match="no"), world.together():
            raise UserError("no")
