"""`colatent bench`: the figures, that the very step and sampler run, and how often they ask the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from colatent.cli.main import main
from colatent.errors import UserError
from colatent.evaluate import bench
from colatent.generate.model import Model
from colatent.prior.backends.choose import SETTING, describe
from colatent.prior.dit import Prior
from colatent.train.loop import Trainer

TINY = Path(__file__).parents[2] / "examples" / "configs" / "tiny.yaml"
FLAGS = {"layers": 2, "width": 16, "heads": 2, "latent": 3, "block": 4, "vocab": 50, "warmup": 1, "repeats": 2}
SHAPE = [word for name, value in FLAGS.items() for word in (f"--{name}", str(value))] + ["--device", "cpu"]
BATCH, BLOCK, RUNS = 4, 4, 3


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small matrix peak."""
    monkeypatch.setattr(bench, "SIDES", {"cpu": 32})
    monkeypatch.setattr(bench, "PEAK_SECONDS", 0.01)


@pytest.fixture
def measure(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """The document of a command."""

    def run(*words: object) -> dict[str, Any]:
        assert main(["bench", *map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def watch(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[int]:
    """A list that grows by the rows asked of every call of a method."""
    plain, calls = getattr(owner, name), []

    def watched(self: Any, *args: Any, **named: Any) -> Any:
        calls.append(named["layout"].length if "layout" in named else 0)
        return plain(self, *args, **named)

    monkeypatch.setattr(owner, name, watched)
    return calls


def test_a_training_step_is_the_trainers_and_one_pass_over_both_copies(measure, monkeypatch) -> None:
    passes, steps = watch(monkeypatch, Prior, "forward"), watch(monkeypatch, Trainer, "train_step")
    found = measure("train", *SHAPE, "--sequence", 16)
    assert passes == [BATCH * (16 + 12)] * RUNS  # the last block is nobody's history
    assert len(steps) == RUNS
    assert found["tokens"] == BATCH * 16
    assert found["flops_share"] == {"prior": 1.0, "codec": 0.0}


@pytest.mark.parametrize(("guidance", "branches"), [(1, 1), (3, 2)])
def test_generation_is_the_models_with_one_pass_a_step_and_one_commit_between_blocks(
    measure, monkeypatch, guidance: int, branches: int
) -> None:
    passes, calls = watch(monkeypatch, Prior, "forward"), watch(monkeypatch, Model, "generate_many")
    found = measure("generate", *SHAPE, "--prompt", 8, "--new", 12, "--steps", 5, "--guidance", guidance)
    solve, commit = [BATCH * BLOCK * branches] * 5, BATCH * BLOCK
    whole = [BATCH * 8, *solve, commit, *solve, commit, *solve]
    assert passes == [BATCH * 8, *solve] * RUNS + whole * RUNS
    assert len(calls) == 2 * RUNS
    assert found["tokens"] == BATCH * 12
    assert found["first_block_seconds"] > 0
    assert 0 < found["flops_share"]["codec"] < found["flops_share"]["prior"]


def test_a_prompt_that_ends_inside_a_block_is_not_counted_as_new(measure) -> None:
    assert measure("generate", *SHAPE, "--prompt", 6, "--new", 10, "--steps", 2)["tokens"] == BATCH * 10
    assert measure("generate", *SHAPE, "--prompt", 0, "--new", 3, "--steps", 2)["tokens"] == BATCH * 3


def test_a_config_that_samples_with_less_guidance_is_measured_with_all_of_it(measure, monkeypatch) -> None:
    passes, counted = watch(monkeypatch, Prior, "forward"), []
    less = ["sample.guidance_interval=[0.4,0.6]", "sample.unconditional=condition", "sample.shift=3"]
    for more in ([], less):
        words = ("--new", 4, "--steps", 3, "--guidance", 3, "--repeats", 1, "--warmup", 0)
        counted.append(measure("generate", TINY, *more, *words)["flops_per_token"])
    assert passes[: len(passes) // 2] == passes[len(passes) // 2 :]
    assert counted[0] == counted[1]


def test_figures_agree_with_one_another(measure) -> None:
    found = measure("train", *SHAPE, "--sequence", 16, "--batch", 2, "--dtype", "float32")
    low, high = found["tokens_per_second_range"]
    assert low <= found["tokens_per_second"] <= high
    assert found["flops_per_second"] == pytest.approx(found["tokens_per_second"] * found["flops_per_token"])
    assert found["fraction_of_peak"] == pytest.approx(found["flops_per_second"] / found["matrix_peak"])
    assert found["asked"] == {"batch": 2, "sequence": 16, "dtype": "float32", "encode": False, "compile": False}
    assert found["machine"]["torch"] == torch.__version__
    assert found["machine"]["attention"] == describe(torch.device("cpu"))
    assert found["peak_memory"] > 10**7


def test_encoding_adds_the_codecs_flops_and_nothing_else(measure) -> None:
    alone, whole = (measure("train", *SHAPE, "--sequence", 16, *more) for more in ((), ("--encode",)))
    prior = whole["flops_per_token"] * whole["flops_share"]["prior"]
    assert prior == pytest.approx(alone["flops_per_token"])
    assert whole["flops_share"]["codec"] > 0


def test_without_a_compiler_nothing_is_measured_compiled(monkeypatch, capsys) -> None:
    def refuse(device: torch.device, *, where: str) -> None:
        raise UserError("does not work here", where=where, do="set it to false")

    monkeypatch.setattr("colatent.train.bench.check_compiler", refuse)
    assert main(["bench", "train", str(TINY), "stages.prior.compile=true"]) == 2
    assert "stages.prior.compile: does not work here" in capsys.readouterr().err


def test_whether_layers_are_compiled_is_said(measure, monkeypatch) -> None:
    monkeypatch.setattr("colatent.train.bench.check_compiler", lambda device, where: None)
    monkeypatch.setattr("colatent.train.starting.fuse", (fused := []).append)
    quick = ("stages.prior.compile=true", "--repeats", 1, "--warmup", 0)
    assert measure("train", TINY, *quick)["asked"]["compile"] is True
    assert len(fused) == 1
    assert measure("generate", TINY, *quick, "--new", 4, "--steps", 1)["asked"]["compile"] is False
    assert len(fused) == 1


@pytest.mark.parametrize(("backend", "said"), [("matrix", "matrix"), ("flex", "sdpa")])  # a cache is not for flex
def test_any_backend_of_attention_is_measured_by_the_same_flops(backend: str, said: str, measure, monkeypatch) -> None:
    words = ("generate", *SHAPE, "--prompt", 6, "--new", 4, "--steps", 1, "--dtype", "float32")
    plain = measure(*words)
    monkeypatch.setenv(SETTING, backend)
    found = measure(*words)
    assert found["flops_per_token"] == plain["flops_per_token"]
    assert found["machine"]["attention"]["generation"] == said


def test_a_config_is_measured_on_its_own_data(measure, in_tmp) -> None:
    found = measure("train", TINY, "stages.prior.batch=3", "--repeats", 2, "--warmup", 0)
    assert found["asked"]["batch"] == 3
    assert found["tokens"] == 3 * 32
    assert found["flops_share"]["codec"] > 0
    cut = ("stages.prior.batch=16", "stages.prior.budget=64")  # the default and the budget
    found = measure("train", TINY, *cut, "--repeats", 2, "--warmup", 0)
    assert found["asked"]["budget"] == found["tokens"] == 64
    made = measure("generate", TINY, "--prompt", 9, "--new", 8, "--steps", 1, "--repeats", 1, "--warmup", 0)
    assert 0 < made["tokens"] <= BATCH * 8
    assert not list(in_tmp.iterdir())


def test_unequal_steps_count_by_their_work() -> None:
    """A step of pixels has hundreds of units for each of a step of text, and no more FLOPs."""
    whole = {"memory": None, "peak": 100.0, "flops": {"prior": 90, "codec": 30}}
    mixed = bench.Measured(seconds=[1.0, 1.0, 2.0], tokens=[1.0, 1000.0, 2.0], **whole).facts()
    assert mixed["fraction_of_peak"] == pytest.approx(120 / 4 / 100)
    alike = bench.Measured(seconds=[1.0, 1.0, 7.0], tokens=[2.0, 2.0, 2.0], **whole).facts()
    assert alike["fraction_of_peak"] == pytest.approx(40 / 100)


def test_facts_are_readable_without_json(capsys, monkeypatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    assert main(["bench", "train", *SHAPE, "--sequence", "8"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert {"tokens_per_second", "fraction_of_peak", "peak_memory", "device"} <= {line[0] for line in lines}
    assert ["compile", "False"] in lines
    (said,) = (line[1] for line in lines if line[0] == "attention")
    assert said.startswith("setting auto, training matrix, generation sdpa, ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "--width", "30", "--heads", "4"], "flags: prior: width 30 must be a multiple of 2 x heads (4)"),
        (["generate", "--vae-heads", "5"], "streams.text.config: width 384 must be a multiple of 2 x heads (5)"),
        (["train", str(TINY), "--layers", "3"], "--layers is for CONFIG to say: override its key instead"),
        (["train", str(TINY), "--encode"], "--encode is for CONFIG to say"),
        (["train", "none.yaml"], "none.yaml: no such file"),
        (["train", "--device", "tape"], "device: 'tape' cannot be used here"),
        (["generate", "--vocab", "1"], "1 is not in the range x>=2"),
    ],
)
def test_mistakes_are_one_line(words: list[str], line: str, capsys, in_tmp) -> None:
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_step_that_is_not_finite_is_one_line_and_leaves_nothing(capsys, in_tmp) -> None:
    wild = ["stages.prior.lr=1e30", "stages.prior.warmup=0", "stages.prior.schedule=constant"]
    assert main(["bench", "train", str(TINY), *wild, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("colatent: stages.prior: loss ")
    assert error.count("\n") == 1
    assert not list(in_tmp.iterdir())


def test_a_config_that_trains_no_prior_is_refused(capsys, tmp_path: Path) -> None:
    path = tmp_path / "codec.yaml"
    lines = TINY.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("  prior:")), encoding="utf-8")
    assert main(["bench", "train", str(path)]) == 2
    assert "stages: none of them trains a prior" in capsys.readouterr().err


def test_matrices_of_zeros_are_filled_and_no_others() -> None:
    linear, gate = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    torch.nn.init.zeros_(gate.weight)
    before, bias = linear.weight.clone(), linear.bias.clone()
    bench.fill_zeros(torch.nn.ModuleList([linear, gate]))
    assert gate.weight.all()
    assert torch.equal(linear.weight, before)
    assert torch.equal(linear.bias, bias)
