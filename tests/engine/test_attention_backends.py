"""Each backend of attention against the formula, which one is chosen, and how one is refused.

What needs CUDA is under a skip at the end.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from attending import asks_with_history, drawn, formula, history, prefixes, seen_by, two_copies

from colatent.cli.main import main
from colatent.errors import UserError
from colatent.latents.rows import AttentionPart, Layout, Rows
from colatent.prior.attention import attend
from colatent.prior.backends.choose import BACKENDS, SETTING, choose, describe
from colatent.prior.backends.records import Case
from colatent.train.device import pick_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("backend", ["auto", "sdpa", "matrix", "flex"], indirect=True)
@pytest.mark.parametrize("alike", [False, True])
def test_values_and_gradients_equal_the_formula(make_segment, backend: str, alike: bool) -> None:
    layout = two_copies(make_segment, (3, 3) if alike else (3, 1, 2))
    found, truth = ([x.clone().requires_grad_() for x in drawn(layout.length)] for _ in range(2))
    o_NHD, true_NHD = attend(*found, layout=layout), formula(*truth, seen_by(layout))
    assert choose(layout, Case.of(found[0]))[0] == {"auto": "matrix"}.get(backend, backend)
    torch.testing.assert_close(o_NHD, true_NHD, rtol=0, atol=1e-13)
    for one, two in zip(found, truth, strict=True):
        gradients = (
            torch.autograd.grad(o.square().sum(), x, retain_graph=True)[0] for o, x in ((o_NHD, one), (true_NHD, two))
        )
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("backend", ["sdpa", "matrix", "flex"], indirect=True)
def test_parts_that_are_not_answered_are_zero(make_segment, backend: str) -> None:
    layout = two_copies(make_segment)
    whole, part = (
        attend(*drawn(layout.length), layout=layout, answered=answered) for answered in (None, (False, True))
    )
    clean = torch.zeros(layout.length, dtype=torch.bool)
    clean[layout.parts[0].queries.index_BL[layout.parts[0].queries.valid_BL]] = True
    assert not part[clean].any()
    torch.testing.assert_close(part[~clean], whole[~clean], rtol=0, atol=1e-14)


# The choice, and its refusals.


def case(device: torch.device, *, gradient: bool, dtype: torch.dtype = torch.bfloat16, head_dim: int = 64) -> Case:
    return Case(device=device, dtype=dtype, head_dim=head_dim, gradient=gradient)


def test_the_choice_by_device_gradient_and_part(make_segment, monkeypatch) -> None:
    monkeypatch.setitem(BACKENDS, "flex", replace(BACKENDS["flex"], why_not=lambda case: None))
    open_part = Layout((AttentionPart(queries=Rows([0], [4]), keys=Rows([0], [4])),), 4)
    trained, unequal, filled = two_copies(make_segment), two_copies(make_segment, block=3), prefixes()
    table = {
        (CPU, True): [("matrix", "matrix"), ("sdpa",), ("matrix",)],
        (CPU, False): [("sdpa", "matrix"), ("sdpa",), ("sdpa",)],
        (CUDA, True): [("flex", "flex"), ("sdpa",), ("sdpa",)],
        (CUDA, False): [("sdpa", "sdpa"), ("sdpa",), ("sdpa",)],
    }
    for (device, gradient), names in table.items():
        here = case(device, gradient=gradient)
        assert [choose(layout, here) for layout in (trained, open_part, filled)] == names
        assert choose(unequal, here) == names[0]


def test_long_prefixes_are_done_in_tiles_on_a_cpu() -> None:
    here, blocks = case(CPU, gradient=False), torch.arange(256) // 2
    rows, seen_1QK = Rows([0], [256]), (blocks[:, None] >= blocks)[None]
    for cache, name in (("fill", "matrix"), (None, "matrix"), ("read", "sdpa")):
        assert choose(Layout((AttentionPart(queries=rows, keys=rows, mask_BQK=seen_1QK, cache=cache),), 256), here) == (
            name,
        )
    assert choose(Layout((AttentionPart(queries=rows, keys=rows),), 256), here) == ("sdpa",)


def test_auto_does_without_flex_where_it_cannot_work(make_segment) -> None:
    if torch.cuda.is_available():
        pytest.skip("FlexAttention may work here")
    assert choose(two_copies(make_segment), case(CUDA, gradient=True)) == ("sdpa", "sdpa")


@pytest.mark.parametrize(
    ("name", "gradient", "line"),
    [
        ("fast", False, "COLATENT_ATTENTION: there is no backend 'fast'; set auto, sdpa, matrix, flex, xformers"),
        ("xformers", False, "COLATENT_ATTENTION: xformers needs CUDA; set auto or sdpa"),
        ("flex", True, "COLATENT_ATTENTION: flex has no backward pass on a CPU; set auto or matrix"),
    ],
)
def test_a_backend_that_cannot_work_is_refused_in_one_line(make_segment, monkeypatch, name, gradient, line) -> None:
    monkeypatch.setenv(SETTING, name)
    layout = two_copies(make_segment)
    with pytest.raises(UserError) as caught:
        attend(*(x.requires_grad_(gradient) for x in drawn(layout.length)), layout=layout)
    assert str(caught.value) == line
    if not gradient:
        with pytest.raises(UserError, match="COLATENT_ATTENTION"):
            pick_device("cpu")


def test_describe_names_what_works_on_a_cpu(monkeypatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    assert describe(CPU) == {
        "setting": "auto",
        "training": "matrix",
        "generation": "sdpa",
        "flex": "not for training on cpu: has no backward pass on a CPU",
        "xformers": "not on cpu: needs CUDA",
    }
    with monkeypatch.context() as card:
        card.setattr("colatent.prior.backends.varlen.works", lambda case: True)
        assert describe(CPU)["recorded"] == "varlen"
        card.setenv(SETTING, "sdpa")
        assert "recorded" not in describe(CPU)
    monkeypatch.setenv(SETTING, "flex")
    assert describe(CPU)["training"] == "COLATENT_ATTENTION: flex has no backward pass on a CPU; set auto or matrix"


def test_doctor_says_what_attention_runs_on_and_whether_layers_can_be_compiled(monkeypatch, capsys) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    monkeypatch.setattr("colatent.prior.fused.check_compiler", lambda device, where: None)
    assert main(["plugins", "doctor", "--torch"]) == 0
    assert "attention on cpu\n  setting     auto\n  training    matrix\n  generation  sdpa\n" in capsys.readouterr().out
    assert main(["plugins", "doctor", "--torch", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["attention"]["cpu"] == describe(CPU)
    assert found["compile"]["cpu"] == "works; off unless a stage says compile: true, or generate --compile"

    def refuse(device: torch.device, where: str) -> None:
        raise UserError("torch.compile does not work here: no g++")

    monkeypatch.setattr("colatent.prior.fused.check_compiler", refuse)
    assert main(["plugins", "doctor", "--torch"]) == 0
    assert "\n  compile     torch.compile does not work here: no g++\n" in capsys.readouterr().out


# On CUDA.

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
NEAR = {torch.float32: 2e-3, torch.bfloat16: 3e-2}  # float32 products may run in TF32


@needs_cuda
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("name", ["auto", "sdpa", "matrix", "flex"])
@pytest.mark.parametrize("blocks", [(3, 1, 2), (40, 17, 29)])
def test_training_on_cuda_is_near_the_formula(make_segment, monkeypatch, name, dtype, blocks) -> None:
    monkeypatch.setenv(SETTING, name)
    layout = two_copies(make_segment, blocks)
    truth = [x.requires_grad_() for x in drawn(layout.length, head_dim=64)]
    found = [x.detach().to(CUDA, dtype).requires_grad_() for x in truth]
    assert choose(layout, Case.of(found[0]))[0] == {"auto": "flex"}.get(name, name)
    o_NHD, true_NHD = attend(*found, layout=layout), formula(*truth, seen_by(layout))
    torch.testing.assert_close(o_NHD.cpu().double(), true_NHD, rtol=0, atol=NEAR[dtype])
    # All at once: a compiled kernel frees what it keeps for its backward pass.
    gradients, true = torch.autograd.grad(o_NHD.sum(), found), torch.autograd.grad(true_NHD.sum(), truth)
    for one, two in zip(gradients, true, strict=True):
        torch.testing.assert_close(one.cpu().double(), two, rtol=0, atol=4 * NEAR[dtype])


@needs_cuda
@torch.no_grad()
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("lengths", [(5, 3, 0), (4, 4)])
def test_xformers_on_cuda_is_near_others(monkeypatch, lengths) -> None:
    pytest.importorskip("xformers")
    if refusal := BACKENDS["xformers"].why_not(case(CUDA, gradient=False)):
        pytest.skip(f"xformers {refusal.what}")
    asked = [x.to(CUDA, torch.bfloat16) for x in drawn(2 * len(lengths), head_dim=64)]
    answers = {}
    for name in ("xformers", "sdpa"):
        monkeypatch.setenv(SETTING, name)
        cache = history(lengths, like=asked[0])
        answers[name] = attend(*asked, layout=asks_with_history(cache), cache=cache)
    torch.testing.assert_close(answers["xformers"], answers["sdpa"], rtol=0, atol=3e-2)
