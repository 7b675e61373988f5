"""The likelihood of a trained model as its users meet it: the command on items, files and held-out samples, and what it
refuses. Two modalities show that a stream is scored given the others."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import colatent
from colatent.cli.likelihood import likelihood
from colatent.config import load
from colatent.errors import UserError
from colatent.evaluate.heldout import open_held_out
from colatent.evaluate.likelihood import Example, log_weights
from colatent.evaluate.likelihood_data import held_examples
from colatent.evaluate.prior_density import Solve
from colatent.generate.model import Model
from colatent.plugins import PluginSet, load_plugins
from plugins_for_tests.grid import CONFIG, plugins_with_grid
from plugins_for_tests.runs import TEXT, changed, run

Ask = Callable[..., dict[str, Any]]
FAST = ("--samples", "2", "--steps", "2", "--quiet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text run."""
    return run(TEXT, tmp_path_factory.mktemp("text") / "run", "stages.codec.steps=30")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions to pictures and back; pictures have no Scorable codec."""
    tree = changed(CONFIG, stages__codec__steps=4, stages__prior__steps=4)
    return run(tree, tmp_path_factory.mktemp("both") / "run", plugins=plugins_with_grid())


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """The document that the command prints with --json."""

    def asked(folder: Path, *options: str) -> dict[str, Any]:
        likelihood.main([str(folder), *FAST, "--json", *options], standalone_mode=False)
        printed = capsys.readouterr()
        assert printed.err == ""
        return json.loads(printed.out)  # type: ignore[no-any-return]

    return asked


def test_items_are_scored_whole_with_their_end(folder: Path, ask: Ask) -> None:
    found = ask(folder, "--item", "one, two", "--item", "o")
    assert [(one["item"], one["units"]) for one in found["per_item"]] == [("item/0", 9), ("item/1", 2)]
    assert [block["units"] for block in found["per_item"][0]["blocks"]] == [4, 4, 1]
    assert (found["items"], found["units"]) == (2, 11)
    assert {name: found[name] for name in ("samples", "steps", "solver", "probe", "seed")} == {
        "samples": 2,
        "steps": 2,
        "solver": "midpoint",
        "probe": "rademacher",
        "seed": 0,
    }
    for name in ("elbo", "iwae"):
        logs = [one[name] for one in found["per_item"]]
        assert found[name]["nats_per_item"] == pytest.approx(-sum(logs) / 2)
        assert found[name]["nats_per_unit"] == pytest.approx(-sum(logs) / 11)
        assert found[name]["bits_per_unit"] == pytest.approx(-sum(logs) / 11 / math.log(2))
    assert found["iwae"]["nats_per_item"] < found["elbo"]["nats_per_item"]


def test_a_file_has_an_item_a_line(folder: Path, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_text("one, two\n\no\n", encoding="utf-8")
    assert ask(folder, "--file", str(tmp_path / "items.txt")) == ask(folder, "--item", "one, two", "--item", "o")


def test_held_out_samples_of_the_run(folder: Path, ask: Ask) -> None:
    found = ask(folder, "--n", "3")
    assert [one["item"] for one in found["per_item"]] == ["counting/0", "counting/1", "counting/2"]
    assert {one["units"] for one in found["per_item"]} == {16}  # cut to data.length, as in training
    assert len(found["streams"]["text"]["blocks"]) == 4
    checkpoint = next((folder / "checkpoints" / "prior").glob("step-*"))
    assert ask(checkpoint, "--n", "3")["elbo"] == found["elbo"]
    shorter = ask(folder, "data.length=8", "--n", "1")
    assert [one["units"] for one in shorter["per_item"]] == [8]


def test_seeds_and_batches(folder: Path, ask: Ask) -> None:
    options = ("--item", "one, two, three", "--item", "four", "--samples", "3")
    base = ask(folder, *options)
    assert ask(folder, *options) == base
    assert ask(folder, *options, "--seed", "1")["elbo"] != base["elbo"]
    small = ask(folder, *options, "--batch", "1")
    for one, other in zip(base["per_item"], small["per_item"], strict=True):
        assert one["elbo"] == pytest.approx(other["elbo"], rel=1e-5)
    exact = ask(folder, *options, "--probe", "exact")
    for one, other in zip(base["per_item"], exact["per_item"], strict=True):
        blocks = list(zip(one["blocks"], other["blocks"], strict=True))
        assert all(a["log_posterior"] == b["log_posterior"] for a, b in blocks)  # the same draws, another trace
        assert any(a["log_prior"] != b["log_prior"] for a, b in blocks)


def test_the_table_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    likelihood.main([str(folder), *FAST, "--n", "1"], standalone_mode=False)
    printed = capsys.readouterr().out
    for word in ("ELBO-like", "IWAE-like (2)", "nats/unit", "bits/unit", "perplexity", "log posterior"):
        assert word in printed


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--item", "one", "--stream", "image"], "this model has no stream 'image'"),
        (["--stream", "image"], "this model has no stream 'image'"),
        (["--item", "one", "data.length=8"], "data.length=8: overrides the config of held-out samples"),
        (["--solver", "rk9"], "unknown solver 'rk9'"),
        (["data.lenght=8"], "lenght"),
    ],
)
def test_mistakes_are_told(folder: Path, options: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        likelihood.main([str(folder), *FAST, *options], standalone_mode=False)


def test_files_that_cannot_be_scored(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    for name, line in (("empty.txt", "has no line to score"), ("bytes.txt", "is not UTF-8 text")):
        with pytest.raises(UserError, match=line):
            likelihood.main([str(folder), "--file", str(tmp_path / name)], standalone_mode=False)


def test_a_checkpoint_away_from_its_run_has_no_held_out_samples(folder: Path, tmp_path: Path) -> None:
    place = shutil.copytree(next((folder / "checkpoints" / "prior").glob("step-*")), tmp_path / "alone")
    with pytest.raises(UserError, match="lies in no run folder, so it has no data"):
        likelihood.main([str(place)], standalone_mode=False)
    likelihood.main([str(place), *FAST, "--item", "one"], standalone_mode=False)


def examples_of(
    folder: Path, model: Model, *, n: int, stream: str | None = None, plugins: PluginSet | None = None
) -> list[Example]:
    config, names = load(folder / "config.yaml").config, {"text": "text", "grid": "grid"}
    data = open_held_out(
        config,
        codecs=model.codecs,
        names={name: names[name] for name in model.codecs},
        plugins=plugins or load_plugins(),
        n=n,
        seed=0,
    )
    return held_examples(data, stream=stream)


def both(pictures: Path) -> Model:
    return colatent.load(pictures, plugins=plugins_with_grid())  # type: ignore[no-any-return]


def test_a_stream_is_scored_given_the_others(pictures: Path) -> None:
    model = both(pictures)
    examples = examples_of(pictures, model, n=2, stream="text", plugins=plugins_with_grid())
    shapes = {one.key: [(piece.stream, piece.given) for piece in one.pieces] for one in examples}
    assert shapes["paint/0"] == [("text", False)]  # the picture comes after: it says nothing of its caption
    assert shapes["describe/0"] == [("grid", True), ("text", False)]
    weights = log_weights(model.prior, model.codecs, examples, samples=2, solve=Solve(steps=2))
    assert {block.stream for one in weights for block in one.blocks} == {"text"}
    assert all(bool(one.log_w_MK.isfinite().all()) for one in weights)
    units = {one.key: one.units for one in weights}
    for one in examples:
        assert units[one.key] == len(one.pieces[-1].item.ids or one.pieces[-1].item.text) + one.pieces[-1].item.ends


def test_a_codec_without_probabilities_is_refused(pictures: Path) -> None:
    model = both(pictures)
    examples = examples_of(pictures, model, n=1, plugins=plugins_with_grid())
    with pytest.raises(UserError, match="the codec of stream 'grid' gives no probabilities"):
        log_weights(model.prior, model.codecs, examples)


@torch.no_grad()
def test_an_untrained_exit_is_the_normal_density(folder: Path) -> None:
    """A prior whose velocity is zero leaves every latent where it is: log p(z) is that of N(0, I) with any probe."""
    model = colatent.load(folder)
    for linear in (model.prior.exit["text"], model.prior.exit_modulation["text"]):
        linear.weight.zero_()
        linear.bias.zero_()
    examples = examples_of(folder, model, n=2)
    for probe in ("rademacher", "gaussian", "exact"):
        for one in log_weights(model.prior, model.codecs, examples, samples=64, solve=Solve(steps=1, probe=probe)):
            (record,) = model.codecs["text"].encode([one_item(examples, one.key)])
            second = (record.mean_LC.square() + record.logvar_LC.exp()).sum()
            expected = -0.5 * float(second) - 0.5 * record.mean_LC.numel() * math.log(2 * math.pi)
            spread = float(one.prior_MK.sum(-1).std()) / 8
            assert float(one.prior_MK.sum(-1).mean()) == pytest.approx(expected, abs=4 * spread)


def one_item(examples: list[Any], key: str) -> Any:
    return next(one.pieces[0].item for one in examples if one.key == key)
