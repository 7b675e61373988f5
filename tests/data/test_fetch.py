"""Shards from an https address: fetched once, whole or not at all, and nowhere but into the cache.

A server on this machine speaks the protocol without its encryption, which is Python's own and not on trial here.
"""

from __future__ import annotations

import http.client
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from colatent.data.locate import locate
from colatent.errors import UserError
from data.shards_made import opened, packed, text_of, texts


class Server:
    """Answers by path: bytes, or a status with a place to go to.

    asked  the paths that were asked for
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: dict[str, bytes | str] = {}
        self.promises: dict[str, int] = {}
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    def __init__(self, served: Server, *rest: Any) -> None:
        self.served = served
        super().__init__(*rest)

    def do_GET(self) -> None:
        self.served.asked.append(self.path)
        answer = self.served.answers.get(self.path)
        if isinstance(answer, str):
            self.send_response(302)
            self.send_header("Location", answer)
            self.end_headers()
        elif answer is None:
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(self.served.promises.get(self.path, len(answer))))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    served = Server("")
    running = HTTPServer(("127.0.0.1", 0), partial(Handler, served))
    served.address = f"https://127.0.0.1:{running.server_port}"
    monkeypatch.setattr(
        urllib.request.HTTPSHandler,
        "https_open",
        lambda self, request: self.do_open(http.client.HTTPConnection, request),
    )
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield served
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def offered(server: Server, tmp_path: Path) -> Server:
    """A server of packed shards."""
    for path in packed(tmp_path / "shards", 20).iterdir():
        server.answers[f"/d/{path.name}"] = path.read_bytes()
    return server


def test_an_index_leads_to_its_shards_which_are_fetched_once(offered: Server, tmp_path: Path) -> None:
    address, cache = f"{offered.address}/d/shards.json", tmp_path / "cache"
    for _ in range(2):
        found = texts(opened(address, cache=str(cache))) + texts(opened(address, cache=str(cache), split="heldout"))
        assert sorted(found) == sorted(text_of(number) for number in range(20))
    assert offered.asked == ["/d/shards.json", "/d/000000.tar", "/d/000001.tar"]
    assert all(path.stem.isalnum() and path.parent == cache for path in cache.rglob("*"))


def test_archives_without_an_index_are_named_by_a_pattern(offered: Server, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="samples were found by looking through it"):
        found = locate(f"{offered.address}/d/{{000000..000001}}.tar", cache=str(tmp_path / "cache"))
    assert sum(len(one.shard.keys) for one in found) == 20


def test_the_users_cache_is_the_default(offered: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    locate(f"{offered.address}/d/shards.json")
    assert len(list((tmp_path / "home" / "colatent" / "shards").iterdir())) == 3


@pytest.mark.parametrize(
    ("path", "change", "line"),
    [
        ("/d/000001.tar", lambda data: None, r"000001\.tar: cannot be fetched \(Not Found\)"),
        ("/d/000001.tar", lambda data: data[:-1], r"000001\.tar: \d+ bytes came, \d+ were promised; try"),
        ("/d/000001.tar", lambda data: b"x" + data[1:], r"is not what its index says \(sha256\)"),
        ("/d/000001.tar", lambda data: "http://127.0.0.1/x.tar", r"leads to http://127\.0\.0\.1/x\.tar, which is not"),
        ("/d/000001.tar", lambda data: "file:///etc/passwd", r"cannot be fetched \("),
        ("/d/shards.json", lambda data: b"{}", r"shards\.json: is not an index of shards"),
        ("/d/shards.json", lambda data: data[:-40], r"shards\.json: is not JSON"),
    ],
)
def test_what_does_not_come_whole_is_refused_and_not_kept(
    path: str, change: Any, line: str, offered: Server, tmp_path: Path
) -> None:
    offered.answers[path] = change(offered.answers[path])
    if offered.answers[path] is None:
        del offered.answers[path]
    with pytest.raises(UserError, match=line):
        locate(f"{offered.address}/d/shards.json", cache=str(tmp_path / "cache"))
    kept = [one.name for one in (tmp_path / "cache").iterdir()]
    assert not [name for name in kept if name.startswith(".tmp-")]
    assert len(kept) <= 2


def test_fewer_bytes_than_promised_are_refused(offered: Server, tmp_path: Path) -> None:
    offered.promises["/d/000000.tar"] = 10**6
    with pytest.raises(UserError, match=r"000000\.tar: \d+ bytes came, 1000000 were promised; try again"):
        locate(f"{offered.address}/d/000000.tar", cache=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, server: Server) -> None:
    address = server.address.rpartition(":")[0] + ":9"
    with pytest.raises(UserError, match=r"a\.tar: cannot be fetched \(\[Errno 111\] Connection refused\); check"):
        locate(f"{address}/a.tar", cache=str(tmp_path / "cache"))
