"""The scripts that measure what the structure gains and what a GPU does, as far as they go here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tests" / name), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("point", ["guidance-1", "packing"])
def test_a_part_switched_off_comes_to_the_same(tmp_path: Path, point: str) -> None:
    done = script("measure_structure.py", "--only", point, "--rounds", "2", "--out", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "found.json").read_text()).items()
    assert found[0] == point
    for name, one in found[1]["off"].items():
        assert f"{point}, {name}: " in done.stdout
        assert 0 < one["ratio"] < 10
        assert one["apart"] < 0.03


def test_two_rounds_are_the_least() -> None:
    done = script("measure_structure.py", "--rounds", "1")
    assert done.returncode == 2
    assert "--rounds must be two or more" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, and it would measure for minutes")
def test_without_a_gpu_there_is_nothing_to_measure(tmp_path: Path) -> None:
    done = script("measure_gpu.py", "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert "there is no CUDA device here" in done.stderr
    assert not list(tmp_path.iterdir())
