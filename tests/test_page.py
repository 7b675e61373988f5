"""The page: what a task puts on it is shown, none of it is taken for markup, and nothing is asked of the network."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import pytest

from colatent.evaluate.html import page
from colatent.evaluate.page import Cell, Confusion, Grid, Part, Picture, Prose, Section, Table, Verbatim, shown
from colatent.plugins.items import Shown

EVIL = "<script>alert('\"&')</script>"
VOID = {"meta", "img", "link", "br"}


class Reader(HTMLParser):
    """Tags with their attributes, text, and whether every tag was closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(*parts: Part, title: str = "run") -> Reader:
    return Reader(page(title, lead=[("seed", "0")], chapters=[("task", [Section(title="Part", parts=parts)])]))


def cell(media: str, data: bytes = b"\x00\xff", **rest: object) -> Grid:
    return Grid(rows=[("row", [Cell(shown=Shown(media=media, data=data), **rest)])])  # type: ignore[arg-type]


EVERYWHERE: list[Part] = [
    Prose(text=EVIL),
    Verbatim(title=EVIL, text=EVIL),
    Table(head=(EVIL, EVIL), rows=[(EVIL, EVIL)], caption=EVIL),
    Picture(data=b"x", caption=EVIL, media=EVIL),
    Confusion(rows=[EVIL], columns=[EVIL], counts=[[1]], caption=EVIL),
    Grid(rows=[(EVIL, [Cell(shown=Shown(media="text/plain", data=EVIL.encode()), label=EVIL)])], head=[(EVIL, 1)]),
    cell(f"text/{EVIL}", EVIL.encode()),
    cell(f"audio/{EVIL}"),
    cell(EVIL),
]


@pytest.mark.parametrize("part", EVERYWHERE, ids=lambda part: type(part).__name__)
def test_nothing_of_an_item_becomes_markup(part: Part) -> None:
    found = read(part, title=EVIL)
    assert not found.open
    assert "script" not in {tag for tag, _ in found.tags}
    assert found.text.count("alert(") >= 1
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)


def test_a_page_asks_the_network_for_nothing() -> None:
    found = read(*EVERYWHERE)
    pairs = (pair for _, attributes in found.tags for pair in attributes.items())
    addresses = [value or "" for name, value in pairs if name in ("src", "href")]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    policy = next(attributes["content"] for _, attributes in found.tags if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "url(" not in found.text
    assert "@import" not in found.text


@pytest.mark.parametrize(
    ("media", "tag"), [("image/png", "img"), ("image/svg+xml", "img"), ("audio/wav", "audio"), ("model/obj", "a")]
)
def test_items_are_shown_by_their_media_type(media: str, tag: str) -> None:
    (address,) = (
        attributes.get("src") or attributes.get("href")
        for name, attributes in read(cell(media)).tags
        if name == tag and (attributes.get("src") or attributes.get("href", "")).startswith("data:")
    )
    assert address == f"data:{media};base64,{base64.b64encode(bytes([0, 255])).decode()}"


def test_text_is_shown_as_text() -> None:
    assert "a < b é" in read(cell("text/plain", "a < b é".encode())).text
    assert "�" in read(cell("text/plain")).text  # what is no UTF-8 is shown, not raised


def test_a_confusion_is_shaded_by_the_share_of_its_row() -> None:
    table = Confusion(rows=("a", "b"), columns=("a", "b", "?"), counts=((3, 1, 0), (0, 0, 0)))
    cells = [attributes["style"] for tag, attributes in read(table).tags if tag == "td"]
    assert cells == [f"--share:{share}" for share in ("0.565", "0.215", "0.040", "0.040", "0.040", "0.040")]


def test_what_was_wrong_is_marked() -> None:
    marked = [attributes["class"] for tag, attributes in read(cell("text/plain", wrong=True)).tags if tag == "div"]
    assert "item wrong" in marked


def test_numbers_stand_to_the_right() -> None:
    table = Table(head=("", "n", "word"), rows=[("a", "1.5", "x"), ("b", "-2", "3")])
    classes = [attributes.get("class") for tag, attributes in read(table).tags if tag == "td"]
    assert classes == ["number", None, "number", None]


def test_an_item_that_no_codec_shows_is_written_out() -> None:
    assert shown(object(), "a\nb") == Shown(media="text/plain", data=b"a\nb")  # type: ignore[arg-type]
    long = shown(object(), list(range(1000)))  # type: ignore[arg-type]
    assert long.data == repr(list(range(1000))).encode()[:80]
