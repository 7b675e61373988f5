"""Configs: what is merged and kept, and that every mistake is told in one line with its key path and remedy."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from colatent.config import RunConfig, Settings, load, validate
from colatent.config.prior import PriorConfig
from colatent.errors import UserError

GOOD = """
name: tiny
streams:
  text: {codec: text, config: {channels: 16}}
data:
  path: ???
  sources:
    corpus: {dataset: text-files, config: {path: "${data.path}"}}
stages:
  prior: {steps: 10, lr: 1e-3, betas: [0.9, 0.99]}
"""


@pytest.fixture
def write(in_tmp):
    def write(text: str | bytes, name: str = "run.yaml"):
        path = in_tmp / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


@pytest.fixture
def good(write):
    return write(GOOD)


def complaint(path, *overrides) -> str:
    with pytest.raises(UserError) as caught:
        load(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_file_then_overrides_then_defaults(good):
    loaded = load(good, ["data.path=corpus.txt", "stages.prior.steps=20", "sample={steps: 4}"])
    prior = loaded.config.stages["prior"]
    assert (prior.steps, prior.lr, prior.batch) == (20, 1e-3, 16)
    assert prior.betas == (0.9, 0.99)
    assert loaded.config.data.sources["corpus"].config == {"path": "corpus.txt"}
    assert (loaded.config.sample.steps, loaded.config.sample.solver) == (4, "ab2")
    assert str(loaded.path) == good


def test_last_override_wins_and_mappings_merge(good):
    loaded = load(good, ["data.path=a", "stages.prior={batch: 2}", "stages.prior.batch=3", "data.path=b=c"])
    assert (loaded.config.stages["prior"].steps, loaded.config.stages["prior"].batch) == (10, 3)
    assert loaded.config.data.path == "b=c"


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "0.001", "'1e-3'", ".001"])
def test_numbers_however_written(good, number):
    loaded = load(good, ["data.path=x", f"stages.prior.lr={number}"])
    assert loaded.config.stages["prior"].lr == 1e-3


def test_list_items_by_number(write):
    path = write(GOOD.replace("dataset: text-files", "dataset: text-files, segments: [{stream: a}, {stream: b}]"))
    segments = (
        load(path, ["data.path=x", "data.sources.corpus.segments.1.stream=c"]).config.data.sources["corpus"].segments
    )
    assert [segment.stream for segment in segments] == ["a", "c"]


def test_kept_text_is_merged_but_not_resolved(write, monkeypatch):
    monkeypatch.setenv("COLATENT_TEST_SECRET", "hunter2")
    path = write(GOOD.replace("name: tiny", "name: ${oc.env:COLATENT_TEST_SECRET}"))
    loaded = load(path, ["data.path=corpus.txt", "stages.prior.steps=7", "out=${oc.env:COLATENT_TEST_SECRET}"])
    assert loaded.config.name == loaded.config.out == "hunter2"
    assert "hunter2" not in loaded.text
    assert "${oc.env:COLATENT_TEST_SECRET}" in loaded.text
    assert "${data.path}" in loaded.text
    assert "steps: 7" in loaded.text


def test_kept_text_loads_to_the_same_settings(good, write):
    loaded = load(good, ["data.path=corpus.txt", "name='3'"])
    again = load(write(loaded.text, "kept.yaml"))
    assert again.config == loaded.config
    assert again.text == loaded.text


def test_settings_are_frozen(good):
    loaded = load(good, ["data.path=x"])
    with pytest.raises(ValidationError):
        loaded.config.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.text = ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "run.yaml: is empty; start from"),
        ("# nothing\n", "run.yaml: is empty; start from"),
        ("- 1\n", "run.yaml: is not a mapping; write"),
        ("hello\n", "run.yaml: is not a mapping; write"),
        ("3\n", "run.yaml: is not a mapping; write"),
        ("name: a\nseed: [1\n", "run.yaml:3: is not valid YAML"),
        ("name: a\nname: b\n", "run.yaml:2: is not valid YAML: found duplicate key name"),
        ("name: a\n---\nname: b\n", "run.yaml:2: is not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "run.yaml:1: is not valid YAML"),
        (b"\xff\xfe\x00", "run.yaml: is not UTF-8 text"),
        (b"name: \x00", "run.yaml: is not valid YAML"),
        ("null: 3\n", "run.yaml: Incompatible key type"),
    ],
)
def test_files_that_are_no_config(write, text, line):
    assert complaint(write(text)).startswith(line)


def test_missing_file_and_folder(in_tmp, good):
    assert complaint("nowhere.yaml") == "nowhere.yaml: no such file; pass the path of a YAML config"
    assert complaint("runn.yaml") == "runn.yaml: no such file; did you mean run.yaml?"
    (in_tmp / "folder").mkdir()
    assert complaint("folder").startswith("folder: is a folder, not a file; ")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("stages.prior.stpes=3", "run.yaml: stages.prior.stpes: unknown key; did you mean steps?"),
        ("stages.prio.steps=3", "run.yaml: stages.prio: unknown key; did you mean prior?"),
        ("strems.text.codec=x", "run.yaml: strems: unknown key; did you mean streams?"),
        ("streams.text.cdec=x", "run.yaml: streams.text.cdec: unknown key; did you mean codec?"),
        ("flow.time.knd=uniform", "run.yaml: flow.time.knd: unknown key; did you mean kind?"),
        ("flow.times.text.lok=1", "run.yaml: flow.times.text.lok: unknown key; did you mean loc?"),
        (
            "sample.zzz=1",
            "run.yaml: sample.zzz: unknown key; known keys: guidance, guidance_interval, guidance_rescale",
        ),
        (
            "data.sources.corpus.segments=[{stream: a, rle: x}]",
            "run.yaml: data.sources.corpus.segments.0.rle: unknown key; did you mean role?",
        ),
        (
            "stages.prior.steps=many",
            'run.yaml: stages.prior.steps: is "many", must be a whole number; change it or pass stages.prior',
        ),
        ("stages.prior.steps=2.5", "run.yaml: stages.prior.steps: is 2.5, must be a whole number; "),
        (
            "stages.prior.steps=0",
            "run.yaml: stages.prior.steps is 0, it must be greater than 0: only stage codec may have none",
        ),
        ("stages.codec={steps: -1}", "run.yaml: stages.codec.steps: is -1, must be greater than or equal to 0; "),
        ("stages.prior.lr=null", "run.yaml: stages.prior.lr: is null, must be a number; "),
        ("out=", "override 'out=': has no value; write one behind the =, or null for none"),
        ("out= ", "override 'out= ': has no value; "),
        ("metrics.wandb=a/b/c", 'run.yaml: metrics.wandb: is "a/b/c", must be PROJECT or ENTITY/PROJECT; change it'),
        ("name=a/b", "run.yaml: name: is \"a/b\", must be letters, digits, '_', '.' and '-', beginning with a letter"),
        ("stages.prior=3", "run.yaml: stages.prior: is 3, must be a mapping of keys to values; "),
        ("stages.prior.betas=3", "run.yaml: stages.prior.betas: is 3, must be a list; "),
        ("stages.prior.betas=[0.9]", "run.yaml: stages.prior.betas.1: missing; "),
        (
            "streams.ema={codec: text}",
            "run.yaml: stream 'ema' must be of letters, digits, '-' and '_', and not 'shared'",
        ),
        ("name={a: 1}", 'run.yaml: name: is {"a": 1}, must be text; change it or pass name=VALUE'),
        ("name=3", "run.yaml: name: is 3, must be text; put it in quotes"),
        ("sample.solver=eulr", "run.yaml: sample.solver: is \"eulr\", must be 'euler', 'midpoint', 'heun' or 'ab2'; "),
        ("sample.guidance_interval=[0.6,0.2]", "run.yaml: sample.guidance_interval: the smaller of the two must stand"),
        (
            "sample.streams={text: {guidance_interval: [0.2]}}",
            "run.yaml: sample.streams.text.guidance_interval.1: missing",
        ),
        (
            "sample.guidance_interval=[0.2,1.5]",
            "run.yaml: sample.guidance_interval.1: is 1.5, must be less than or equal",
        ),
        ("stages.codec.batch=2", "run.yaml: stages.codec.steps: missing; add it or pass stages.codec.steps=VALUE"),
        ("seed=${nope}", "run.yaml: seed: Interpolation key 'nope' not found; name a key that exists"),
        ("seed=${name", "override 'seed=${name': does not fit the config: "),
        ("seed=${seed}", "run.yaml: seed: Recursive interpolation detected; "),
        ("seed=${shell:ls}", "run.yaml: seed: Unsupported interpolation type shell; "),
        (
            "seed=${oc.env:COLATENT_NOT_SET}",
            "run.yaml: seed: Environment variable 'COLATENT_NOT_SET' not found; set it, or",
        ),
        ("seed", "override 'seed': is not KEY=VALUE; write it like stages.prior.steps=10"),
        ("=3", "override '=3': is not KEY=VALUE; "),
        ("a..b=3", "override 'a..b=3': is not KEY=VALUE; "),
        ("seed=[1", "override 'seed=[1': has a value that is not valid YAML; "),
        (
            "stages.prior.betas.7=1",
            "override 'stages.prior.betas.7=1': does not fit the config: list index out of range; ",
        ),
    ],
)
def test_one_mistake_is_one_line(good, override, line):
    assert complaint(good, "data.path=x", override).startswith(line)


def test_a_reference_that_cannot_be_read(write):
    line = complaint(write(GOOD.replace("name: tiny", "name: '${'")), "data.path=x")
    assert line.startswith("run.yaml: name: has a ${...} that cannot be read: ")


def test_mandatory_values_are_asked_for(good, write):
    assert complaint(good) == "run.yaml: data.path: must be given; pass data.path=FILE"
    both = write(GOOD.replace("steps: 10", "steps: '???'"), "both.yaml")
    assert complaint(both) == "both.yaml: data.path: must be given; pass data.path=FILE (and 1 more)"
    assert (
        complaint(both, "data.path=x") == "both.yaml: stages.prior.steps: must be given; pass stages.prior.steps=VALUE"
    )


def test_a_misspelt_key_is_told_before_the_key_that_it_hides(write):
    line = complaint(write(GOOD.replace("steps: 10", "stpes: 10")), "data.path=x", "sample.steps=x")
    assert line == "run.yaml: stages.prior.stpes: unknown key; did you mean steps? (and 2 more)"


class ByteTokens(Settings):
    kind: Literal["bytes"] = "bytes"


class TrainedTokens(Settings):
    kind: Literal["trained"]
    size: int


class CodecSettings(Settings):
    tokenizer: Annotated[ByteTokens | TrainedTokens, Field(discriminator="kind")] = ByteTokens()
    width: int | None = None

    @field_validator("width")
    @classmethod
    def _even(cls, width: int | None) -> int | None:
        if width is not None and width % 2:
            raise ValueError(f"is {width}, must be even")
        return width


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"tokeniser": {}}, "streams.text.config.tokeniser: unknown key; did you mean tokenizer?"),
        ({"tokenizer": {"kind": "byte"}}, "streams.text.config.tokenizer: "),
        ({"tokenizer": {"kind": "trained"}}, "streams.text.config.tokenizer.size: missing; "),
        (
            {"tokenizer": {"kind": "trained", "size": "x"}},
            'streams.text.config.tokenizer.size: is "x", must be a whole',
        ),
        (
            {"tokenizer": {"kind": "bytes", "sze": 1}},
            "streams.text.config.tokenizer.sze: unknown key; did you mean size?",
        ),
        ({"width": 3}, "streams.text.config.width: is 3, must be even; "),
    ],
)
def test_plugin_settings_complain_with_their_place_in_the_run(values, line):
    with pytest.raises(UserError, match=re.escape(line)):
        validate(CodecSettings, values, where="streams.text.config")


def test_validate_gives_the_model_and_names_the_file():
    assert validate(CodecSettings, {"tokenizer": {"kind": "trained", "size": 5}}).tokenizer == TrainedTokens(
        kind="trained", size=5
    )
    with pytest.raises(UserError, match=r"^run\.yaml: streams\.text\.config\.width: is \"x\""):
        validate(CodecSettings, {"width": "x"}, where="streams.text.config", file="run.yaml")


def test_every_error_type_of_the_schema_reads_as_one_line():
    with pytest.raises(UserError, match=r"^name: missing; add it or pass name=VALUE \(and 3 more\)$"):
        validate(RunConfig, {})


def test_a_rule_between_settings_is_not_mended_by_one_value():
    values = {"width": 32, "heads": 3}
    with pytest.raises(UserError, match=r"^prior: width 32 must be a multiple of 2 x heads \(3\); change one of them$"):
        validate(PriorConfig, values, where="prior")


def test_configs_do_not_import_torch():
    code = "import sys, colatent.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
