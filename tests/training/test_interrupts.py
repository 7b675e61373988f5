"""Ctrl-C and SIGTERM from outside: a checkpoint, a hint, an exit status, and a run that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import colatent.train.run
from colatent.checkpoint.run import RunFolder
from colatent.cli.main import main
from plugins_for_tests.runs import TEXT, changed, last, metrics


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, status: int, tmp_path: Path) -> None:
    endless = changed(TEXT, stages__codec__steps=1_000_000, stages__codec__save_every=1_000_000)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(endless))
    command = ["train", str(tmp_path / "config.yaml"), f"out={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "colatent", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        lines = tmp_path / "run" / "metrics.jsonl"
        deadline = time.monotonic() + 60
        while not lines.exists() or lines.read_text().count("\n") < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (status, "")
    assert (
        out.splitlines()[-1]
        == f"stopped by {number.name}; saved in {tmp_path / 'run'}; the same command goes on (train: with --resume)"
    )
    reached = last(tmp_path / "run", "codec").step
    assert [record["step"] for record in metrics(tmp_path / "run") if "loss" in record] == list(range(1, reached + 1))
    if number == signal.SIGTERM:  # goes on as after the other
        return
    goes_on = [*command, f"stages.codec.steps={reached + 1}", "stages.prior.steps=1", "--resume", "--quiet"]
    assert main(goes_on) == 0
    assert last(tmp_path / "run", "codec").step == reached + 1


@pytest.mark.parametrize(
    ("where", "name", "said"),
    [
        (colatent.train.run, "prepare", "nothing was begun"),
        (RunFolder, "stage_done", "the same command with --resume goes on in {folder}"),
    ],
)
def test_sigterm_outside_of_a_stage_ends_with_the_same_status(
    where: object,
    name: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed(TEXT, stages__codec__steps=1, stages__prior__steps=1)))
    command = ["train", str(tmp_path / "config.yaml"), f"out={tmp_path / 'run'}", "--quiet"]
    before, whole = signal.getsignal(signal.SIGTERM), getattr(where, name)

    def stopped(*given: object, **named: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(where, name, stopped)
        with pytest.raises(SystemExit) as ended:
            main(command)
    assert ended.value.code == 75
    assert signal.getsignal(signal.SIGTERM) == before
    line = f"stopped by SIGTERM; {said.format(folder=tmp_path / 'run')}"
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert main([*command, "--resume"] if (tmp_path / "run").exists() else command) == 0
    assert last(tmp_path / "run", "prior").step == 1
