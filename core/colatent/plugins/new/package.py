"""Write the package of a new plugin from the files in template/, with the names filled in.

All names derive from one: `heart-rate` is the codec and the plugin, `colatent-heart-rate` the distribution,
`colatent_heart_rate` the package. A folder is written aside and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from string import Template

from colatent.errors import UserError
from colatent.plugins.loader import NAME
from colatent.plugins.pluginset import PluginSet
from colatent.plugins.registry import Kind

TEMPLATES = Path(__file__).with_name("template")
FILES = {
    "README.md": "README.md.in",
    "pyproject.toml": "pyproject.toml.in",
    "train.yaml": "train.yaml.in",
    "mixed.yaml": "mixed.yaml.in",
    "$package/__init__.py": "init.py.in",
    "$package/codec.py": "codec.py.in",
    "$package/config.py": "config.py.in",
    "$package/data.py": "data.py.in",
    "$package/plugin.py": "plugin.py.in",
    "$package/task.py": "task.py.in",
    "tests/test_conformance.py": "conformance.py.in",
}
"""The files of a package, and the template of each."""

PACKAGE_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off")
"""What a config does not read as a name."""
RESERVED = ("shared", "ema")
"""What no stream may be called, and so no codec either: its name is the stream's default."""
SIDES = {1: ("length",), 2: ("height", "width"), 3: ("frames", "height", "width")}
LONGEST = {1: 24, 2: 6, 3: 4}
"""Longest side of the made-up arrays, so that an item has a few dozen latents on any number of axes."""

CAPTIONS = ("text", "caption")
"""Field of the captions that the made-up data have: the first that is not the package's own modality."""


@dataclass(frozen=True, kw_only=True)
class NewPackage:
    """The package to write.

    name      of plugin and codec
    modality  the kind of data
    axes      position axes of a latent, 1 to 3
    """

    name: str
    modality: str
    axes: int = 1

    @property
    def distribution(self) -> str:
        """What pip calls it."""
        return f"colatent-{self.name}"

    @property
    def package(self) -> str:
        """What Python imports."""
        return self.distribution.replace("-", "_")

    def files(self) -> dict[str, str]:
        """Path in the folder and text of each file."""
        words = self._words()
        return {
            Template(path).substitute(words): Template((TEMPLATES / file).read_text(encoding="utf-8")).substitute(words)
            for path, file in FILES.items()
        }

    def _words(self) -> Mapping[str, str]:
        """What stands for each placeholder of the templates."""
        sides, longest = SIDES[self.axes], LONGEST[self.axes]
        return {
            "name": self.name,
            "modality": self.modality,
            "caption": next(field for field in CAPTIONS if field != self.modality),
            "axes": str(self.axes),
            "package": self.package,
            "class_name": "".join(map(str.capitalize, self.name.split("-"))),
            "sizes": ", ".join(["PositiveInt"] * self.axes),
            "shape": str((longest,) * self.axes),
            "shape_names": ", ".join(sides),
            "shape_words": f"({', '.join(sides)}, features)",
            "longest": str(longest),
        }


def check_new(new: NewPackage, found: PluginSet) -> None:
    """Refuse names that cannot be used, or that somebody has."""
    if not PACKAGE_NAME.fullmatch(new.name):
        do = "use small letters and digits, beginning with a letter, and single '-' between words"
        raise UserError(f"{new.name!r} cannot be the name of a package", do=do)
    if new.name in YAML_WORDS:
        raise UserError(f"{new.name!r} is no name in a config: YAML reads it as a value", do="choose another name")
    if not NAME.fullmatch(new.modality):
        do = "use small letters, digits, '-', '_' and '.'"
        raise UserError(f"{new.modality!r} cannot be the name of a modality", do=do)
    if owner := next(_owners(new, found), None):
        raise UserError(f"{new.name!r} is taken: {owner}", do="choose another name")


def _is_of_modules(name: str) -> bool:
    from torch.nn import ModuleDict

    return hasattr(ModuleDict(), name)


def _owners(new: NewPackage, found: PluginSet) -> Iterator[str]:
    """Who has the name already, in words."""
    if new.name in RESERVED:
        yield "colatent uses it within checkpoints"
    if _is_of_modules(new.name):
        yield "torch uses it within modules, and so it cannot name a stream"
    codec: tuple[Kind, str] = ("codec", new.name)
    for plugin in found.plugins:
        if plugin.name == new.name or codec in plugin.claims:
            yield f"{plugin.title} is installed"
    if pinned := found.registry.pinned_to(*codec):
        yield f"{found.registry.path.name} gives it to the package {pinned}"
    with suppress(PackageNotFoundError):
        yield f"{new.distribution} {version(new.distribution)} is installed"
    if find_spec(new.package) is not None:
        yield f"there is a package {new.package} already"


def write_new(new: NewPackage, folder: Path) -> list[str]:
    """Write the package into a new or empty folder; gives the paths of its files there, sorted."""
    if folder.exists() and not folder.is_dir():
        raise UserError("is a file", where=str(folder), do="name a folder that is new or empty")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError("is not empty", where=str(folder), do="name a folder that is new or empty")
    files = new.files()
    # An empty folder may be somebody's current one, so it is filled and not replaced.
    aside = (folder if folder.is_dir() else folder.parent) / f".tmp-{new.distribution}-{secrets.token_hex(4)}"
    try:
        for path, text in files.items():
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            (aside / path).write_text(text, encoding="utf-8")
        _put_in_place(aside, folder)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise UserError(what, where=str(folder), do="choose another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return sorted(files)


def _put_in_place(aside: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(aside, folder)
        return
    for entry in aside.iterdir():
        os.rename(entry, folder / entry.name)
