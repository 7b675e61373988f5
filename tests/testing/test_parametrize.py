"""The checks as tests: the decorator on the tiny codec, and on every codec and dataset that comes with colatent."""

from __future__ import annotations

import subprocess
import sys

import pytest

from colatent.errors import UserError
from colatent.plugins import load_plugins
from colatent.testing import CODEC_CHECKS, DATASET_CHECKS, parametrize_with_checks
from colatent.testing.catalogue import examine_codec
from colatent.testing.parametrize import BoundCheck
from plugins_for_tests import faults_surface
from plugins_for_tests.faults import CODEC_FAULTS
from plugins_for_tests.grid import plugins_with_grid
from plugins_for_tests.wave import plugins_with_wave

BUILT_IN = [plugin.name for plugin in load_plugins().active if plugin.distribution == "colatent"]


@parametrize_with_checks(BUILT_IN)
def test_what_comes_with_colatent_keeps_the_contract(check) -> None:
    check()


@parametrize_with_checks(["wave", "waves"], plugins=plugins_with_wave())
def test_the_decorator_hands_over_checks_that_can_be_called(check) -> None:
    check()


def test_every_built_in_plugin_with_a_codec_is_tested() -> None:
    declared = {info.name for plugin in load_plugins().active if plugin.name in BUILT_IN for info in plugin.codecs}
    tested = {each.examination.title for each in parametrize_with_checks(BUILT_IN).args[1]}
    assert {f"codec {name}" for name in declared} <= tested
    assert "codec text" in tested


def test_a_plugin_stands_for_all_that_it_declares() -> None:
    names, bound = parametrize_with_checks("curves", plugins=plugins_with_wave()).args
    assert names == "check"
    expected = [f"codec-wave-{check.name}" for check in CODEC_CHECKS]
    assert list(map(str, bound)) == expected + [f"dataset-waves-{check.name}" for check in DATASET_CHECKS]


def test_a_failed_check_says_what_is_wrong_and_keeps_the_traceback() -> None:
    fault = next(each for each in CODEC_FAULTS if each.name == faults_surface.NeverBuilt.__name__)
    bound = BoundCheck(examination=examine_codec(fault.plugins(), "wave"), name="class")
    with pytest.raises(AssertionError, match="codec wave: class - RuntimeError: no weights\ncontract: The") as raised:
        bound()
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_a_skipped_check_skips_the_test_with_its_reason() -> None:
    bound = BoundCheck(examination=examine_codec(plugins_with_grid(), "grid"), name="streaming")
    with pytest.raises(pytest.skip.Exception, match="StreamingCodec"):
        bound()


def test_a_name_that_nobody_declares_is_told_while_tests_are_collected() -> None:
    with pytest.raises(UserError, match="did you mean 'wave'"):
        parametrize_with_checks("wavy", plugins=plugins_with_wave())


def test_the_kit_is_imported_without_pytest() -> None:
    script = "import sys; sys.modules['pytest'] = None; import colatent.testing"
    subprocess.run([sys.executable, "-c", script], check=True)
