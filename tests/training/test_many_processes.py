"""Two processes train what one trains: the same steps, one checkpoint for both, and one end for all."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from colatent.evaluate.run_facts import run_facts
from colatent.generate.model import load
from colatent.train.interrupts import Interrupted
from plugins_for_tests import grid_codec
from plugins_for_tests.cached_runs import made
from plugins_for_tests.grid import CONFIG, plugins_with_grid
from plugins_for_tests.ranks import Asked, Ended, StillGrid, both
from plugins_for_tests.runs import assert_same_checkpoint, changed, last, metrics, run
from plugins_for_tests.stops import StopsAt

STAGE = {"steps": 20, "batch": 5, "log_every": 1, "eval_every": 0, "save_every": 1000, "warmup": 5, "ema": 0.9}
SOURCES = {
    name: {"dataset": "captions", "config": {"size": 8}, "segments": [{"stream": one} for one in order]}
    for name, order in {
        "paint": ("text", "grid"),
        "describe": ("grid", "text"),
        "write": ("text",),
        "draw": ("grid",),
    }.items()
}
TREE = changed(
    CONFIG,
    device="cpu",
    data__sources=SOURCES,
    stages={"codec": {**STAGE, "lr": 1e-2}, "prior": {**STAGE, "lr": 5e-3}},
)
"""Shares of three and of two samples, often without one of the streams. Text is masked, as by default."""
EPOCHS = 8
"""As many as any source is read in stage prior."""
BROKEN = 5
"""A sample whose picture is no number to the second process."""


def over(folder: Path, name: str = "prior", tree: dict[str, Any] = TREE, **stage: Any) -> dict[str, Any]:
    """One stage over the codecs of another run."""
    weights = {f"streams__{one}__weights": str(folder) for one in tree["streams"]}
    return changed({**tree, "stages": {name: {**tree["stages"]["prior"], **stage}}}, **weights)


def by_turns(folder: Path, *, reference: float = 0.05, **stage: Any) -> dict[str, Any]:
    """Stage joint, in which a part stands still while the other moves."""
    return {**over(folder, "joint", **stage), "joint": {"regime": "interval", "interval": 3, "reference": reference}}


CUT = 7
"""The step after which runs are stopped."""
SHARDED: dict[str, Any] = {"parallel": "fsdp", "accumulate": 2}
CENTRED = changed(TREE, streams__grid__config={"centred": True})
"""A codec with running statistics, of what each process has seen."""
TASKS: dict[str, Any] = {"draw": "step", "accumulate": 2, "batch": 6}
"""Each step is of one source, in two passes of each process."""
BUDGET: dict[str, Any] = {"batch": 16, "budget": 80, "accumulate": 2}
"""Steps of five to ten samples; a sequence has 17 latents at most."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """The run in one process; a copy of it was stopped on the way."""
    stops = StopsAt("prior", CUT, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(TREE, folder / "alone", plugins=plugins_with_grid(), reporter=stops)
    shutil.copytree(folder / "alone", folder / "one then two")
    return run(TREE, folder / "alone", plugins=plugins_with_grid(), resume=True)


@pytest.fixture(scope="module")
def ended(folder: Path, alone: Path) -> dict[str, Ended]:
    """All runs of two processes."""
    whole, stop, shared = folder / "whole", (1, "prior", CUT), changed(TREE, stages__prior__parallel="fsdp")
    for at, draws in (("here", EPOCHS), ("there", 1)):
        made(over(alone), folder / at / "cache", draws=draws, plugins=plugins_with_grid())
    shared_by_turns = by_turns(whole, reference=0.0, **SHARDED)
    here, there = str(folder / "here"), str(folder / "there")
    cached = changed(over(alone), data__cache="cache")
    asked = {
        "whole": Asked(tree=TREE, out=whole),
        "tasks": Asked(tree=over(whole, **TASKS), out=folder / "tasks"),
        "budget": Asked(tree=over(whole, **BUDGET), out=folder / "budget"),
        "budget in shares": Asked(tree=over(whole, **BUDGET, parallel="fsdp"), out=folder / "budget shares"),
        "stopped": Asked(tree=over(whole), out=folder / "cut", stop=stop),
        "resumed": Asked(tree=over(whole), out=folder / "cut", resume=True),
        "sharded": Asked(tree=over(whole, **SHARDED), out=folder / "sharded"),
        "sharded and stopped": Asked(tree=over(whole, **SHARDED), out=folder / "shards", stop=stop),
        "stopped again": Asked(tree=over(whole, **SHARDED), out=folder / "shards again", stop=stop),
        "sharded again": Asked(tree=over(whole, **SHARDED), out=folder / "shards again", resume=True),
        "sharded no more": Asked(tree=over(whole, accumulate=2), out=folder / "shards", resume=True),
        "by turns": Asked(tree=by_turns(whole), out=folder / "by turns"),
        "shared by turns": Asked(tree=shared_by_turns, out=folder / "shared by turns", frozen=True),
        "shared and stopped": Asked(tree=shared_by_turns, out=folder / "turn", frozen=True, stop=(0, "joint", CUT)),
        "shared again": Asked(tree=shared_by_turns, out=folder / "turn", frozen=True, resume=True),
        "centred": Asked(tree=CENTRED, out=folder / "centred"),
        "centred again": Asked(tree=over(folder / "centred", tree=CENTRED), out=folder / "centred again"),
        "read ahead": Asked(tree=changed(over(whole), data__workers=1), out=folder / "read ahead"),
        "cached": Asked(tree=cached, out=folder / "cached", at=(here, here)),
        "one then two": Asked(tree=shared, out=folder / "one then two", resume=True),
        "plugins": Asked(tree=TREE, out=folder / "none", version=("1", "2")),
        "settings": Asked(tree=TREE, out=folder / "none", more=((), ("seed=1",))),
        "apart": Asked(tree=over(whole, **SHARDED), out=Path("run"), at=(here, there)),
        "caches": Asked(tree=cached, out=folder / "none", at=(here, there)),
        "taken": Asked(tree=TREE, out=whole),
        "poisoned": Asked(tree=TREE, out=folder / "poisoned", poison=BROKEN),
        "skipping": Asked(tree=over(whole, skip=20), out=folder / "skipping", poison=BROKEN),
        "skipping in shares": Asked(tree=over(whole, **SHARDED, skip=20), out=folder / "skipped", poison=BROKEN),
    }
    return dict(zip(asked, both(list(asked.values()), folder), strict=True))


def assert_close(one: Path, other: Path, stage: str) -> None:
    """Every number that both logged of a stage, to float32's rounding."""
    mine, theirs = ([record for record in metrics(path) if record["stage"] == stage] for path in (one, other))
    assert [record["step"] for record in mine if "loss" in record] == list(range(1, 21))
    for a, b in zip(mine, theirs, strict=True):
        assert a.keys() == b.keys()
        for name, value in {**a, **a.get("eval", {})}.items():
            if isinstance(value, float):
                assert {**b, **b.get("eval", {})}[name] == pytest.approx(value, rel=1e-5), (stage, a["step"], name)


def copy_as_stopped(folder: Path, copy: Path) -> Path:
    """The run as it was when it was stopped."""
    shutil.copytree(folder, copy)
    shutil.rmtree(last(copy, "prior").path)
    assert last(copy, "prior").step == CUT
    return copy


@pytest.mark.parametrize("stage", ["codec", "prior"])
def test_two_processes_train_what_one_trains(folder: Path, ended: dict[str, Ended], alone: Path, stage: str) -> None:
    assert ended["whole"].ends == ["", ""]
    assert_close(alone, folder / "whole", stage)


def test_so_do_two_that_draw_each_step_from_one_source(folder: Path, ended: dict[str, Ended]) -> None:
    """In two passes each: what a process adds up before the last one is not lost."""
    assert ended["tasks"].ends == ["", ""]
    one = run(over(folder / "whole", **TASKS), folder / "task", plugins=plugins_with_grid())
    assert_close(one, folder / "tasks", "prior")


def test_so_do_two_with_a_budget_of_latents(folder: Path, ended: dict[str, Ended]) -> None:
    assert ended["budget"].ends == ended["budget in shares"].ends == ["", ""]
    one = run(over(folder / "whole", **BUDGET), folder / "one budget", plugins=plugins_with_grid())
    assert_close(one, folder / "budget", "prior")
    assert_close(one, folder / "budget shares", "prior")
    position = [last(path, "prior").document("state")["data"] for path in (one, folder / "budget")]
    assert position[0] == position[1]


def test_so_do_two_that_hold_a_share_of_the_weights(folder: Path, ended: dict[str, Ended]) -> None:
    """Also where one of them has no item of a stream in a pass."""
    assert ended["sharded"].ends == ["", ""]
    assert_close(folder / "whole", folder / "sharded", "prior")


def test_so_do_two_whose_parts_move_by_turns(folder: Path, ended: dict[str, Ended]) -> None:
    assert ended["by turns"].ends == ["", ""]
    one = run(by_turns(folder / "whole"), folder / "by turn", plugins=plugins_with_grid())
    assert_close(one, folder / "by turns", "joint")


def test_so_do_two_that_hold_shares_of_the_prior_that_codecs_move_with(
    folder: Path, ended: dict[str, Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One codec moves and one cannot: of a standing prior, a process needs gradients that has nothing to give them."""
    assert ended["shared by turns"].ends == ["", ""]
    monkeypatch.setattr(grid_codec, "GridCodec", StillGrid)
    tree = by_turns(folder / "whole", reference=0.0, accumulate=2)
    one = run(tree, folder / "shared by turn", plugins=plugins_with_grid())
    assert_close(one, folder / "shared by turns", "joint")


def test_those_go_on_too_from_what_they_saved(folder: Path, ended: dict[str, Ended]) -> None:
    assert (ended["shared and stopped"].ends, ended["shared again"].ends) == (["75", "75"], ["", ""])
    assert_same_checkpoint(last(folder / "shared by turns", "joint"), last(folder / "turn", "joint"))


def test_so_do_two_whose_samples_are_read_ahead(folder: Path, ended: dict[str, Ended]) -> None:
    assert ended["read ahead"].ends == ["", ""]
    assert_same_checkpoint(last(folder / "whole", "prior"), last(folder / "read ahead", "prior"))


def test_so_do_two_on_a_latent_cache(folder: Path, ended: dict[str, Ended], alone: Path) -> None:
    """As one does that encodes in every step."""
    assert ended["cached"].ends == ["", ""]
    assert_close(alone, folder / "cached", "prior")


def test_two_share_the_running_statistics_that_are_saved(folder: Path, ended: dict[str, Ended]) -> None:
    """A prior that follows them in one run, and one in another, which reads them, see the same codec."""
    assert ended["centred"].ends == ended["centred again"].ends == ["", ""]
    assert_same_checkpoint(last(folder / "centred", "prior"), last(folder / "centred again", "prior"))


def test_a_signal_to_one_stops_both_at_one_step(ended: dict[str, Ended]) -> None:
    assert ended["stopped"].ends == ended["sharded and stopped"].ends == ended["stopped again"].ends == ["75", "75"]
    assert ended["stopped"].said[0].count("stopped by SIGTERM") == 4
    assert "stopped by SIGTERM" not in ended["stopped"].said[1]


def test_what_two_saved_two_go_on_from_to_the_bit(folder: Path, ended: dict[str, Ended]) -> None:
    assert ended["resumed"].ends == ["", ""]
    assert_same_checkpoint(last(folder / "whole", "prior"), last(folder / "cut", "prior"))


@pytest.mark.parametrize("saved", ["cut", "shards"])
def test_what_two_saved_one_goes_on_from(folder: Path, ended: dict[str, Ended], saved: str) -> None:
    copy = copy_as_stopped(folder / saved, folder / f"{saved} then one")
    run(over(folder / "whole"), copy, plugins=plugins_with_grid(), resume=True)
    assert_close(folder / "whole", copy, "prior")


def test_what_two_saved_in_shares_two_go_on_from_to_the_bit(folder: Path, ended: dict[str, Ended]) -> None:
    """Each has written a file of its own of each group."""
    assert ended["sharded again"].ends == ["", ""]
    one, other = last(folder / "sharded", "prior"), last(folder / "shards again", "prior")
    assert_same_checkpoint(one, other)
    counts = {name: len(files) for name, files in one.groups().items()}
    assert counts == {"prior": 2, "prior.ema": 2, "optimiser": 2, "codec.text": 1, "codec.grid": 1}


def test_a_model_that_two_saved_in_shares_generates(folder: Path, ended: dict[str, Ended]) -> None:
    one, other = (load(folder / name, plugins=plugins_with_grid()) for name in ("sharded", "whole"))
    weights = other.prior.state_dict()
    for name, value in one.prior.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0.0, atol=1e-4)
    assert one.generate("up 2x2", target="grid", seed=0).shape == (4, 4)
    assert run_facts(folder / "sharded").parameters == run_facts(folder / "whole").parameters


def test_where_a_share_is_lost_the_checkpoint_before_is_taken(
    folder: Path, ended: dict[str, Ended], capsys: pytest.CaptureFixture[str]
) -> None:
    copy = folder / "lost"
    shutil.copytree(folder / "shards again", copy)
    (last(copy, "prior").path / "prior.ema.shard-0001-of-0002.safetensors").unlink()
    run(over(folder / "whole"), copy, plugins=plugins_with_grid(), resume=True)
    said = capsys.readouterr().err
    assert "skipped step-00000020: " in said
    assert "prior.ema.shard-0001-of-0002.safetensors: is missing" in said
    assert_close(folder / "whole", copy, "prior")


def test_what_two_saved_in_shares_two_go_on_from_without(folder: Path, ended: dict[str, Ended]) -> None:
    assert ended["sharded no more"].ends == ["", ""]
    assert_close(folder / "whole", folder / "shards", "prior")


def test_what_one_saved_two_go_on_from_in_shares(folder: Path, ended: dict[str, Ended], alone: Path) -> None:
    assert ended["one then two"].ends == ["", ""]
    assert_close(alone, folder / "one then two", "prior")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("plugins", "torchrun: the set of plugins of process 1 is not that of process 0; start all with one command"),
        ("settings", "torchrun: the configuration of process 1 is not that of process 0; start all with one command"),
        ("apart", "run: process 1 does not see the run folder of process 0; choose an out= on a disk that all share"),
        ("caches", "torchrun: the latent cache of process 1 is not that of process 0; put it where all see the same"),
        ("taken", "already holds a run; use --resume or another out="),
        ("poisoned", "nothing was changed by this step; lower lr"),
    ],
)
def test_what_one_refuses_both_refuse(ended: dict[str, Ended], asked: str, said: str) -> None:
    first, second = ended[asked].ends
    assert said in first
    assert first == second


def test_only_the_samples_of_the_process_that_failed_are_named(ended: dict[str, Ended]) -> None:
    keys = ended["poisoned"].ends[0].split("on samples ")[1].split(", ...")[0].split(", ")
    assert any(key.endswith(f"/{BROKEN}") for key in keys)
    assert len(keys) == TREE["stages"]["codec"]["batch"] // 2


def test_both_skip_what_one_has_broken(folder: Path, ended: dict[str, Ended]) -> None:
    assert ended["skipping"].ends == ended["skipping in shares"].ends == ["", ""]
    skips = [
        [(one["step"], one["skipped"]) for one in metrics(folder / out) if "skipped" in one]
        for out in ("skipping", "skipped")
    ]
    assert skips[0] == skips[1]
    assert [count for _, count in skips[0]] == list(range(1, len(skips[0]) + 1)) != []
    for out in ("skipping", "skipped"):
        assert all(bool(one.isfinite().all()) for one in last(folder / out, "prior").tensors("prior").values())


def test_the_first_process_alone_writes(folder: Path, ended: dict[str, Ended]) -> None:
    assert ended["whole"].ends == ["", ""]
    assert len(list((folder / "whole" / "tensorboard" / "prior").iterdir())) == 1
