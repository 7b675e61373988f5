"""The item to be generated, begun by the last of a list of given items: what the prior then sees is what it saw in
training, and not what it sees after a whole item."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import colatent
from colatent import Given
from colatent.config.prior import FlowConfig
from colatent.config.schema import SegmentConfig
from colatent.data.mixture import Drawn
from colatent.data.streams import Stream
from colatent.errors import UserError
from colatent.generate.model import Model
from colatent.generate.prefix import prefix_of
from colatent.generate.prompts import read_prompt
from colatent.generate.requests import Request
from colatent.latents.packing import pack
from colatent.latents.sequence import blocks_of
from colatent.train.sequences import build_sequences
from plugins_for_tests.grid import CONFIG, picture, plugins_with_grid
from plugins_for_tests.runs import changed, run

CAPTION = "up 2x3, and on it goes"
PICTURE = picture("up", 2, 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of text and pictures that has seen a few samples."""
    short = {"stages__codec__steps": 4, "stages__prior__steps": 4}
    found = plugins_with_grid()
    return colatent.load(
        run(changed(CONFIG, **short), tmp_path_factory.mktemp("begun") / "run", plugins=found), plugins=found
    )


def begun(text: str, *before: Given) -> list[Given]:
    return [*before, Given("text", text, ends=False)]


@pytest.mark.parametrize("seed", range(4))
def test_the_prefix_is_what_training_shows_before_the_same_block(seed: int, model: Model) -> None:
    streams = {
        name: Stream(name=name, field=name, length=64, codec=codec, origins={}) for name, codec in model.codecs.items()
    }
    drawn = Drawn(source="describe", key="describe/0", epoch=0, sample={"grid": PICTURE, "text": CAPTION})
    order = {"describe": (SegmentConfig(stream="grid", role="given"), SegmentConfig(stream="text"))}
    (sequence,) = build_sequences([drawn], streams=streams, segments=order, flow=FlowConfig(ragged=1.0), seed=seed)
    grid, text = sequence
    positions_N3, group_L = pack([sequence]).positions_N3, blocks_of(sequence).group_L
    assert text.pinned_LC is not None
    for block, cut in enumerate(text.pinned_K):
        start = sum(text.block_lengths[:block])
        read = read_prompt(model.codecs, begun(CAPTION[: start + cut], Given("grid", PICTURE)), target="text")
        prefix = prefix_of(Request(target=read.target, given=read.given, own=read.own), channels=8)
        assert prefix.length == len(grid.z_LC) + start
        assert torch.equal(prefix.positions_L3, positions_N3[: prefix.length])
        assert np.array_equal(prefix.group_L, group_L[: prefix.length])
        assert prefix.offset == float(positions_N3[: len(grid.z_LC)].max()) + 1.0
        torch.testing.assert_close(prefix.pinned_RC, text.pinned_LC[start : start + cut])


def test_begun_and_whole_are_two_things(model: Model) -> None:
    latents = []
    for prompt in (begun("up", Given("grid", PICTURE)), [Given("grid", PICTURE), Given("text", "up")]):
        read = read_prompt(model.codecs, prompt, target="text")
        assert (read.own is None, len(read.given)) == ((False, 1) if prompt[-1].ends is False else (True, 2))
        assert read.name.endswith("up")
        latents.append(model.generate_many([prompt], target="text")[0][0].latents_LC)
    assert not torch.equal(*(some[:4] for some in latents))


def test_what_was_given_before_the_beginning_is_looked_at(model: Model) -> None:
    prompts = [begun("up", Given("grid", picture(name, 2, 2))) for name in ("up", "by")]
    up, by = (some[0].latents_LC for some in model.generate_many(prompts, target="text", guidance=1.0))
    assert torch.equal(up[:2], by[:2])  # the text that was begun
    assert not torch.equal(up[2:], by[2:])


def test_a_beginning_alone_is_a_string(model: Model) -> None:
    for prompt in ("up 2x", [117, 112]):
        assert model.generate([Given("text", prompt, ends=False)]) == model.generate(prompt)
    assert model.generate([Given("text", "up 2x")], target="grid").shape == (4, 4)
    assert np.array_equal(
        model.generate([Given("text", "up 2x")], target="grid"), model.generate("up 2x", target="grid")
    )


def test_an_empty_beginning_begins_nothing(model: Model) -> None:
    grid = Given("grid", PICTURE)
    assert model.generate(begun("", grid)) == model.generate([grid], target="text")


@pytest.mark.parametrize(
    ("prompt", "target", "line"),
    [
        ([Given("text", "up", ends=False), *begun("up")], "text", r"goes on and is not the last"),
        (begun("up"), "grid", r"what goes on is the beginning of the item to be generated, in stream 'grid'"),
        ([*begun("up"), Given("grid", PICTURE)], "text", r"goes on and is not the last; leave out its ends=False"),
        ([Given("grid", PICTURE, ends=False)], "grid", r"stream 'grid' cannot be begun: its codec takes no prompt"),
        ([Given("text", 7, ends=False)], "text", r"cannot begin with 7; give a string or token ids"),
        (
            [Given("grid", PICTURE), Given("text", "up", ends=False, same_group=True)],
            "text",
            r"a group of its own; leave out its ends=False, or give it in that stream and without same_group",
        ),
    ],
)
def test_what_cannot_be_begun_is_refused(prompt: list[Given], target: str, line: str, model: Model) -> None:
    with pytest.raises(UserError, match=line):
        model.generate(prompt, target=target)
