"""What third parties depend on: the built wheel, installed outside the checkout, does what the checkout does."""

from __future__ import annotations

import json
import tomllib
import zipfile
from pathlib import Path

from installed import ROOT, run

TINY = ROOT / "examples" / "configs" / "tiny.yaml"


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_wheel_holds_the_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("colatent/registry.toml") == (ROOT / "registry.toml").read_bytes()
    packages = {path.parent.name for path in ROOT.glob("plugins/*/*/__init__.py")} | {"colatent"}
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    demos = ["colatent_gallery/digits/digits.yaml", "colatent_text/demo.yaml"]
    assert sorted(name for name in names if name.endswith(".yaml")) == demos
    assert not [name for name in names if "test_" in name or name.endswith(".pyc")]
    sources = {path.relative_to(ROOT / "core").as_posix() for path in ROOT.glob("core/colatent/**/*.py")}
    assert sources <= set(names)


def test_wheel_declares_what_pyproject_declares(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        lines = archive.read(name).decode().splitlines()
    assert "[console_scripts]" in lines
    for points in (_project()["scripts"], *_project()["entry-points"].values()):
        assert {f"{key} = {value}" for key, value in points.items()} <= set(lines)


def test_code_comes_from_the_wheel(env, tmp_path):
    code = "import colatent.errors, sys; print(colatent.errors.__file__); print(*sys.path, sep='\\n')"
    where, *path = run(env / "bin" / "python", "-c", code, cwd=tmp_path).splitlines()
    assert Path(where).is_relative_to(env)
    assert not [entry for entry in path if entry and Path(entry).is_relative_to(ROOT / "core")]


def test_plugins_are_found(env, tmp_path):
    for command in ([env / "bin" / "colatent"], [env / "bin" / "python", "-m", "colatent"]):
        rows = run(*command, "plugins", cwd=tmp_path).splitlines()
        for name in _project()["entry-points"]["colatent"]:
            assert any(name in row and "active" in row for row in rows), rows


def test_twenty_steps_of_training(env, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_bytes(TINY.read_bytes())
    steps = [f"stages.{stage}.steps=20" for stage in ("codec", "prior")]
    run(env / "bin" / "python", "-m", "colatent", "train", config.name, "out=run", *steps, cwd=tmp_path)
    out = run(
        env / "bin" / "colatent", "generate", "run", "--prompt", "one, two", "--max-new", "4", "--json", cwd=tmp_path
    )
    assert len(json.loads(out)["samples"][0]["tokens"]) <= 4
