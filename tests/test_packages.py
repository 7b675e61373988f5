"""A stranger's packages: the examples, copied out of the tree, installed beside the wheel, valid and trained there.

Nothing of the engine may come from the checkout, and no line of it knows what the packages bring.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from installed import ROOT, install, make_env, run

PACKAGES = {"signal": "plugin-template", "strokes": "colatent-strokes", "pca": "colatent-pca"}
"""The plugin that each of the examples' packages brings, and its folder."""
TRAIN = """
import sys
from colatent.cli.main import main
status = main(["train", *sys.argv[1:]])
own = [module.__file__ for name, module in sys.modules.items() if name.startswith("colatent") and module.__file__]
print(status, *own, sep="\\n")
"""

VALIDATE = """
import contextlib, io, json, sys
from colatent.cli.main import main
for name in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as told:
        main(["plugins", "validate", name, "--json"])
    print(json.dumps(json.loads(told.getvalue())))
"""


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages' folders, outside the tree."""
    out = tmp_path_factory.mktemp("strangers")
    for folder in PACKAGES.values():
        shutil.copytree(ROOT / "examples" / folder, out / folder, ignore=shutil.ignore_patterns("*cache*", "runs"))
    return out


@pytest.fixture(scope="module")
def with_packages(wheel: Path, copies: Path) -> Path:
    """An environment with the wheel and all packages."""
    env = make_env(copies / "env", wheel)
    install(env, *(copies / folder for folder in PACKAGES.values()))
    return env


def test_each_is_valid(with_packages: Path, tmp_path: Path) -> None:
    told = run(with_packages / "bin" / "python", "-c", VALIDATE, *PACKAGES, cwd=tmp_path).splitlines()
    for name, line in zip(PACKAGES, told, strict=True):
        found = json.loads(line)
        assert (found["plugin"], found["ok"]) == (name, True)
        assert sum(check["state"] == "passed" for check in found["checks"]) > 20


def test_their_own_tests_pass(with_packages: Path, copies: Path) -> None:
    # The checks of all three were run above; here it is that a package's own tests can run them.
    tests = ["plugin-template/tests", "colatent-strokes/tests/test_strokes.py", "colatent-pca/tests/test_pca.py"]
    how = ["-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
    told = run(with_packages / "bin" / "python", *how, *(copies / each for each in tests), cwd=copies)
    assert " passed" in told


@pytest.mark.parametrize(
    ("config", "stages"),
    [("colatent-strokes/strokes.yaml", ("codec", "prior")), ("colatent-pca/pca.yaml", ("prior",))],
)
def test_five_steps_with_nothing_of_the_checkout(
    with_packages: Path, copies: Path, tmp_path: Path, config: str, stages: tuple[str, ...]
) -> None:
    steps = [f"stages.{stage}.steps=5" for stage in stages]
    told = run(with_packages / "bin" / "python", "-c", TRAIN, copies / config, "out=run", *steps, cwd=tmp_path)
    after = told[told.index("\n0\n") + 3 :].splitlines()
    assert any("colatent_" in file for file in after)
    assert [file for file in after if not Path(file).is_relative_to(with_packages)] == []
    found = (tmp_path / "run" / "checkpoints").glob("*/step-*")
    assert {path.parent.name for path in found} == {"codec", "prior"}
