"""`init: RUN`: before its first step, a run that starts from another's weights is that run, whatever it adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import colatent
from colatent.checkpoint.codecs import read_facts
from colatent.config import load
from colatent.errors import UserError
from colatent.flow.objective import velocity_errors
from colatent.latents.packing import pack
from colatent.prior.dit import Prior
from colatent.train.codecs import build_codecs
from colatent.train.prepare import Run, prepare
from colatent.train.sequences import build_sequences
from colatent.train.starting import build_prior
from plugins_for_tests.grid import plugins_with_grid
from plugins_for_tests.runs import TEXT, changed, last, metrics, run


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-only run."""
    return run(TEXT, tmp_path_factory.mktemp("text") / "run", plugins=plugins_with_grid())


def with_grid(origin: Path, **prior: Any) -> dict[str, Any]:
    """The text run's config with pictures beside it."""
    tree = changed(TEXT, streams__grid={"codec": "grid"}, init=str(origin), prior=TEXT["prior"] | prior)
    return changed(tree, data__sources__captions={"dataset": "captions", "config": {"size": 4}})


def built(tree: dict[str, Any], folder: Path) -> tuple[Run, Prior]:
    """A run as it stands before its first step, and its prior."""
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    prepared = prepare(load(folder / "config.yaml").config, plugins_with_grid())
    build_codecs(prepared)
    return prepared, build_prior(prepared).prior


def test_text_alone_goes_on_where_it_was(text: Path, tmp_path: Path) -> None:
    tree = changed(TEXT, init=str(text), stages={"prior": TEXT["stages"]["prior"]})
    again = run(tree, tmp_path / "again", plugins=plugins_with_grid())
    first = next(record["eval"] for record in metrics(again) if "eval" in record)
    assert first == [record["eval"] for record in metrics(text) if record["stage"] == "prior" and "eval" in record][-1]
    assert read_facts(last(again, "prior"), "text") == read_facts(last(text, "prior"), "text")


def test_a_prior_looks_back_as_far_as_before(text: Path, tmp_path: Path) -> None:
    """Also where it is trained on with shorter sequences."""
    before = colatent.load(text, plugins=plugins_with_grid()).window
    shorter = changed(TEXT, init=str(text), stages={"prior": TEXT["stages"]["prior"]}, data__length=8)
    again = run(shorter, tmp_path / "again", plugins=plugins_with_grid())
    assert before > 8
    assert colatent.load(again, plugins=plugins_with_grid()).window == before


@pytest.mark.parametrize("prior", [{}, {"layers": 1, "dual_layers": 1}, {"layers": 3}], ids=["", "dual", "deeper"])
def test_a_new_stream_leaves_text_as_it_was(prior: dict[str, int], text: Path, tmp_path: Path) -> None:
    prepared, grown = built(with_grid(text, **prior), tmp_path)
    before = colatent.load(text, plugins=plugins_with_grid()).prior
    kept = grown.state_dict()
    if not prior:
        assert all(torch.equal(kept[name], value) for name, value in before.state_dict().items())
    assert any("grid" in name for name in kept)
    flow, segments = prepared.config.flow, prepared.sources.segments
    drawn = prepared.sources.held(4, seed=0)["counting"]
    streams = {"text": prepared.streams["text"]}
    batch = pack(build_sequences(drawn, streams=streams, segments=segments, flow=flow, seed=0))
    with torch.no_grad():
        found, expected = (velocity_errors(network, batch)["text"][0] for network in (grown, before))
    assert torch.equal(found, expected)
    assert float(expected.std()) > 0


def test_only_what_is_new_trains_its_codec(text: Path, tmp_path: Path) -> None:
    grown = run(with_grid(text, dual_layers=1, layers=1), tmp_path / "grown", plugins=plugins_with_grid())
    checkpoint = last(grown, "prior")
    assert read_facts(checkpoint, "text").hash == read_facts(last(text, "codec"), "text").hash
    assert read_facts(checkpoint, "grid").trained
    assert set(metrics(grown)[1]) >= {"grid/reconstruction", "grid/kl"}
    assert "text/kl" not in metrics(grown)[1]
    alone = run(changed(TEXT, init=str(grown), prior__dual_layers=1, prior__layers=1), tmp_path / "alone")
    assert colatent.load(alone).codecs.keys() == {"text"}


@pytest.mark.parametrize("prior", [{}, {"layers": 1, "dual_layers": 1}], ids=["shared", "dual"])
def test_dropping_a_stream_leaves_the_rest_as_it_was(prior: dict[str, int], text: Path, tmp_path: Path) -> None:
    tree = changed(with_grid(text, **prior), stages__prior__steps=3)
    mixed = run(tree, tmp_path / "mixed", plugins=plugins_with_grid())
    without = changed(TEXT, init=str(mixed), prior=TEXT["prior"] | prior)
    of, kept = built(without, tmp_path)
    before = colatent.load(mixed, plugins=plugins_with_grid()).prior.state_dict()
    after = kept.state_dict()
    assert set(before) - set(after) == {name for name in before if ".grid." in name} != set()
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert of.facts["text"] == read_facts(last(mixed, "prior"), "text")


@pytest.mark.parametrize(
    ("prior", "line"),
    [
        ({"layers": 1}, r"^init: this prior has no place for layers\.1\.branches\.shared\."),
        ({"heads": 1}, r"^prior\.heads: is 1, this was built with 2"),
        ({"width": 32}, r"^prior\.width: is 32, this was built with 16"),
    ],
)
def test_what_does_not_fit_is_refused(prior: dict[str, int], line: str, text: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        built(with_grid(text, **prior), tmp_path)


def test_init_over_another_codec_is_refused(text: Path, tmp_path: Path) -> None:
    other = run(changed(TEXT, seed=1, stages={"codec": TEXT["stages"]["codec"]}), tmp_path / "other")
    with pytest.raises(UserError, match=r"trained on another codec for stream 'text'"):
        built(changed(with_grid(text), streams__text__weights=str(other)), tmp_path)
    with pytest.raises(UserError, match=r"streams\.text\.config\.width: is 32, this was built with 16"):
        built(changed(with_grid(text), streams__text__config__width=32), tmp_path)
    with pytest.raises(UserError, match=r"missing: does not exist"):
        built(changed(TEXT, init=str(tmp_path / "missing")), tmp_path)
