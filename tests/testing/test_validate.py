"""`colatent plugins validate`: what it prints, its JSON, its exit status, and the list of checks in the docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from colatent.cli import main as entry
from colatent.cli import plugins as command
from colatent.testing import CODEC_CHECKS, DATASET_CHECKS, TASK_CHECKS
from colatent.testing.isolation import heavy_imports
from plugins_for_tests import faults_surface
from plugins_for_tests.faults import CODEC_FAULTS
from plugins_for_tests.wave import plugins_with_wave

DOCS = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"
KINDS = (("codec", CODEC_CHECKS), ("dataset", DATASET_CHECKS), ("task", TASK_CHECKS))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch):
    """Let the command see these plugins."""
    return lambda found: monkeypatch.setattr(command, "load_plugins", lambda: found)


def test_it_says_what_came_of_each_check(given, capsys: pytest.CaptureFixture[str]) -> None:
    given(plugins_with_wave())
    assert entry.main(["plugins", "validate", "curves"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == [f"passed  codec wave: {check.name}" for check in CODEC_CHECKS] + [
        f"passed  dataset waves: {check.name}" for check in DATASET_CHECKS
    ]


@pytest.mark.parametrize(("name", "checks"), [("wave", CODEC_CHECKS), ("waves", DATASET_CHECKS)])
def test_a_codec_or_a_dataset_is_checked_alone(name, checks, given, capsys: pytest.CaptureFixture[str]) -> None:
    given(plugins_with_wave())
    assert entry.main(["plugins", "validate", name, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["plugin"], shown["ok"]) == ("curves", True)
    assert [each["name"] for each in shown["checks"]] == [check.name for check in checks]
    assert all(each.keys() == {"subject", "name", "contract", "state", "detail"} for each in shown["checks"])


def test_it_exits_2_where_a_check_fails(given, capsys: pytest.CaptureFixture[str]) -> None:
    fault = next(each for each in CODEC_FAULTS if each.name == faults_surface.MaybeFinished.__name__)
    given(fault.plugins())
    assert entry.main(["plugins", "validate", "wave"]) == 2
    shown = capsys.readouterr()
    failed = "failed  codec wave: finished - gives Tensor, not bool\n        contract: `finished` answers yes or no.\n"
    assert failed in shown.out
    assert shown.err == f"colatent: 1 of {len(CODEC_CHECKS)} checks of plugin 'curves' of curves-dist 1 failed\n"


def test_it_lists_the_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["plugins", "validate", "--list"]) == 0
    shown = capsys.readouterr().out
    for kind, checks in KINDS:
        for check in checks:
            assert re.search(rf"^{kind} +{check.name} +{re.escape(check.contract)}$", shown, re.MULTILINE)


def test_it_lists_the_checks_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["plugins", "validate", "--list", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    for kind, checks in KINDS:
        assert shown[kind] == [{"name": check.name, "contract": check.contract} for check in checks]


@pytest.mark.parametrize(("name", "kinds"), [("curves", "codec dataset"), ("wave", "codec"), ("waves", "dataset")])
def test_it_lists_the_checks_of_what_is_named(name, kinds, given, capsys: pytest.CaptureFixture[str]) -> None:
    given(plugins_with_wave())
    assert entry.main(["plugins", "validate", "--list", name, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == kinds.split()
    assert entry.main(["plugins", "validate", "--list", "wavy"]) == 2
    assert capsys.readouterr().err.startswith("colatent: no plugin, codec, dataset or task is called 'wavy'")


def test_it_asks_for_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["plugins", "validate"]) == 2
    assert "Missing argument 'NAME'" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "checks"), KINDS)
def test_the_documentation_lists_the_checks_with_their_contracts(kind, checks) -> None:
    _, _, section = DOCS.read_text(encoding="utf-8").partition(f"| check of a {kind} | contract |\n|---|---|\n")
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", section.partition("\n\n")[0], re.MULTILINE)
    assert rows == [(check.name, check.contract) for check in checks]


def test_torch_in_the_module_that_declares_is_caught() -> None:
    config = "plugins_for_tests.wave:WaveConfig"
    assert heavy_imports(target="plugins_for_tests.wave", config=config) == []
    assert heavy_imports(target="plugins_for_tests.wave_codec", config=config) == ["torch"]
