"""Shards that lie behind https: fetched once, whole or not at all, into a folder of their own.

A file in the cache is named by a hash of its address: nothing that a server or an index says becomes a path. It is
written aside, its size compared with what was promised, and renamed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from colatent.checkpoint.storage import hash_file, sync_folder, temporary_beside
from colatent.data.index import Shard
from colatent.errors import UserError

CACHE = "colatent/shards"
TIMEOUT = 60.0
"""Seconds without a byte after which a server is given up."""


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """A redirection may not lead out of https."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"it leads to {newurl[:80]}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A folder of fetched files."""

    folder: Path

    @classmethod
    def at(cls, folder: str | None) -> Cache:
        """The folder that a config names, else one in the user's cache."""
        if folder is not None:
            return cls(folder=Path(folder))
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(folder=Path(home) / CACHE)

    def fetch(self, address: str, *, shard: Shard | None = None) -> Path:
        """The file at an address; `shard`: what it must be. One that is in the cache is not fetched again."""
        suffix = ".json" if address.endswith(".json") else ".tar"
        path = self.folder / (hashlib.sha256(address.encode()).hexdigest()[:32] + suffix)
        if not path.is_file():
            try:
                self._fetch(address, path, shard)
            except (OSError, HTTPException, ValueError) as error:
                if isinstance(error, UserError):
                    raise
                reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
                raise UserError(f"cannot be fetched ({reason})", where=address, do="check the address") from error
        return path

    def _fetch(self, address: str, path: Path, shard: Shard | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            promised = _download(address, temporary)
            size, expected = temporary.stat().st_size, promised if shard is None else shard.size
            if expected is not None and size != expected:
                what = f"{size} bytes came, {expected} were promised"
                raise UserError(what, where=address, do="try again")
            if shard is not None and hash_file(temporary) != shard.sha256:
                raise UserError("is not what its index says (sha256)", where=address, do="ask who offers it")
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _download(address: str, path: Path) -> int | None:
    """Write what lies at an address to a new file; gives the size that the server says."""
    opener = urllib.request.build_opener(_OnlyHttps)
    with opener.open(address, timeout=TIMEOUT) as answer, open(path, "xb") as file:
        promised = answer.headers.get("Content-Length", "")
        size = f" ({int(promised) / 2**20:,.1f} MiB)" if promised.isdigit() else ""
        print(f"colatent: fetching {address}{size}", file=sys.stderr, flush=True)  # it may take long
        shutil.copyfileobj(answer, file, 2**20)
        file.flush()
        os.fsync(file.fileno())
    return int(promised) if promised.isdigit() else None
