"""The losses of the example configs' first steps are those that are stored: to the bit on the machine that stored them.

Elsewhere sums are of another order, and losses may differ in their fifth digit. All curves are trained by the script
that stores them, in a process of its own: what other tests leave behind changes nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from curves.cases import CASES, STEPS
from curves.recording import EXAMPLES, FOLDER, UNICODE, machine, shortest, stored

CLOSE = 1e-4
"""Largest relative difference of a loss on another machine."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the curves of the code as it is."""
    folder = tmp_path_factory.mktemp("curves")
    command = [sys.executable, str(FOLDER / "refresh.py"), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def curve(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def differing(found: dict[str, list[float]], expected: dict[str, list[float]], *, exact: bool) -> list[str]:
    """The steps whose losses are not as expected."""
    wrong = []
    for stage, losses in expected.items():
        for step, (one, other) in enumerate(zip(found[stage], losses, strict=True), start=1):
            if one != (other if exact else pytest.approx(other, rel=CLOSE, abs=0.0)):
                wrong.append(f"{stage} {step}: {one}, stored {other}")
    return wrong


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_stored(name: str, trained: Path) -> None:
    expected = curve(stored(name))
    if CASES[name].unicode and expected["machine"]["unicode"] != UNICODE:
        pytest.skip(f"learns names of Unicode {expected['machine']['unicode']}, and this Python has {UNICODE}")
    exact = expected["machine"] == machine()
    wrong = differing(curve(trained / f"{name}.json")["losses"], expected["losses"], exact=exact)
    meant = f"\nif that is meant: python tests/curves/refresh.py {name}"
    assert not wrong, "\n".join(wrong[:5]) + meant


@pytest.mark.parametrize("name", CASES)
def test_curves_are_whole_and_of_the_settings_that_are_run(name: str) -> None:
    found = curve(stored(name))
    assert (found["config"], found["overrides"]) == (f"examples/{CASES[name].config}", CASES[name].settings())
    assert {stage: len(losses) for stage, losses in found["losses"].items()} == dict.fromkeys(
        CASES[name].batches, STEPS
    )


def test_every_example_has_a_curve_of_every_stage_that_trains() -> None:
    configs = {path.relative_to(EXAMPLES).as_posix(): path for path in EXAMPLES.glob("*/*.yaml")}
    assert sorted(case.config for case in CASES.values()) == sorted(configs)
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(CASES)
    for name, case in CASES.items():
        written = yaml.safe_load(configs[case.config].read_text(encoding="utf-8"))
        assert written["name"] == name
        assert list(case.batches) == [stage for stage, its in written["stages"].items() if its["steps"]]


def test_losses_are_written_shortly_and_read_as_the_same_float32() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert np.array_equal(np.array([shortest(float(value)) for value in values], dtype=np.float32), values)
    assert repr(shortest(float(np.float32(0.1)))) == "0.1"


def test_a_loss_that_moved_is_found() -> None:
    expected = {"codec": [2.0, 1.5], "prior": [1.0, 0.5]}
    moved = {"codec": [2.0, 1.5], "prior": [1.0, 0.50004]}
    assert differing(expected, expected, exact=True) == []
    assert differing(moved, expected, exact=True) == ["prior 2: 0.50004, stored 0.5"]
    assert differing(moved, expected, exact=False) == []
    far = {"codec": [2.0, 1.5003], "prior": [1.0, 0.5]}
    assert differing(far, expected, exact=False) == ["codec 2: 1.5003, stored 1.5"]
