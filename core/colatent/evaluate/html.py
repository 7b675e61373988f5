"""A page as one HTML file that needs nothing else: styles inside, pictures and sounds as `data:` addresses.

Everything that comes from outside is escaped here, in the one place where markup is made, and the page forbids itself
every request and every script, so that an item that a model wrote can never become part of it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from colatent.evaluate.chart import svg
from colatent.evaluate.page import (
    MISSED,
    REACHED,
    Cell,
    Charts,
    Confusion,
    Grid,
    Part,
    Picture,
    Prose,
    Section,
    Table,
    Verbatim,
)
from colatent.plugins.items import Shown

POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #dfe1e6; --back: #fff; --card: #f7f8fa;
  --tint: 40, 98, 216; --good: #18794e; --bad: #c62a2f; --lit: 44%; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a5a9b0; --line: #363a3f; --back: #111316;
  --card: #1a1d21; --tint: 94, 152, 255; --good: #4cc38a; --bad: #ff8b88; --lit: 66%; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.1rem 5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 2rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .87rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0 0; font-size: .92rem; }
a { color: rgb(var(--tint)); text-decoration: none; }
a:hover { text-decoration: underline; }
figure { margin: .9rem 0 1.6rem; }
figcaption { margin: .45rem 0 0; max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem .28rem 0; text-align: left; vertical-align: middle; }
th { font-weight: 600; }
thead th { color: var(--soft); font-weight: 500; font-size: .85rem; }
table.lines td, table.lines th { border-bottom: 1px solid var(--line); }
.number { text-align: right; white-space: nowrap; }
.reached { color: var(--good); } .missed { color: var(--bad); }
.confusion td, .confusion th { width: 2.3rem; min-width: 2.3rem; padding: .26rem 0; text-align: center;
  font-size: .85rem; }
.confusion td { border: 1px solid var(--back); background: rgba(var(--tint), var(--share)); border-radius: 4px; }
figure.beside { display: inline-block; vertical-align: top; margin-right: 2.5rem; max-width: 100%; }
.grid td { padding: .18rem .3rem .18rem 0; vertical-align: top; }
.grid th { padding: .6rem .8rem .2rem 0; vertical-align: top; }
.grid .first { padding-left: .9rem; }
.item { display: inline-flex; flex-direction: column; gap: .2rem; border-radius: 5px; }
.item img { display: block; border-radius: 4px; image-rendering: pixelated; background: #fff; }
.item.wrong { outline: 2px solid var(--bad); outline-offset: 1px; }
.item span { font-size: .8rem; color: var(--soft); max-width: 15rem; padding-right: .7rem; }
.item.wrong span { color: var(--bad); }
.item pre { margin: 0; font-size: .82rem; white-space: pre-wrap; }
details { margin: .8rem 0; } summary { cursor: pointer; color: rgb(var(--tint)); }
details pre { font-size: .8rem; line-height: 1.45; background: var(--card); padding: .8rem; border-radius: 8px; }
audio { height: 32px; width: 13rem; max-width: 60vw; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .5rem; max-width: 100%;
  display: inline-block; }
.card img { display: block; max-width: 100%; height: auto; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: 1.4rem 2rem; }
.chart h4 { margin: 0 0 .15rem; font-size: .92rem; font-weight: 600; }
.chart svg { display: block; width: 100%; height: auto; }
.chart text { font-size: 11px; fill: var(--soft); } .chart .name { font-style: italic; }
.chart path { fill: none; stroke: hsl(var(--h, 0) 68% var(--lit)); stroke-width: 1.7; stroke-linejoin: round; }
.chart .apart g:nth-of-type(even) .line { stroke-dasharray: 7 3; }
.chart .faint { stroke-width: .8; opacity: .3; } .chart .rule { stroke: var(--line); stroke-width: 1; }
.chart circle { fill: hsl(var(--h) 68% var(--lit)); }
.keys { display: flex; flex-wrap: wrap; gap: 0 .9rem; margin: 0 0 .3rem; font-size: .8rem; color: var(--soft); }
.keys span::before { content: ""; display: inline-block; width: .9em; height: .22em; margin-right: .35em;
  vertical-align: middle; border-radius: 2px; background: hsl(var(--h) 68% var(--lit)); }
.keys b { font-weight: 500; color: var(--ink); font-variant-numeric: tabular-nums; }
""".strip()


def page(title: str, *, lead: Sequence[tuple[str, str]], chapters: Sequence[tuple[str, Sequence[Section]]]) -> str:
    """The whole file.

    lead      facts under the title, (name, value)
    chapters  sections under headings; a section without a title stands directly under its heading
    """
    facts = " · ".join(f"{escape(name)} {escape(value)}" for name, value in lead)
    links = "".join(f'<a href="#c{number}">{escape(name)}</a>' for number, (name, _) in enumerate(chapters))
    body = "\n".join(
        f'<h2 id="c{number}">{escape(name)}</h2>\n' + "\n".join(map(_section, sections))
        for number, (name, sections) in enumerate(chapters)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="soft">{facts}</p>\n<nav>{links}</nav>\n{body}\n'
        "</main>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    head = f"<h3>{escape(section.title)}</h3>\n" if section.title else ""
    return head + "\n".join(_part(part) for part in section.parts)


def _part(part: Part) -> str:
    return WRITERS[type(part)](part)


def _prose(part: Prose) -> str:
    return f"<p>{escape(part.text)}</p>"


def _table(part: Table) -> str:
    kinds = [_kind(part, column) for column in range(len(part.head))]
    head = "".join(f"<th{kind}>{escape(cell)}</th>" for kind, cell in zip(kinds, part.head, strict=True))
    above = f"<thead><tr>{head}</tr></thead>" if any(part.head) else ""
    rows = []
    for first, *rest in part.rows:
        cells = "".join(_data(cell, kind) for kind, cell in zip(kinds[1:], rest, strict=True))
        rows.append(f"<tr><th>{escape(first)}</th>{cells}</tr>")
    table = f'<table class="lines">{above}<tbody>{"".join(rows)}</tbody></table>'
    return _figure(table, part.caption)


def _kind(part: Table, column: int) -> str:
    """Columns of numbers stand to the right, so that their digits stand below one another."""
    cells = [row[column] for row in part.rows if row[column]]
    return ' class="number"' if column and all(cell[0] in "0123456789-−—" for cell in cells) else ""


def _data(cell: str, kind: str) -> str:
    return f"<td{f' class={cell}' if cell in (REACHED, MISSED) else kind}>{escape(cell)}</td>"


def _picture(part: Picture) -> str:
    image = f'<img src="{_address(part.media, part.data)}" alt="{escape(part.caption)}">'
    return _figure(f'<div class="card">{image}</div>', part.caption)


def _charts(part: Charts) -> str:
    return _figure(f'<div class="charts">{"".join(map(svg, part.charts))}</div>', part.caption)


def _confusion(part: Confusion) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in part.columns)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{_shaded(row)}</tr>" for name, row in zip(part.rows, part.counts, strict=True)
    )
    table = f'<table class="confusion"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return _figure(table, part.caption, beside=True)


def _shaded(row: Sequence[int]) -> str:
    """Cells as dark as their share of the row; an empty one is still to be seen."""
    shares = (0.04 + 0.7 * count / max(1, sum(row)) for count in row)
    cells = zip(row, shares, strict=True)
    return "".join(f'<td style="--share:{share:.3f}">{count or ""}</td>' for count, share in cells)


def _grid(part: Grid) -> str:
    starts, column = [], 0
    for _, count in part.head:
        starts.append(column)
        column += count
    head = "".join(f'<th class="first" colspan="{count}">{escape(name)}</th>' for name, count in part.head)
    rows = []
    for name, cells in part.rows:
        row = "".join(_cell(cell, part.size, first=number in starts) for number, cell in enumerate(cells))
        rows.append(f"<tr><th>{escape(name)}</th>{row}</tr>")
    above = f"<thead><tr><th></th>{head}</tr></thead>" if part.head else ""
    return _figure(f'<table class="grid">{above}<tbody>{"".join(rows)}</tbody></table>', part.caption)


def _cell(cell: Cell, size: int, *, first: bool) -> str:
    label = f"<span>{escape(cell.label)}</span>" if cell.label else ""
    item = f'<div class="item{" wrong" if cell.wrong else ""}">{_item(cell.shown, size)}{label}</div>'
    return f"<td{' class=first' if first else ''}>{item}</td>"


def _item(item: Shown, size: int) -> str:
    """By media type; what a browser does not show can be saved."""
    address = _address(item.media, item.data)
    if item.media.startswith("image/"):
        return f'<img src="{address}" width="{size}" alt="">'
    if item.media.startswith("audio/"):
        return f'<audio controls preload="metadata" src="{address}"></audio>'
    if item.media.startswith("text/"):
        return f"<pre>{escape(item.data.decode('utf-8', errors='replace'))}</pre>"
    return f'<a href="{address}" download>{escape(item.media)}</a>'


def _verbatim(part: Verbatim) -> str:
    return f'<details><summary>{escape(part.title)}</summary><pre class="wide">{escape(part.text)}</pre></details>'


def _address(media: str, data: bytes) -> str:
    return f"data:{escape(media)};base64,{base64.b64encode(data).decode('ascii')}"


def _figure(inner: str, caption: str, *, beside: bool = False) -> str:
    """`beside`: it may stand beside the next one, where there is room."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    kind = ' class="beside"' if beside else ""
    return f'<figure{kind}><div class="wide">{inner}</div>{below}</figure>'


WRITERS: Mapping[type, Callable[[Any], str]] = {
    Prose: _prose,
    Table: _table,
    Picture: _picture,
    Charts: _charts,
    Confusion: _confusion,
    Grid: _grid,
    Verbatim: _verbatim,
}
"""How each kind of part is written."""
