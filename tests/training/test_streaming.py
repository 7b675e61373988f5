"""A trained model followed while it generates: pieces and states, from Python and on the command line, equal what comes
back whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import colatent
from colatent.cli.main import main
from colatent.cli.watching import ERASE
from colatent.config.sampling import SampleConfig
from colatent.errors import UserError
from colatent.generate.model import Model
from colatent.generate.requests import Piece, State
from plugins_for_tests.grid import CONFIG, plugins_with_grid
from plugins_for_tests.runs import TEXT, changed, run

Printed = Callable[..., str]
PROMPT = "twenty-one, twenty-two, "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text run whose config has options of its own."""
    tree = changed(TEXT, sample__options={"text": {"temperature": 1.5}})
    return run(tree, tmp_path_factory.mktemp("text") / "run")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return colatent.load(folder)


@pytest.fixture
def printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Runs `colatent generate` on the run, and gives what it prints."""

    def run_it(*options: str) -> str:
        capsys.readouterr()
        assert main(["generate", str(folder), *options]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run_it


OPTIONS = [
    {},
    {"temperature": 0.0},
    {"temperature": 3.0, "top_k": 200, "top_p": 0.99},
    {"temperature": 2.0, "repetition_penalty": 1.5, "stop": ["e", "th", 32]},
    {"stop": ["n"]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("prompt", [PROMPT, "", [111, 110]], ids=["text", "nothing", "ids"])
def test_pieces_join_to_the_item(prompt: str | list[int], options: dict[str, object], model: Model) -> None:
    whole = model.generate_many([prompt], n=3, max_new_tokens=21, seed=4, options=options)[0]
    for sample, result in enumerate(whole):
        pieces = list(model.stream(prompt, sample=sample, max_new_tokens=21, seed=4, options=options))
        assert "".join(piece.item for piece in pieces) == result.item
        assert [token for piece in pieces for token in piece.details["tokens"]] == result.details["tokens"]
        assert pieces[-1].details["stopped"] == result.details["stopped"] in ("end", "stop", "budget")
        assert [piece.block for piece in pieces] == list(range(len(pieces)))
        assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    (nothing,) = model.stream(prompt, max_new_tokens=0)
    assert (nothing.item, nothing.last, nothing.details["stopped"]) == ("", True, "budget")


def test_samples_of_any_batch_are_the_same_tokens(model: Model) -> None:
    asked = {"max_new_tokens": 15, "seed": 3, "options": {"temperature": 2.0, "top_p": 0.95, "repetition_penalty": 1.3}}
    prompts = [PROMPT, "o", "", [116, 101, 110], "forty"]
    together = model.generate_many(prompts, n=3, **asked)  # type: ignore[arg-type]
    alone = model.generate_many(prompts, n=3, batch=1, **asked)  # type: ignore[arg-type]
    assert [[one.details for one in some] for some in together] == [[one.details for one in some] for some in alone]
    assert len({one.item for some in together for one in some}) == 15
    other = model.generate_many([PROMPT], **(asked | {"seed": 5}))  # type: ignore[arg-type]
    assert other[0][0].item != together[0][0].item


def test_ids_are_continued_as_the_text_that_they_spell(model: Model) -> None:
    (ids,), (text,) = model.generate_many([list(PROMPT.encode()), PROMPT], max_new_tokens=9, steps=1)
    assert len(ids.details["tokens"]) == len(text.details["tokens"]) == 9
    given = len(PROMPT.encode()) % 4  # latents of the prompt's partial block, which are pinned
    assert given == 0 or torch.equal(ids.latents_LC[:given], text.latents_LC[:given])
    assert model.generate([111, 110], seed=1) == model.generate((111, 110), seed=1)
    assert model.generate([]) == model.generate("")
    with pytest.raises(UserError, match=r"^prompt, token 1: 999 is not in the vocabulary"):
        model.generate_many([[1, 999]])
    with pytest.raises(UserError, match=r"^prompt: is 5; give a string, token ids or a list of Given"):
        model.generate_many([5])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"^prompt, token 1: is 'b', not a whole number"):
        model.generate([5, "b"])  # type: ignore[list-item]


def test_the_config_has_defaults_and_a_call_goes_before_them(model: Model) -> None:
    greedy = Model(prior=model.prior, codecs=model.codecs, sample=SampleConfig(steps=2, guidance=2.0), window=16)
    asked = {"max_new_tokens": 12, "seed": 1}
    assert model.sample.options == {"text": {"temperature": 1.5}}
    hot = model.generate(PROMPT, **asked)  # type: ignore[arg-type]
    assert hot == greedy.generate(PROMPT, **asked, options={"temperature": 1.5})  # type: ignore[arg-type]
    cold = model.generate(PROMPT, **asked, options={"temperature": 0})  # type: ignore[arg-type]
    assert cold == greedy.generate(PROMPT, **asked) != hot  # type: ignore[arg-type]


def test_a_stop_ends_the_item_and_says_so(model: Model) -> None:
    free = model.generate_many([PROMPT], max_new_tokens=24)[0][0]
    stop = free.item[7:10]
    cut = model.generate_many([PROMPT], max_new_tokens=24, options={"stop": stop})[0][0]
    assert cut.item == free.item[: free.item.index(stop)]
    kept = cut.details["tokens"]
    assert kept == free.details["tokens"][: len(kept)]
    assert cut.item == bytes(kept).decode(errors="replace")  # every byte is a token: nothing of the stop is left
    assert (free.details["stopped"], cut.details["stopped"]) == ("budget", "stop")
    token = free.details["tokens"][5]
    by_token = model.generate_many([PROMPT], max_new_tokens=24, options={"stop": [token]})[0][0]
    assert by_token.details["tokens"] == free.details["tokens"][: free.details["tokens"].index(token)]


def test_states_are_told_between_pieces(model: Model) -> None:
    asked = {"max_new_tokens": 9, "steps": 3, "seed": 2}
    events = list(model.watch(PROMPT, **asked))  # type: ignore[arg-type]
    pieces = [event for event in events if isinstance(event, Piece)]
    assert "".join(piece.item for piece in pieces) == model.generate(PROMPT, **asked)  # type: ignore[arg-type]
    states = [event for event in events if isinstance(event, State)]
    assert [(one.block, one.step) for one in states] == [(k, i) for k in range(len(pieces)) for i in range(3)]
    assert [one.t for one in states[:3]] == pytest.approx([1.0, 2 / 3, 1 / 3])
    assert all(isinstance(one.item, str) and one.z_KC.shape == one.clean_KC.shape == (4, 8) for one in states)
    bare = [one for one in model.watch(PROMPT, decode=False, **asked) if isinstance(one, State)]  # type: ignore[arg-type]
    assert [one.item for one in bare] == [None] * len(states)
    for one, other in zip(states, bare, strict=True):
        assert torch.equal(one.z_KC, other.z_KC)


def test_mistakes_are_told_before_anything_is_asked_for(model: Model) -> None:
    with pytest.raises(UserError, match=r"option top_q: unknown key; did you mean top_p\?"):
        model.stream(PROMPT, options={"top_q": 1})
    with pytest.raises(UserError, match=r"sample: is -1"):
        model.stream(PROMPT, sample=-1)
    with pytest.raises(UserError, match=r"options: is 'hot', it must be a mapping"):
        model.generate(PROMPT, options="hot")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"unknown keyword stepz; known: "):
        model.generate(PROMPT, stepz=3)  # type: ignore[call-arg]


def test_a_picture_comes_whole_at_its_end(tmp_path: Path) -> None:
    short = {"stages__codec__steps": 2, "stages__prior__steps": 2}
    found = plugins_with_grid()
    model = colatent.load(run(changed(CONFIG, **short), tmp_path / "run", plugins=found), plugins=found)
    asked = {"target": "grid", "options": {"height": 1, "width": 3}}
    (piece,) = model.stream("up 1x3", **asked)  # type: ignore[arg-type]
    assert (piece.block, piece.last) == (0, True)
    assert (piece.item == model.generate("up 1x3", **asked)).all()  # type: ignore[arg-type]
    states = [one for one in model.watch("up 1x3", **asked) if isinstance(one, State)]  # type: ignore[arg-type]
    assert [one.item.shape for one in states] == [(2, 6)] * 8  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"token ids can only be continued, in stream 'text'"):
        model.generate([117, 112], **asked)  # type: ignore[arg-type]


# The command line.


def test_stream_prints_what_generate_prints(printed: Printed) -> None:
    options = [
        "--prompt",
        PROMPT,
        "--prompt",
        "ten",
        "--n",
        "2",
        "--max-new",
        "13",
        "--temperature",
        "2",
        "--stop",
        "e",
    ]
    assert printed(*options, "--stream") == printed(*options)


def test_stream_as_json_is_a_line_per_piece(printed: Printed) -> None:
    options = ["--prompt", PROMPT, "--max-new", "10", "--top-k", "5", "--option", "top_p=0.9", "--json"]
    (sample,) = json.loads(printed(*options))["samples"]
    lines = [json.loads(line) for line in printed(*options, "--stream").splitlines()]
    assert "".join(line["text"] for line in lines) == sample["text"]
    assert [token for line in lines for token in line["tokens"]] == sample["tokens"]
    assert [line["last"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["stopped"] == sample["stopped"]
    watched = [json.loads(line) for line in printed(*options, "--watch", "--steps", "2").splitlines()]
    assert [line.get("step") for line in watched] == [0, 1, None] * (len(watched) // 3)


def test_watch_prints_a_line_per_estimate_and_block(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--prompt", PROMPT, "--max-new", "5", "--steps", "2", "--watch"]
    lines = printed(*options).splitlines()
    assert lines[0] == PROMPT
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "block 0 step 0 t=1.000",
        "block 0 step 1 t=0.500",
        "block 0",
    ]
    monkeypatch.setattr("colatent.cli.watching.on_terminal", lambda: True)
    drawn = printed(*options)
    assert drawn.count("\n") == 1 + len(lines[1:]) // 3
    assert drawn.count(ERASE) == len(lines[1:])


def test_an_interrupted_stream_ends_its_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Model, prompt: str, **_: object) -> object:
        yield Piece(block=0, item="half", details={}, last=False)
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "stream", interrupted)
    assert main(["generate", str(folder), "--prompt", "one ", "--stream"]) == 130
    out, err = capsys.readouterr()
    assert (out, err) == ("one half\n", "colatent: interrupted\n")
