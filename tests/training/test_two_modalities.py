"""Text and small pictures in one prior: both learn, and each is generated from the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import colatent
from colatent import Given
from colatent.errors import UserError
from colatent.generate.model import Model
from colatent.generate.prompts import read_prompt
from colatent.testing import check_codec, check_dataset
from colatent_text.items import Text
from plugins_for_tests.grid import CONFIG, PATTERNS, picture, plugins_with_grid
from plugins_for_tests.grid_codec import GridCodec
from plugins_for_tests.runs import changed, metrics, run

ORDERS = ("paint/text", "paint/grid", "describe/grid", "describe/text")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with both orders of the two streams."""
    tree = changed(CONFIG, stages__codec__steps=40, stages__prior__steps=140, stages__prior__batch=16)
    return run(tree, tmp_path_factory.mktemp("two") / "run", plugins=plugins_with_grid())


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return colatent.load(trained, plugins=plugins_with_grid())


def test_the_plugin_keeps_the_contract() -> None:
    results = check_codec(plugins_with_grid(), "grid") + check_dataset(plugins_with_grid(), "captions")
    assert [(result.name, result.detail) for result in results if result.state == "failed"] == []


def test_flow_loss_falls_in_both_streams(trained: Path) -> None:
    scores = [record["eval"] for record in metrics(trained) if record["stage"] == "prior" and "eval" in record]
    for order in ORDERS:
        for t, share in ((0.3, 0.6), (0.5, 0.85)):
            before, after = (scores[index][f"{order}/t={t}"] for index in (0, -1))
            assert after < share * before, f"{order} at t={t}: {before:.3f} -> {after:.3f}"


def test_codecs_of_both_are_on_scale(trained: Path) -> None:
    codec = colatent.load(trained, plugins=plugins_with_grid()).codecs["grid"]
    items = [picture(name, 2, 3) for name in PATTERNS]
    z_NC = torch.cat([record.mean_LC for record in codec.encode(items)])
    assert 0.5 < float(z_NC.std()) < 2.0


def test_a_picture_from_a_caption_has_the_shape_that_was_asked_for(model: Model) -> None:
    drawn = model.generate([Given("text", "up 2x3")], target="grid", options={"height": 2, "width": 3})
    assert isinstance(drawn, np.ndarray)
    assert drawn.shape == (4, 6)
    assert float(np.abs(drawn).max()) < 3.0
    assert model.generate("up 1x1", target="grid").shape == (4, 4)
    assert model.generate(target="grid", options={"height": 1}).shape == (2, 4)


def test_a_caption_from_a_picture_is_a_string(model: Model) -> None:
    caption = model.generate([Given("grid", picture("by", 3, 2))], target="text", max_new_tokens=7)
    assert isinstance(caption, str)
    assert 0 < len(caption.encode()) <= 7


def test_what_is_given_is_looked_at(model: Model) -> None:
    prompts = [[Given("grid", picture("up", 1, 1))], [Given("grid", picture("by", 3, 3))], ""]
    latents = [results[0].latents_LC[:4] for results in model.generate_many(prompts, target="text", guidance=1.0)]
    assert not torch.equal(latents[0], latents[1])
    assert not torch.equal(latents[1], latents[2])


def test_a_given_picture_names_the_noise(model: Model) -> None:
    names = [
        read_prompt(model.codecs, [Given("grid", picture(name, 2, 2))], target="text").name
        for name in ("up", "by", "up")
    ]
    assert names[0] == names[2] != names[1]


def test_given_items_may_share_a_group(model: Model) -> None:
    text, grid = Given("text", "up 2x"), picture("up", 2, 2)
    prompts = [[text, Given("grid", grid, same_group=joined)] for joined in (True, False)]
    joined, apart = (some[0].latents_LC for some in model.generate_many(prompts, target="text", guidance=1.0))
    assert not torch.equal(joined[:4], apart[:4])
    with pytest.raises(UserError, match=r"the first given item has none before it .* leave same_group out"):
        model.generate([Given("grid", grid, same_group=True)], target="text")
    with pytest.raises(UserError, match=r"a given item of stream 'text' is empty"):
        model.generate([Given("text", Text(text="", ends=False))], target="grid")


def test_lists_of_given_items_may_differ_in_a_batch(model: Model) -> None:
    grid, text = Given("grid", picture("on", 2, 1)), Given("text", "on 2x1")
    prompts = [[grid], [], [text, grid], [grid, grid], [text]]
    options = {"height": 2, "width": 3}
    together = model.generate_many(prompts, target="grid", options=options, n=2)
    for prompt, results in zip(prompts, together, strict=True):
        alone = model.generate_many([prompt], target="grid", options=options, n=2, batch=1)[0]
        for one, other in zip(results, alone, strict=True):
            torch.testing.assert_close(one.latents_LC, other.latents_LC, atol=1e-5, rtol=1e-5)


def test_nothing_given_may_stand_anywhere_in_a_batch(model: Model) -> None:
    for prompts in (["up 2x", ""], ["", "up 2x"], ["up 2x", "", "by"]):
        together = [some[0].item for some in model.generate_many(prompts)]
        assert together == [model.generate(prompt) for prompt in prompts]


def test_plans_of_unequal_blocks_run_apart_and_keep_their_order(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec may plan by what is given: here each item has the shape of its own beginning's number of latents."""
    plan, sizes = GridCodec.plan, iter([])

    def by_turns(self: GridCodec, request: object) -> object:
        from dataclasses import replace

        return plan(self, replace(request, options={"height": 1, "width": next(sizes)}))

    shapes = [3, 1, 3, 2, 1]
    # Each request is planned twice: once to be grouped, once, in the order of the groups, to be generated.
    sizes = iter([*shapes, 3, 3, 1, 1, 2])
    monkeypatch.setattr(GridCodec, "plan", by_turns)
    prompts = [[Given("text", f"on 1x{width}")] for width in shapes]
    done: list[tuple[int, int]] = []
    results = model.generate_many(prompts, target="grid", progress=lambda *counts: done.append(counts))
    assert [some[0].item.shape for some in results] == [(2, 2 * width) for width in shapes]
    assert done == [(2, 5), (4, 5), (5, 5)]


def test_mistakes_about_streams_and_options_are_told(model: Model) -> None:
    with pytest.raises(UserError, match=r"no stream 'image'; use one of text, grid"):
        model.generate("up", target="image")
    with pytest.raises(UserError, match=r"no stream 'sound'"):
        model.generate([Given("sound", 1)], target="text")
    with pytest.raises(UserError, match=r"needs target="):
        model.generate([Given("text", "up")])
    with pytest.raises(UserError, match=r"option height: is 0, must be greater than 0"):
        model.generate(target="grid", options={"height": 0})
    with pytest.raises(UserError, match=r"option temperature: unknown key; known keys: height, width"):
        model.generate(target="grid", options={"temperature": 1.0})
