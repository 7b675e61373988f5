"""Configs that something happened to, drawn from a seed: each is taken or refused in one line that names it.

Half of them are changed as text, as an editor or a bad copy would; half as settings, by a value that no one means.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from colatent.config import load
from colatent.config.checks import validate
from colatent.errors import UserError
from colatent.plugins import PluginSet, load_plugins

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


def change_text(data: bytes, rng: random.Random) -> bytes:
    """One change of bytes or lines."""
    start, size = rng.randrange(len(data)), rng.randint(1, 60)
    lines = data.splitlines(keepends=True)
    moved = lines.pop(rng.randrange(len(lines)))
    lines.insert(rng.randrange(len(lines) + 1), moved)
    flipped = bytes([data[start] ^ 1 << rng.randrange(8)])
    return rng.choice(
        (
            data[:start] + flipped + data[start + 1 :],
            data[:start] + data[start + size :],
            data[:start],
            data[:start] + rng.choice(SIGNS) + data[start:],
            data[:start] + data[start : start + size] * 2 + data[start + size :],
            b"".join(lines),
        )
    )


def change_settings(data: bytes, rng: random.Random) -> bytes:
    """One key that has another value, another name or another place, or is gone."""
    tree = yaml.safe_load(data)
    places = list(_places(tree))
    place, key = rng.choice(places)
    value = place.pop(key)
    kind = rng.randrange(6)
    if kind == 0:
        place[rng.choice(("", key + "x", key.upper(), "a.b", "x y", 7))] = value
    elif kind == 1:
        other, name = rng.choice(places)
        other[name] = value
    elif kind > 2:
        place[key] = rng.choice(VALUES)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")


def _places(tree: Any) -> Iterator[tuple[dict[Any, Any], Any]]:
    if isinstance(tree, dict):
        for key in tree:
            yield tree, key
            yield from _places(tree[key])


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (change_text, change_settings)


def try_configs(folder: Path, configs: list[Path], *, tries: int, seed: int = 0) -> Counter[str]:
    """So many changed configs; how many were taken and refused."""
    rng, plugins, path = random.Random(seed), load_plugins(), folder / "config.yaml"
    found: Counter[str] = Counter()
    for number in range(tries):
        data = CHANGES[number % 2](rng.choice(configs).read_bytes(), rng)
        path.write_bytes(data)
        line = _complaint(path, plugins, data)
        found["taken" if line is None else "refused"] += 1
    return found


def _complaint(path: Path, plugins: PluginSet, data: bytes) -> str | None:
    """The one line with which a config is refused; None where it is taken."""
    try:
        _take(path, plugins)
    except UserError as error:
        line = str(error)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}\n{data!r}") from error
    else:
        return None
    assert "\n" not in line, data
    return line


def _take(path: Path, plugins: PluginSet) -> None:
    """All that is looked at before data are."""
    config = load(path, ["data.path=somewhere"]).config
    for name, stream in config.streams.items():
        where = f"streams.{name}"
        validate(plugins.codec_config(stream.codec, where=where), stream.config, where=f"{where}.config")
