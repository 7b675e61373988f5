"""Drawings: what is drawn, what a file holds, and where a drawing ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colatent.errors import UserError
from colatent_strokes.codec import StrokesCodec
from colatent_strokes.config import DrawnShapesConfig, StrokesConfig
from colatent_strokes.drawings import DrawnShapes
from colatent_strokes.files import from_svg
from colatent_strokes.shapes import SHAPES, SIZES, join, split


@pytest.fixture(scope="module")
def codec() -> StrokesCodec:
    torch.manual_seed(0)
    return StrokesCodec(StrokesConfig()).eval().requires_grad_(False)


def drawing(points: int) -> np.ndarray:
    """A line of so many points."""
    return join([np.linspace(-1.0, 1.0, 2 * points).reshape(points, 2)])


@pytest.mark.parametrize(("points", "blocks"), [(1, 1), (31, 1), (32, 2), (63, 2), (64, 3)])
def test_a_drawing_that_fills_its_blocks_has_one_more_that_says_so(codec, points, blocks) -> None:
    (record,) = codec.encode([drawing(points)])
    assert record.block_lengths == (1,) * blocks
    assert int(record.units_L.sum()) == points + 1
    assert bool((record.units_L > 0).all())


def test_a_drawing_ends_at_its_first_empty_place(codec, monkeypatch) -> None:
    (record,) = codec.encode([drawing(5)])
    states = torch.zeros(4, 4, 3)
    states[..., 0] = 1.0
    monkeypatch.setattr(codec, "_places", lambda _: (torch.zeros(4, 4, 2), states))
    assert not codec.finished(record.sample(None))
    assert len(codec.decode([record.sample(None)])[0]) == 16
    states[1, 2, 2] = 2.0
    assert codec.finished(record.sample(None))
    assert len(codec.decode([record.sample(None)])[0]) == 6


def test_captions_say_what_is_drawn_and_the_splits_differ() -> None:
    train, heldout = (DrawnShapes(DrawnShapesConfig(), split=split) for split in ("train", "heldout"))
    things = set()
    for index in range(len(SHAPES) * len(SIZES)):
        one, other = (each.sample(index, np.random.default_rng(index)) for each in (train, heldout))
        size, name = list(SIZES)[index // len(SHAPES)], list(SHAPES)[index % len(SHAPES)]
        assert one["text"].endswith(f"{size} {name}")
        assert other["text"].endswith(f"{size} {name}")
        assert not np.array_equal(one["strokes"], other["strokes"])
        assert len(split(one["strokes"])) == len(SHAPES[name])
        assert float(np.abs(one["strokes"][:, :2]).max()) < 1.3
        things.add(f"{size} {name}")
    assert len(things) == 20


def test_a_file_holds_the_drawing(codec, tmp_path) -> None:
    item = DrawnShapes(DrawnShapesConfig(), split="train").sample(6, np.random.default_rng(0))["strokes"]
    path = codec.write_item(item, tmp_path / "cross")
    assert path == tmp_path / "cross.svg"
    np.testing.assert_allclose(codec.read_item(path), item, atol=1e-5)
    assert codec.show(item).data == path.read_bytes()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("<svg/>", "has no polyline; draw with polylines, one for each stroke"),
        ('<polyline points="0,0 1"/>', "a polyline is not of pairs of finite numbers; give x,y for each point"),
        ('<polyline points="0,x"/>', "a polyline has 'x' for a number"),
        ('<polyline points="0,0 30,40"/>', "a point lies more than 2 from the middle"),
        ('<polyline points="0,0 nan,0"/>', "a polyline is not of pairs of finite numbers"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_drawing_is_told_in_one_line(tmp_path, text, line) -> None:
    path = tmp_path / "drawing.svg"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        from_svg(path)
    assert str(caught.value).startswith(f"{path}: {line}")
    with pytest.raises(UserError, match=r"none\.svg: cannot be read"):
        from_svg(tmp_path / "none.svg")


@pytest.mark.parametrize("item", [np.zeros((4, 2)), np.zeros(3), np.full((2, 3), np.nan)], ids=("pairs", "flat", "nan"))
def test_an_item_that_is_no_drawing_is_told(codec, item) -> None:
    with pytest.raises(UserError, match=r"a drawing is an array \(points, 3\) of finite numbers"):
        codec.encode([item])
