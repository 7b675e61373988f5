"""Two processes of torch's launcher make one latent cache: what one alone makes, going on where others stopped, each on
a device of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from colatent.data.cache import read_index
from colatent.errors import UserError
from colatent.train.device import own_device
from colatent.train.encoding import Share, encode
from colatent.train.interrupts import Interrupted
from plugins_for_tests.cached_runs import every_draw, made, settings, words
from plugins_for_tests.ranks import torchrun

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return {**words(tmp_path_factory.mktemp("texts")), "device": "cpu"}


def test_two_that_torchrun_started_make_what_one_makes_and_go_on(texts: Tree, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 60:
            os.kill(os.getpid(), signal.SIGTERM)

    config, folder = settings(texts, tmp_path), tmp_path / "cache"
    with pytest.raises(Interrupted):
        encode(config, folder, draws=2, share=Share(rank=1, world=2), progress=stop)
    before = {path.name: path.stat().st_ino for path in folder.glob("shard-*")}
    assert len(before) == 1
    process = torchrun("encode", str(tmp_path / "settings.yaml"), "--out", str(folder), "--draws", "2", "--quiet")
    try:
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, out
    assert {name: (folder / name).stat().st_ino for name in before} == before
    assert len(read_index(folder).shards) == 3
    assert every_draw(folder) == every_draw(made(texts, tmp_path / "whole", draws=2))


@pytest.fixture
def one_card(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with one CUDA device, by what torch says of it; gives which one was chosen."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_each_takes_the_device_of_its_number(one_card: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert own_device("auto") == torch.device("cuda", 0)
    assert one_card == [0]


def test_an_encoding_without_a_device_of_its_own_is_refused(
    texts: Tree, tmp_path: Path, one_card: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    config = settings({**texts, "device": "auto"}, tmp_path)
    line = "torchrun: there is no CUDA device 1 for this process, the machine has 1"
    with pytest.raises(UserError, match=line):
        encode(config, tmp_path / "cache", draws=2, share=Share(rank=1, world=2))
