"""Configs that something happened to: each is taken or refused in one line.

Half of them are changed as text, as an editor or a bad copy would; half as settings, by a value that no one means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from colatent.config import load
from colatent.config.checks import validate
from colatent.plugins import PluginSet, load_plugins
from properties import Draw, attempt, tries

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "configs").glob("**/*.yaml"))
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        "",
        "x" * 3000,
        "???",
        "a\0b",
        "\ud7ff\x1b[2J",
        "../../x",
        "1e5",
        "${seed}",
        "${nothing}",
        "${",
        "${a:b}",
    ),
    *(0, -1, 2**31, 10**40, 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *([], [[]], [0], {}, {"x": 1}, {"": None}, {1: 2}),
)
SIGNS = (
    b"\0",
    b"\t",
    b"\xff",
    b": ",
    b"- ",
    b"{",
    b"]",
    b"&a *a",
    b"<<: *a",
    b"!!int ",
    b"!!set ",
    b"|",
    b"?",
    b"'",
    b"\n---\n",
)
SIGNS += (b"${", b"}", b"%YAML 9.9\n", b"\xe2\x80\xa8", b"2024-01-01", b"0x_", b"1:60", b"[" * 200)


def change_text(draw: Draw, data: bytes) -> bytes:
    """One change of bytes or lines."""
    start, size = draw(st.integers(0, len(data) - 1)), draw(st.integers(1, 60))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
    if kind == 1:
        return data[:start] + data[start + size :]
    if kind == 2:
        return data[:start]
    if kind == 3:
        return data[:start] + draw(st.sampled_from(SIGNS) | st.binary(min_size=1, max_size=8)) + data[start:]
    if kind == 4:
        return data[:start] + data[start : start + size] * 2 + data[start + size :]
    lines = data.splitlines(keepends=True)
    moved = lines.pop(draw(st.integers(0, len(lines) - 1)))
    lines.insert(draw(st.integers(0, len(lines))), moved)
    return b"".join(lines)


def change_settings(draw: Draw, data: bytes) -> bytes:
    """One key that has another value, another name or another place, or is gone."""
    tree = yaml.safe_load(data)
    places = list(_places(tree))
    place, key = places[draw(st.integers(0, len(places) - 1))]
    value = place.pop(key)
    kind = draw(st.integers(0, 5))
    if kind == 0:
        place[draw(st.sampled_from(("", key + "x", key.upper(), "a.b", "x y", 7)))] = value
    elif kind == 1:
        other, name = places[draw(st.integers(0, len(places) - 1))]
        other[name] = value
    elif kind > 2:
        place[key] = draw(st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(max_size=20))
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")


def _places(tree: Any) -> Iterator[tuple[dict[Any, Any], Any]]:
    if isinstance(tree, dict):
        for key in tree:
            yield tree, key
            yield from _places(tree[key])


def try_configs(folder: Path, configs: Sequence[Path], *, count: int) -> Counter[str]:
    """So many changed configs; how many were taken and refused."""
    plugins, path, found = load_plugins(), folder / "config.yaml", Counter[str]()
    texts = [config.read_bytes() for config in configs]

    @tries(count)
    @given(st.data())
    def try_one(some: st.DataObject) -> None:
        change = some.draw(st.sampled_from([change_text, change_settings]))
        path.write_bytes(change(some.draw, some.draw(st.sampled_from(texts))))
        found["taken" if attempt(lambda: _take(path, plugins)) is None else "refused"] += 1

    try_one()
    return found


def _take(path: Path, plugins: PluginSet) -> None:
    """All that is looked at before data are."""
    config = load(path, ["data.path=somewhere"]).config
    for name, stream in config.streams.items():
        where = f"streams.{name}"
        validate(plugins.codec_config(stream.codec, where=where), stream.config, where=f"{where}.config")
