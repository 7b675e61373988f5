"""Packages that look installed: metadata with an entry point in a folder that tests put on the path."""

from __future__ import annotations

from pathlib import Path


def install(site: Path, name: str, *, code: str | None = None, target: str | None = None, requires: str = "") -> None:
    """Put a package `name` with one plugin into the folder `site`.

    code      of its module; without it, `target` is the module that the entry point names
    requires  lines of its metadata that say what it needs
    """
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}")
    (info / "entry_points.txt").write_text(f"[colatent]\n{name} = {target or f'{name}_plugin'}\n")
    if code is not None:
        (site / f"{name}_plugin.py").write_text(code)
