"""A page in a real browser: what its console said, what it asked the network for, and what was to be seen.

The browser is Debian's chromium, with every name and address resolved to nothing: it could not reach the network if the
page, or the browser itself, tried.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A page as a browser had it.

    console   lines of its console
    asked     addresses that the page, and not the browser by itself, asked for
    pixels    its picture, (height, width, red-green-blue)
    """

    console: list[str]
    asked: list[str]
    pixels: np.ndarray

    def count(self, colour: tuple[int, int, int]) -> int:
        """Pixels of a colour, give or take the rounding of a browser."""
        return int((np.abs(self.pixels.astype(int) - colour) <= 3).all(axis=-1).sum())


def open_page(page: Path, folder: Path, *, dark: bool = False, height: int = 4000) -> Opened:
    """Open a page; the browser's own files go into `folder`."""
    assert CHROMIUM is not None
    network, picture = folder / "network.json", folder / "page.png"
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={network}", f"--window-size=1100,{height}", f"--screenshot={picture}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", page.absolute().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert picture.exists(), done.stderr
    events = [event.get("params", {}) for event in json.loads(network.read_text())["events"]]
    asked = [one["url"] for one in events if one.get("initiator", "not an origin") != "not an origin"]
    console = re.findall(r"CONSOLE:\d+\] (.*)", done.stderr)
    return Opened(console=console, asked=asked, pixels=np.asarray(Image.open(picture).convert("RGB")))
