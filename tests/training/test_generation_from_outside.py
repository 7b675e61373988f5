"""A trained text model as its users meet it: `colatent.load`, `generate`, and the command with --json."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

import colatent
from colatent.cli.main import main
from colatent.config.sampling import SampleConfig
from colatent.errors import UserError
from colatent.generate.model import Model
from colatent.generate.requests import Settings, settle
from plugins_for_tests.runs import TEXT, run

PROMPTS = ("twenty-one, twenty-two, ", "o", "", "one hundred twenty-three, one hundred")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text run."""
    return run(TEXT, tmp_path_factory.mktemp("text") / "run", "stages.codec.steps=30")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return colatent.load(folder)


def asked(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, object]]:
    """What the command prints with --json, if that is a document alone on stdout and stderr is empty."""
    assert main(["generate", str(folder), "--json", *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    return json.loads(printed.out)["samples"]  # type: ignore[no-any-return]


def test_a_string_comes_back(model: Model) -> None:
    assert isinstance(model.generate("one, two, "), str)
    assert isinstance(model.generate(), str)


@pytest.mark.parametrize("units", [0, 1, 3, 4, 5, 11])
def test_the_budget_is_exact(units: int, model: Model) -> None:
    for results in model.generate_many(PROMPTS[:2], max_new_tokens=units, n=2):
        for result in results:
            assert len(result.details["tokens"]) == units
            assert result.item == bytes(result.details["tokens"]).decode(errors="replace")


def test_the_same_seed_gives_the_same_tokens_whatever_the_batch(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompt", PROMPTS[0], "--prompt", PROMPTS[1], "--n", "3", "--seed", "5"]
    samples = [asked(folder, capsys, *options, "--batch", size) for size in ("1", "3", "64")]
    assert samples[0] == samples[1] == samples[2]
    assert [(one["prompt"], one["sample"]) for one in samples[0]] == [(p, i) for p in PROMPTS[:2] for i in range(3)]
    assert asked(folder, capsys, *options[:-1], "6") != samples[0]


def test_samples_do_not_depend_on_their_neighbours(model: Model) -> None:
    together = model.generate_many(PROMPTS[:2] + PROMPTS[3:], n=3, seed=2)
    for prompt, results in zip(PROMPTS[:2] + PROMPTS[3:], together, strict=True):
        alone = model.generate_many([prompt], n=3, seed=2, batch=1)[0]
        for one, other in zip(results, alone, strict=True):
            assert one.item == other.item
            torch.testing.assert_close(one.latents_LC, other.latents_LC, atol=1e-5, rtol=1e-5)


def test_how_the_flow_is_solved_is_said_by_flags(
    folder: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--steps", "4", "--solver", "heun", "--shift", "3", "--guidance", "4"]
    more = ["--guidance-interval", "0.3", "0.9", "--guidance-rescale", "0.7"]
    (sample,) = asked(folder, capsys, "--prompt", PROMPTS[0], *flags, *more)
    plain = {"steps": 4, "solver": "heun", "guidance": 4.0}
    named = {"shift": 3.0, "guidance_interval": (0.3, 0.9), "guidance_rescale": 0.7}
    found = model.generate_many([PROMPTS[0]], **plain, **named)[0][0]  # type: ignore[arg-type]
    assert sample["tokens"] == found.details["tokens"]
    for name, value in named.items():  # each is felt by itself
        one = model.generate_many([PROMPTS[0]], **plain, **{name: value})[0][0]  # type: ignore[arg-type]
        other = model.generate_many([PROMPTS[0]], **plain)[0][0]  # type: ignore[arg-type]
        assert not torch.equal(one.latents_LC, other.latents_LC)


def test_a_model_that_knows_no_other_grid_keeps_the_published_one() -> None:
    older = {"steps": 16, "solver": "euler", "guidance": 7.0, "unconditional": "auto", "max_units": 8}
    asked = settle(SampleConfig(**older), {})  # type: ignore[arg-type]
    assert asked.settings == Settings(steps=16, solver="euler", guidance=7.0)
    assert (asked.settings.shift, asked.settings.guidance_interval, asked.settings.guidance_rescale) == (1, (0, 1), 0)


def test_an_empty_prompt_may_come_last(model: Model) -> None:
    together = model.generate_many(PROMPTS, seed=2)
    assert together[2][0].item == model.generate("", seed=2)


def test_a_prompt_longer_than_the_window_counts_on(model: Model) -> None:
    assert len(model.generate_many(["one, two, " * 12], max_new_tokens=6)[0][0].details["tokens"]) == 6


def test_samples_are_written_as_lines(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = asked(folder, capsys, "--prompt", "zwölf", "--n", "2", "--out", str(tmp_path / "new" / "out"))
    lines = (tmp_path / "new" / "out" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == samples
    assert samples[0]["prompt"] == "zwölf"


def test_a_full_disk_is_told_with_the_place(folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["generate", str(folder), "--max-new", "4", "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'}: cannot be written: No space left on device; make room" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_a_model_too(folder: Path, model: Model) -> None:
    steps = sorted((folder / "checkpoints" / "prior").glob("step-*"))
    assert colatent.load(steps[-1]).generate("one") == model.generate("one")
    assert colatent.load(folder / "checkpoints" / "prior").generate("one") == model.generate("one")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"steps": 0}, "steps: is 0, it must be a whole number of at least 1"),
        ({"steps": 2.5}, "steps: is 2.5, it must be a whole number of at least 1"),
        ({"seed": -1}, "seed: is -1, it must be a whole number of at least 0"),
        ({"max_new_tokens": 3.5}, "max_new_tokens: is 3.5, it must be a whole number that is not negative"),
        ({"guidance": -1.0}, "guidance: is -1.0, it must be from 0 to 1e\\+06"),
        ({"guidance": 1e300}, "guidance: is 1e\\+300, it must be from 0 to"),
        ({"steps": 10**9}, "steps: is 1000000000, it must be at most 100000"),
        ({"guidance": float("nan")}, "guidance: is nan"),
        ({"solver": "rk9"}, "unknown solver 'rk9'"),
        ({"shift": 0.0}, "shift: is 0.0, it must be from 0.001 to 1000"),
        ({"shift": float("nan")}, "shift: is nan"),
        ({"guidance_rescale": 1.5}, "guidance_rescale: is 1.5, it must be from 0 to 1"),
        ({"guidance_interval": (0.7, 0.2)}, "guidance_interval: is 0.7 to 0.2, it must be two times between 0 and 1"),
        ({"guidance_interval": (0.2, 1.5)}, "guidance_interval: is 0.2 to 1.5, it must be"),
        ({"max_new_tokens": -1}, "max_new_tokens: is -1"),
        ({"target": "image"}, "no stream 'image'"),
    ],
)
def test_settings_out_of_range_are_told(values: dict[str, object], line: str, model: Model) -> None:
    with pytest.raises(UserError, match=line):
        model.generate("one", **values)  # type: ignore[arg-type]


def test_latents_are_rounded_as_if_alone(model: Model) -> None:
    prompts = [PROMPTS[0] * k + "o" for k in range(4)] + list(PROMPTS)
    together = model.generate_many(prompts, n=2, max_new_tokens=12, guidance=3.0, seed=1, batch=64)
    for size in (1, 3):
        apart = model.generate_many(prompts, n=2, max_new_tokens=12, guidance=3.0, seed=1, batch=size)
        for some, same in zip(together, apart, strict=True):
            for one, other in zip(some, same, strict=True):
                assert one.details == other.details
                torch.testing.assert_close(one.latents_LC, other.latents_LC, atol=1e-6, rtol=0)
