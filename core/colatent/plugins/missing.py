"""A module that is not installed: whether that is what went wrong, and what brings it.

A plugin may leave a package to an extra, or to the user. Where it is missing, Python names a module and the person who
can mend it needs the name of a package, which is looked up in what the plugin's own package says that it requires.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from colatent.plugins.registry import normal

PACKAGES = {"PIL": "pillow", "cv2": "opencv-python", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Packages whose module has another name."""


def missing_module(error: BaseException | None, *, asked: str = "") -> str | None:
    """The module that `error` says is not installed; None where it says something else.

    asked  the module whose import failed: if that itself is not there, its name is wrong and no package is missing
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    top = error.name.partition(".")[0]
    if top == asked.partition(".")[0] or find_spec(top) is not None:
        return None
    return top


def what_is_missing(module: str) -> str:
    """The complaint about a missing module."""
    return f"needs the module {module!r}, which is not installed"


def how_to_install(module: str, distributions: Iterable[str]) -> str:
    """The command that brings a module; an extra of one of these distributions where it says so."""
    package = PACKAGES.get(module, module)
    for distribution in distributions:
        for requirement in _requirements(distribution):
            name = re.match(r"[\w.-]+", requirement)
            extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)", requirement)
            if name and extra and normal(name[0]) == normal(package):
                return f"pip install '{distribution}[{extra[1]}]'"
    return f"pip install {package}"


def _requirements(distribution: str) -> list[str]:
    try:
        return requires(distribution) or []
    except PackageNotFoundError:
        return []
