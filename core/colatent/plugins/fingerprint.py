"""One hash for the set of plugins in force.

Compared across ranks and stored with checkpoints and latent caches, so it holds only what is the same on every machine
with the same installation: no paths, no order, no summaries, and no plugin that is not in force.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from colatent.plugins.loader import Plugin
from colatent.plugins.records import API_VERSION, Declaration


def fingerprint(plugins: Iterable[Plugin]) -> str:
    """sha256 over the names, distributions, versions and declarations of `plugins`, and the seam's version."""
    import hashlib
    import json

    declared = sorted(
        (
            plugin.distribution,
            plugin.name,
            plugin.version,
            sorted(map(_declaration, plugin.codecs)),
            sorted(map(_declaration, plugin.datasets)),
            sorted(map(_declaration, plugin.tasks)),
        )
        for plugin in plugins
    )
    text = json.dumps({"api": API_VERSION, "plugins": declared}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _declaration(info: Declaration) -> list[tuple[str, object]]:
    values = {name: value for name, value in asdict(info).items() if name != "summary"}
    return [("name", values.pop("name")), *sorted(values.items())]
