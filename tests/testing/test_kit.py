"""The kit on a tiny codec that can do all: right it passes every check, and each check catches a planted slip."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from colatent.plugins import contract, items, streaming
from colatent.testing import CODEC_CHECKS, DATASET_CHECKS, check_codec, check_dataset, examine
from colatent.testing.catalogue import examine_codec, examine_dataset
from colatent.testing.surface import ABILITIES
from plugins_for_tests import (  # noqa: F401  importing them notes their slips
    faults_behaviour,
    faults_declared,
    faults_module,
    faults_outside,
    faults_surface,
)
from plugins_for_tests.faults import CODEC_FAULTS, DATASET_FAULTS, Fault
from plugins_for_tests.grid import plugins_with_grid
from plugins_for_tests.joint_runs import FrozenGrid
from plugins_for_tests.wave import CODEC, plugins_with_wave


def test_a_right_codec_passes_every_check_and_skips_none() -> None:
    results = check_codec(plugins_with_wave(), "wave")
    assert [(each.name, each.state, each.detail) for each in results] == [
        (check.name, "passed", "") for check in CODEC_CHECKS
    ]


def test_a_right_dataset_passes_every_check_and_skips_none() -> None:
    results = check_dataset(plugins_with_wave(), "waves")
    assert [(each.name, each.state, each.detail) for each in results] == [
        (check.name, "passed", "") for check in DATASET_CHECKS
    ]


@pytest.mark.parametrize("fault", CODEC_FAULTS, ids=str)
def test_each_planted_fault_fails_its_check(fault: Fault) -> None:
    result = examine_codec(fault.plugins(), "wave").result(fault.check)
    assert (result.state, fault.says in result.detail) == ("failed", True), result


@pytest.mark.parametrize("fault", DATASET_FAULTS, ids=str)
def test_each_planted_fault_of_a_dataset_fails_its_check(fault: Fault) -> None:
    result = examine_dataset(fault.plugins(), "waves").result(fault.check)
    assert (result.state, fault.says in result.detail) == ("failed", True), result


@pytest.mark.parametrize(("checks", "faults"), [(CODEC_CHECKS, CODEC_FAULTS), (DATASET_CHECKS, DATASET_FAULTS)])
def test_every_check_has_a_planted_fault(checks, faults) -> None:
    assert {check.name for check in checks} == {fault.check for fault in faults}


@pytest.mark.parametrize("checks", [CODEC_CHECKS, DATASET_CHECKS])
def test_every_check_has_a_name_of_its_own_and_a_contract_of_one_sentence(checks) -> None:
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.contract.endswith("."), check.name
        assert ". " not in check.contract, check.name


def test_every_protocol_of_the_contract_is_looked_for() -> None:
    found = {
        value
        for module in (contract, streaming, items)
        for value in vars(module).values()
        if inspect.isclass(value) and getattr(value, "_is_protocol", False) and value.__module__ == module.__name__
    }
    assert found == {contract.Codec, contract.DecodeStream, *ABILITIES}


def test_what_needs_a_failed_vital_check_is_skipped_and_says_which() -> None:
    fault = next(fault for fault in CODEC_FAULTS if fault.name == "NoDefault")
    results = check_codec(fault.plugins(), "wave")
    assert [each.state for each in results] == ["failed"] + ["skipped"] * (len(CODEC_CHECKS) - 1)
    assert {each.detail for each in results[1:]} == {"needs 'config'"}


def test_a_check_may_be_run_by_itself() -> None:
    examination = examine_codec(plugins_with_wave(), "wave")
    assert examination.result("scale").state == "passed"
    assert examination.result("scale") is examination.result("scale")


def test_a_codec_without_optional_protocols_skips_their_checks_with_the_reason() -> None:
    skipped = {each.name: each.detail for each in check_codec(plugins_with_grid(), "grid") if each.state == "skipped"}
    assert skipped.keys() == {"measure", "cuts", "streaming", "likelihood"}
    assert all(skipped.values())


def test_a_fault_that_changes_the_process_does_not_outlive_its_check() -> None:
    before = list(warnings.filters), Path.cwd()
    for name in ("Doubles", "ChangesTheProcess"):
        fault = next(fault for fault in CODEC_FAULTS if fault.name == name)
        examine_codec(fault.plugins(), "wave").result("global-state")
    assert (list(warnings.filters), Path.cwd()) == before


def test_a_dataset_that_needs_settings_says_which() -> None:
    skipped = {each.detail for each in check_dataset(plugins_with_grid(), "text-files") if each.state == "skipped"}
    assert skipped == {"cannot be built without path"}


def test_names_of_plugins_codecs_and_datasets_are_told_apart() -> None:
    found = plugins_with_wave()
    titles = {name: [each.title for each in examine(found, name)] for name in ("curves", "wave", "waves")}
    assert titles == {
        "curves": ["codec wave", "dataset waves"],
        "wave": ["codec wave"],
        "waves": ["dataset waves"],
    }


def test_a_frozen_codec_skips_what_is_about_training() -> None:
    frozen = replace(plugins_with_grid().codec("grid"), factory=f"{FrozenGrid.__module__}:{FrozenGrid.__name__}")
    results = {each.name: each for each in check_codec(plugins_with_wave(codec=frozen), "grid")}
    assert {each.state for each in results.values()} == {"passed", "skipped"}
    assert {name for name, each in results.items() if "TrainableCodec" in each.detail} == {"losses", "gradients"}


def test_a_prepared_codec_is_prepared_from_a_dataset_that_fits() -> None:
    examination = examine_codec(plugins_with_wave(), CODEC.name)
    assert examination.subject.codec.assets() == {"longest.txt": b"10"}
