"""A cache of other codecs, data or settings, one that is not whole, one that is damaged: each is refused in one line
that says what, where and what to do, before anything is written; and nothing that lies in it is ever run."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colatent.checkpoint.tensors import safetensors_chunks
from colatent.cli.main import main
from colatent.data.cache import INDEX, PLAN, check_fits, read_index, shard_path, write_index
from colatent.errors import UserError
from colatent.train.encoding import encode
from colatent_text.datasets import Counting
from plugins_for_tests import grid
from plugins_for_tests.cached_runs import FixedCaptions, made, pictures, settings, words
from plugins_for_tests.grid import plugins_with_grid
from plugins_for_tests.runs import changed, run

Tree = dict[str, Any]
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return words(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def whole(texts: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(texts, tmp_path_factory.mktemp("whole") / "cache", draws=1)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the cache, to be broken."""
    return Path(shutil.copytree(whole, tmp_path / "cache"))


def refused(tree: Tree, cache: Path, folder: Path, *overrides: str) -> str:
    """The one line by which a run on this cache is refused."""
    with pytest.raises(UserError) as error:
        run(changed(tree, data__cache=str(cache)), folder / "run", *overrides)
    assert not (folder / "run").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("data.length=8", ["data.length: is 8", "were cut to 16", "put it back"]),
        ("seed=3", ["seed: is 3", "'counting'", "were drawn with 0"]),
        ("data.sources.counting.config.window=40", ["data.sources.counting.config.window: is 40", "with 48"]),
        ("data.sources.counting.dataset=unicode-names", ["data.sources.counting.dataset", '"counting"']),
        ("data.sources.more.dataset=unicode-names", ["data.sources.more: is not in", "encode again"]),
    ],
)
def test_other_data_are_refused(override: str, parts: list[str], texts: Tree, whole: Path, tmp_path: Path) -> None:
    if override.startswith("data.sources.counting.dataset"):
        texts = changed(texts, data__sources__counting__config={})
    line = refused(texts, whole, tmp_path, override)
    assert all(part in line for part in parts), line


def test_another_codec_is_refused(texts: Tree, whole: Path, tmp_path: Path) -> None:
    other = run(changed(words_alone(texts), seed=9), tmp_path / "other")
    line = refused(changed(texts, streams__text__weights=str(other)), whole, tmp_path)
    assert line.startswith(f"data.cache ({whole}): was encoded by another codec for stream 'text' (")
    assert "streams.text.weights" in line


def test_another_field_or_stream_is_refused(whole: Path) -> None:
    plan = read_index(whole).plan
    moved = plan.streams["text"].model_copy(update={"field": "caption"})
    with pytest.raises(UserError, match=r"^streams\.text\.field: is 'caption', the items in .* were read from 'text';"):
        check_fits(plan, plan.model_copy(update={"streams": {"text": moved}}), folder=whole)
    with pytest.raises(UserError, match=r"^data\.cache \(.*\): has no latents of stream 'sound'; encode again"):
        check_fits(plan, plan.model_copy(update={"streams": {"sound": moved}}), folder=whole)


def words_alone(tree: Tree) -> Tree:
    """The same with a codec to be trained, and no prior."""
    return changed(tree, stages={"codec": {"steps": 2, "batch": 4, "eval_every": 0}}, streams__text__weights=None)


def test_a_codec_that_is_yet_to_be_trained_is_refused(texts: Tree, whole: Path, tmp_path: Path) -> None:
    both = {"codec": words_alone(texts)["stages"]["codec"], **texts["stages"]}
    line = refused(changed(texts, stages=both, streams__text__weights=None), whole, tmp_path)
    assert line.startswith("data.cache: is of codecs that are trained, and that of stream 'text' is not;")


def test_a_cache_that_no_stage_reads_is_refused(texts: Tree, tmp_path: Path) -> None:
    line = refused(words_alone(texts), tmp_path, tmp_path)
    assert "data.cache has no effect without stages.prior" in line


def test_data_that_changed_under_their_name_are_refused(
    texts: Tree, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Counting.sample
    monkeypatch.setattr(Counting, "sample", lambda self, index, rng: sample(self, index, np.random.default_rng(1)))
    line = refused(texts, whole, tmp_path)
    assert "sample counting/0 no longer gives the latents of stream 'text' that are there; encode again" in line


# Damage.


def shard_of(cache: Path) -> Path:
    index = read_index(cache)
    return shard_path(cache, index.plan, index.shards[0].source, index.shards[0].start)


def flip(cache: Path) -> None:
    data = bytearray(shard_of(cache).read_bytes())
    data[-100] ^= 1
    shard_of(cache).write_bytes(data)


def cut(cache: Path) -> None:
    shard_of(cache).write_bytes(shard_of(cache).read_bytes()[:-1])


def reworded(cache: Path) -> None:
    text = (cache / INDEX).read_text()
    (cache / INDEX).write_text(text.replace('"draws": 1', '"draws": 2'))


def shortened(cache: Path) -> None:
    """Sealed again, as a careful forger would."""
    index = read_index(cache)
    write_index(cache, index.model_copy(update={"shards": ()}))


def of_no_source(cache: Path) -> None:
    index = read_index(cache)
    stray = index.shards[0].model_copy(update={"source": "../elsewhere"})
    write_index(cache, index.model_copy(update={"shards": (stray,)}))


def newer(cache: Path) -> None:
    index = read_index(cache)
    write_index(cache, index.model_copy(update={"plan": index.plan.model_copy(update={"format": 2})}))


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (flip, [".safetensors: does not match the hash", "damaged"]),
        (cut, [".safetensors: has ", "bytes", "damaged"]),
        (lambda cache: shard_of(cache).unlink(), [".safetensors: is missing", "damaged"]),
        (reworded, [f"{INDEX}: does not match its own hash", "damaged"]),
        (shortened, ["lacks 150 samples of source 'counting'", "damaged"]),
        (of_no_source, [f"{INDEX}: has a shard of source '../elsewhere', which the plan has not"]),
        (newer, [f"{INDEX}: written by format 2, this colatent reads 1"]),
        (lambda cache: (cache / INDEX).write_bytes(b"\xff{"), [f"{INDEX}: cannot be read as JSON", "damaged"]),
        (lambda cache: (cache / INDEX).write_text("[]"), [f"{INDEX}: is no index of a cache"]),
        (lambda cache: (cache / INDEX).unlink(), ["was not encoded to the end", "run the same colatent encode again"]),
        (shutil.rmtree, ["is no latent cache: it has no cache.json", "colatent encode"]),
    ],
)
def test_a_damaged_cache_is_refused(damage: Damage, parts: list[str], texts: Tree, copy: Path, tmp_path: Path) -> None:
    damage(copy)
    line = refused(texts, copy, tmp_path)
    assert str(copy) in line
    assert all(part in line for part in parts), line


def resealed(cache: Path, data: bytes) -> None:
    """Put other bytes in the place of the shard, with an index that says they belong there."""
    from colatent.checkpoint.storage import hash_file

    path, index = shard_of(cache), read_index(cache)
    path.write_bytes(data)
    known = {"size": len(data), "sha256": hash_file(path)}
    write_index(cache, index.model_copy(update={"shards": (index.shards[0].model_copy(update=known),)}))


class Planted:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("planted").touch, ())


def test_a_pickle_in_the_place_of_a_shard_never_runs(texts: Tree, copy: Path, in_tmp: Path) -> None:
    for data in (pickle.dumps(Planted()), b"".join(safetensors_chunks({"index": torch.zeros(150)}))):
        resealed(copy, data)
        line = refused(texts, copy, in_tmp)
        assert str(shard_of(copy)) in line
        assert "damaged" in line
    assert not Path("planted").exists()


def test_records_that_do_not_fit_together_are_refused(texts: Tree, copy: Path, tmp_path: Path) -> None:
    from colatent.checkpoint.tensors import read_safetensors

    tensors = {name: tensor.clone() for name, tensor in read_safetensors(shard_of(copy)).items()}
    wrong = {
        "text.lengths": 0 * tensors["text.lengths"],
        "text.blocks": tensors["text.blocks"].flip(0) + torch.arange(len(tensors["text.blocks"])) % 2,
        "text.counts": -tensors["text.counts"],
        "index": tensors["index"] + 150,
        "draw": tensors["draw"].float(),
    }
    for name, tensor in wrong.items():
        resealed(copy, b"".join(bytes(chunk) for chunk in safetensors_chunks({**tensors, name: tensor})))
        assert "damaged" in refused(texts, copy, tmp_path)


# Encoding.


def test_sources_that_draw_anew_ask_for_draws(texts: Tree, tmp_path: Path) -> None:
    line = r"^data\.sources\.counting: its samples are drawn anew in every epoch \(epochs in stage prior: 1\); pass --d"
    with pytest.raises(UserError, match=line):
        encode(settings(texts, tmp_path), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_source_that_draws_anew_only_now_and_then_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rare(FixedCaptions):
        def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
            if index == 3:
                rng.random()
            return super().sample(index, rng)

    tree = pictures(tmp_path, plugins_with_grid())
    tree = changed(tree, data__sources__paint__config={"size": 40}, data__sources__describe__config={"size": 40})
    monkeypatch.setattr(grid, "Captions", Rare)
    with pytest.raises(UserError, match=r"^data\.sources\.paint: some of its samples are drawn anew in every"):
        encode(settings(tree, tmp_path), tmp_path / "cache", plugins=plugins_with_grid())


def test_an_untrained_codec_and_a_config_without_a_prior_are_refused(texts: Tree, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^streams\.text: its codec was never trained"):
        encode(settings(changed(texts, streams__text__weights=None), tmp_path), tmp_path / "cache", draws=1)
    with pytest.raises(UserError, match=r"^stages: has no stage prior"):
        encode(settings(words_alone(texts), tmp_path), tmp_path / "cache", draws=1)


def test_a_folder_of_something_else_is_left_as_it_is(texts: Tree, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"full: is not empty and no latent cache \(it has letter\.txt\)"):
        encode(settings(texts, tmp_path), tmp_path / "full", draws=1)
    before = {path: path.read_bytes() for path in copy.iterdir()}
    for file in (INDEX, PLAN):  # finished, and under way
        with pytest.raises(UserError, match=r"^encoding\.sources\.counting\.draws: is 2, this was built with 1;"):
            encode(settings(texts, tmp_path), copy, draws=2)
        assert {path: path.read_bytes() for path in before if path.exists()}.items() <= before.items()
        (copy / file).unlink()
    with pytest.raises(UserError, match=r"is not empty and no latent cache"):
        encode(settings(texts, tmp_path), copy, draws=1)


def test_a_shard_of_another_cache_is_refused(texts: Tree, copy: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    with pytest.raises(ZeroDivisionError):
        encode(settings(texts, tmp_path), there, draws=2, progress=lambda done, total: 1 // 0)
    shutil.copy(shard_of(copy), there)
    with pytest.raises(UserError, match=r"is a shard of another cache; remove it, and encode again"):
        encode(settings(texts, tmp_path), there, draws=2)


# The command.


def test_the_command_says_what_there_is(
    texts: Tree, in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(texts, in_tmp, "name=x")
    command = ["encode", "settings.yaml", "data.cache=latents", "--draws", "1", "--json"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, complete in (("1", False), ("0", True), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        assert main(command) == 0
        printed = capsys.readouterr()
        facts = json.loads(printed.out)
        assert facts["complete"] == complete
    assert (facts["cache"], facts["samples"], facts["shards"]) == ("latents", 150, 2)
    assert facts["bytes"] == sum(path.stat().st_size for path in Path("latents").glob("shard-*"))


def test_the_command_takes_a_run_with_its_codecs(texts: Tree, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(changed(texts, stages__prior__steps=1), in_tmp / "run")
    assert main(["encode", "run", "--out", "latents", "--draws", "1", "--quiet"]) == 0
    assert read_index(Path("latents")).plan.streams["text"].codec == "text"
    run(changed(texts, data__cache="latents"), in_tmp / "next")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--draws", "1"], "--out: does not say where to write; pass --out DIR, or set data.cache"),
        (["--out", "x", "--rank", "2", "--world", "2"], "--rank: is 2 of 2 processes; count from 0"),
        (["--out", "x", "seeed=1"], "settings.yaml: seeed: unknown key; did you mean seed?"),
    ],
)
def test_the_command_complains_in_one_line(
    arguments: list[str], line: str, texts: Tree, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(texts, in_tmp)
    assert main(["encode", "settings.yaml", *arguments]) == 2
    assert capsys.readouterr().err == f"colatent: {line}\n"
