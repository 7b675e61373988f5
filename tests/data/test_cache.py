"""Training on a latent cache is training on the fly: to the bit in the epochs that were encoded, as close as rounding
elsewhere. How a cache is made does not show in it: at once, in pieces, or by several processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from colatent.data.cache import read_index
from colatent.plugins import PluginSet
from colatent.plugins.contract import Encoded
from colatent.train.encoding import Share, encode
from colatent.train.interrupts import Interrupted
from colatent.train.spread import in_passes
from plugins_for_tests import grid, grid_codec
from plugins_for_tests.cached_runs import FixedCaptions, drawn, every_draw, made, opened, pictures, settings, words
from plugins_for_tests.grid import plugins_with_grid
from plugins_for_tests.runs import assert_same_run, changed, metrics, run
from plugins_for_tests.stops import StopsAt

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return words(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def plugins() -> PluginSet:
    return plugins_with_grid()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, plugins: PluginSet) -> Tree:
    return pictures(tmp_path_factory.mktemp("mixed"), plugins)


@pytest.fixture(scope="module")
def whole(texts: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two draws of every sample of the texts, encoded at once."""
    return made(texts, tmp_path_factory.mktemp("whole") / "cache", draws=2)


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in metrics(folder) if "loss" in record]


def cached(tree: Tree, cache: Path) -> Tree:
    return changed(tree, data__cache=str(cache))


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2, "batch": 11}, {"precision": "bf16"}])
def test_training_on_a_cache_is_training_on_the_fly(changes: Tree, texts: Tree, tmp_path: Path) -> None:
    tree = changed(texts, stages__prior={**texts["stages"]["prior"], "steps": 15, **changes})
    cache = made(tree, tmp_path / "cache", draws=2)
    assert_same_run(run(tree, tmp_path / "fly"), run(cached(tree, cache), tmp_path / "cached"), stages=("prior",))


def test_it_is_with_several_streams_and_sources(mixed: Tree, plugins: PluginSet, tmp_path: Path) -> None:
    tree = changed(mixed, stages__prior__draw="step", data__sources__paint__batch=3)
    cache = made(tree, tmp_path / "cache", draws=4, plugins=plugins)
    fly = run(tree, tmp_path / "fly", plugins=plugins)
    assert_same_run(fly, run(cached(tree, cache), tmp_path / "cached", plugins=plugins), stages=("prior",))


def test_a_step_is_encoded_in_the_passes_of_training(
    mixed: Tree, plugins: PluginSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_grid, sizes = grid_codec.GridCodec.encode, list[int]()

    def counted(self: Any, items: Any, **more: Any) -> list[Encoded]:
        sizes.append(len(items))
        return encode_grid(self, items, **more)

    monkeypatch.setattr(grid_codec.GridCodec, "encode", counted)
    made(
        changed(mixed, stages__prior__accumulate=2),
        tmp_path / "cache",
        "stages.prior.batch=5",
        draws=1,
        plugins=plugins,
    )
    assert [size for size in sizes if size > 1] == [len(some) for some in in_passes(range(5), 2)] * 4


def test_it_is_close_where_a_step_mixes_sources(mixed: Tree, plugins: PluginSet, tmp_path: Path) -> None:
    cache = made(mixed, tmp_path / "cache", draws=4, plugins=plugins)
    fly = losses(run(mixed, tmp_path / "fly", plugins=plugins))
    there = losses(run(cached(mixed, cache), tmp_path / "cached", plugins=plugins))
    assert there == pytest.approx(fly, rel=1e-5)


def test_a_run_on_a_cache_is_resumed_to_the_same(texts: Tree, whole: Path, tmp_path: Path) -> None:
    tree = cached(texts, whole)
    uninterrupted, folder = run(tree, tmp_path / "whole"), tmp_path / "run"
    with pytest.raises(Interrupted):
        run(tree, folder, reporter=StopsAt("prior", 3, signal.SIGTERM))
    assert_same_run(uninterrupted, run(tree, folder, resume=True), stages=("prior",))


def test_an_epoch_takes_one_of_the_draws_by_turns(texts: Tree, whole: Path) -> None:
    reader = opened(whole)
    first, second, third = (reader.records("text", [drawn("counting", 7, epoch)])[0] for epoch in (0, 1, 2))
    assert torch.equal(first.mean_LC, third.mean_LC)
    assert first.mean_LC.shape != second.mean_LC.shape or not torch.equal(first.mean_LC, second.mean_LC)


def test_draws_that_will_repeat_are_told(texts: Tree, tmp_path: Path) -> None:
    cache = made(texts, tmp_path / "cache", draws=1)
    tree = changed(cached(texts, cache), stages__prior__steps=30)
    line = r"source 'counting' has draws of each sample in .*cache: 1, and epochs in stage prior: 3, so draws repeat"
    with pytest.warns(UserWarning, match=line):
        run(tree, tmp_path / "run")


def test_samples_that_never_vary_are_encoded_once(
    mixed: Tree, plugins: PluginSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "Captions", FixedCaptions)
    tree = changed(mixed, stages__prior__steps=12)
    cache = made(tree, tmp_path / "cache", plugins=plugins)
    assert {source.draws for source in read_index(cache).plan.sources.values()} == {1}
    for seed in ("seed=0", "seed=5"):  # which the samples do not hang on
        fly = losses(run(tree, tmp_path / f"fly-{seed}", seed, plugins=plugins))
        there = losses(run(cached(tree, cache), tmp_path / seed, seed, plugins=plugins))
        assert there == pytest.approx(fly, rel=1e-5)


def test_neither_samples_nor_codecs_are_asked_at_a_step(
    mixed: Tree, plugins: PluginSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = changed(mixed, flow__ragged=0.0)
    cache, asked = made(tree, tmp_path / "cache", draws=4, plugins=plugins), []
    encode_grid, sample = grid_codec.GridCodec.encode, grid.Captions.sample

    def counted(self: Any, items: Any, **more: Any) -> list[Encoded]:
        asked.append(None)
        return encode_grid(self, items, **more)

    def read(self: Any, *place: Any) -> Any:
        asked.append(None)
        return sample(self, *place)

    monkeypatch.setattr(grid_codec.GridCodec, "encode", counted)
    monkeypatch.setattr(grid.Captions, "sample", read)
    counts = []
    for steps in (2, 6):
        asked.clear()
        run(cached(tree, cache), tmp_path / f"run-{steps}", f"stages.prior.steps={steps}", plugins=plugins)
        counts.append(len(asked))
    assert counts[0] == counts[1]


# How a cache is made.


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_encoding_goes_on_to_the_same(
    how: signal.Signals, texts: Tree, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 60 and not any((tmp_path / "cache").glob("shard-*")):
            os.kill(os.getpid(), how)

    config = settings(texts, tmp_path)
    with pytest.raises(Interrupted) as stopped:
        encode(config, tmp_path / "cache", draws=2, progress=stop)
    assert stopped.value.code == {signal.SIGINT: 130, signal.SIGTERM: 75}[how]
    assert "the same command goes on" in capsys.readouterr().out
    encode(config, tmp_path / "cache", draws=2)
    assert every_draw(tmp_path / "cache") == every_draw(whole)


def test_one_that_was_killed_encodes_no_whole_shard_again(texts: Tree, whole: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done >= 90:
            raise KilledError

    config, folder = settings(texts, tmp_path), tmp_path / "cache"
    with pytest.raises(KilledError):
        encode(config, folder, draws=2, shard_bytes=30_000, progress=kill)
    (folder / ".tmp-shard-000-000000000006.safetensors-1-ab").write_bytes(b"half")
    before = {path.name: path.stat().st_ino for path in folder.glob("shard-*")}
    assert before
    encode(config, folder, draws=2, shard_bytes=30_000)
    assert {name: (folder / name).stat().st_ino for name in before} == before
    assert not list(folder.glob(".tmp-*"))
    assert every_draw(folder) == every_draw(whole)


def test_several_processes_make_the_same(texts: Tree, whole: Path, tmp_path: Path) -> None:
    config, folder = settings(texts, tmp_path), tmp_path / "cache"
    for rank in (2, 0, 1):
        index = encode(config, folder, draws=2, share=Share(rank=rank, world=3))
        assert (index is not None) == (rank == 1)
    assert every_draw(folder) == every_draw(whole)
    assert len(read_index(folder).shards) == 3


def test_shards_have_the_size_that_was_asked_for(texts: Tree, whole: Path, tmp_path: Path) -> None:
    cache = made(texts, tmp_path / "cache", draws=2, shard_bytes=20_000)
    sizes = [shard.size for shard in read_index(cache).shards]
    assert len(sizes) > 3
    assert max(sizes) < 20_000 + 12 * 2_500 + 2_500  # a step of 12 samples and the header more
    assert every_draw(cache) == every_draw(whole)
