"""What an import drags in, seen from a fresh interpreter: ours may have torch loaded already."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

HEAVY = ("torch", "tensorflow", "jax")

SCRIPT = """
import importlib, sys
target, reference = sys.argv[1:]
if target:
    importlib.import_module(target)
module, _, name = reference.partition(":")
model = getattr(importlib.import_module(module), name)
getattr(model(), "latent_spec", list)()
print(*[name for name in {heavy!r} if name in sys.modules])
"""


def heavy_imports(*, target: Any, config: str) -> list[str]:
    """The deep-learning libraries that loading a plugin's `target` and asking its `config` for a spec imports.

    target  the entry point's value; anything but a string is already loaded and not looked at
    config  "package.module:Model"
    """
    module = target.partition(":")[0] if isinstance(target, str) else ""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(heavy=HEAVY), module, config],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["the import failed"])[-1])
    return done.stdout.split()
