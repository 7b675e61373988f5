"""Compiled layers: the numbers of those that are not, one compilation for all steps, and runs that go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from colatent.config import load
from colatent.errors import UserError
from colatent.flow.objective import flow_losses
from colatent.prior.fused import check_compiler, fuse
from colatent.train.interrupts import Interrupted
from plugins_for_tests.packed import make_batch, make_prior
from plugins_for_tests.ranks import Asked, both
from plugins_for_tests.runs import TEXT, assert_same_run, changed, last, metrics, run
from plugins_for_tests.stops import StopsAt

COMPILE = "stages.prior.compile=true"
# torch's own: one that it hides by not showing it, which does not help where warnings are errors, one at an import.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What one test has compiled is nothing to the next."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def loss_and_gradients(backend: str | None, *, recompute: bool, dtype: torch.dtype | None) -> list[Tensor]:
    """Of every parameter, and of the latents."""
    prior, (batch, latents) = make_prior(2, recompute=recompute), make_batch()
    if backend is not None:
        fuse(prior, backend=backend)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        loss = torch.stack(list(flow_losses(prior, batch).values())).sum()
    return [loss.detach(), *torch.autograd.grad(loss, [*prior.parameters(), *latents])]


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=needs_compiler)])
@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradients_are_those_of_layers_as_written(backend: str, recompute: bool) -> None:
    plain, compiled = (loss_and_gradients(one, recompute=recompute, dtype=None) for one in (None, backend))
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


def test_so_they_are_under_autocast() -> None:
    plain, compiled = (loss_and_gradients(one, recompute=False, dtype=torch.bfloat16) for one in (None, "aot_eager"))
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(other, one, rtol=0.05, atol=0.05 * float(one.abs().max()))


def test_one_compilation_serves_every_layer_and_every_length() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    prior = make_prior(3)
    fuse(prior, backend=counter)
    found = []
    for captions in [((4, 4), (4,)), ((4,), (4,), (4, 4, 4)), ((8,),), ((4, 4, 4, 4), (8, 8), (4,))]:
        torch.stack(list(flow_losses(prior, make_batch(*captions)[0]).values())).sum().backward()
        found.append(counter.frame_count)
    assert found == [found[0]] * 4
    assert found[0] <= 4  # of two halves, over eight branches


def test_nothing_is_compiled_where_there_is_no_gradient() -> None:
    counter = CompileCounterWithBackend("eager")
    prior, (batch, _) = make_prior(1), make_batch()
    with torch.no_grad():
        plain = flow_losses(prior, batch)
        fuse(prior, backend=counter)
        assert all(torch.equal(plain[name], value) for name, value in flow_losses(prior, batch).items())
    assert not counter.frame_count


def test_names_stay_what_they_are() -> None:
    before, prior = list(make_prior(2).state_dict()), make_prior(2)
    fuse(prior, backend="eager")
    assert list(prior.state_dict()) == before


def losses(folder: Path) -> list[float]:
    """Those of all steps."""
    return [record["loss"] for record in metrics(folder) if "loss" in record]


@needs_compiler
def test_a_run_that_goes_on_is_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    tree = changed(TEXT, stages__prior__accumulate=2)
    whole, plain = run(tree, tmp_path / "whole", COMPILE), run(tree, tmp_path / "plain")
    with pytest.raises(Interrupted):
        run(tree, tmp_path / "run", COMPILE, reporter=StopsAt("prior", 5, signal.SIGTERM))
    torch._dynamo.reset()
    run(tree, tmp_path / "run", COMPILE, resume=True)
    assert_same_run(whole, tmp_path / "run")
    assert last(whole, "prior").tensors("prior").keys() == last(plain, "prior").tensors("prior").keys()
    assert losses(whole) == pytest.approx(losses(plain), rel=1e-3)


def test_where_the_codec_trains_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colatent.train.starting.fuse", partial(fuse, backend="aot_eager"))
    monkeypatch.setattr("colatent.train.run.check_compiler", lambda device, where: None)
    tree = changed(TEXT, joint={"regime": "interval", "interval": 2}, stages__joint=TEXT["stages"]["prior"])
    del tree["stages"]["prior"]
    plain = run(tree, tmp_path / "plain")
    compiled = run(tree, tmp_path / "compiled", "stages.joint.compile=true", "stages.joint.recompute=true")
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-3)


def test_without_a_compiler_nothing_begins(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(TEXT))
    command = [sys.executable, "-m", "colatent", "train", "config.yaml", "out=run", COMPILE]
    environment = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "stages.prior.compile: torch.compile does not work here: " in done.stderr.splitlines()[-1]
    assert "install a C++ compiler" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@needs_compiler
def test_two_processes_train_what_two_trained_without(tmp_path: Path) -> None:
    tree = changed(TEXT, device="cpu")
    asked = [Asked(tree=tree, out=tmp_path / "plain"), Asked(tree=tree, out=tmp_path / "run", more=((COMPILE,),) * 2)]
    assert [one.ends for one in both(asked, tmp_path)] == [["", ""], ["", ""]]
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)


@needs_compiler
def test_with_one_it_is_taken() -> None:
    check_compiler(torch.device("cpu"), where="")


def test_cut_weights_are_not_compiled(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(TEXT))
    with pytest.raises(UserError, match=r"stages\.prior: compile is not made for weights that parallel fsdp cuts"):
        load(tmp_path / "config.yaml", [COMPILE, "stages.prior.parallel=fsdp"])


@torch.no_grad()
def test_a_copy_of_compiled_layers_computes_with_its_own_weights() -> None:
    prior, (batch, _) = make_prior(2), make_batch()
    fuse(prior, backend="eager", always=True)
    flow_losses(prior, batch)
    copy, plain = deepcopy(prior), make_prior(2)
    for parameter in copy.parameters():
        parameter.mul_(1.5)
    plain.load_state_dict(copy.state_dict())
    found, truth = (list(flow_losses(one, batch).values()) for one in (copy, plain))
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=0)
    assert not torch.allclose(torch.stack(found), torch.stack(list(flow_losses(prior, batch).values())))
