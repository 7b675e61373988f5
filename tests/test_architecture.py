"""Who may know whom, held by reading the sources: no module is imported here.

Rooms are the folders and files directly under core/colatent. A room may import itself and rooms of lower floors. All
imports count for that, those inside functions too; only imports that run at import time count for circles of modules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml

from colatent.config import RunConfig, load

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    {"errors", "jsons"},
    {"config", "plugins"},
    {"latents"},
    {"data", "checkpoint", "prior", "flow"},
    {"train", "generate", "evaluate", "testing"},
    {"cli"},
    {"", "__main__"},
)
"""From the ground up; "" is colatent/__init__.py, the door for library users."""
ACROSS = {("train", "evaluate"), ("evaluate", "generate"), ("data", "checkpoint")}
"""Imports allowed on one floor: a training run ends with an evaluation, a model is judged by what it generates, and
shards are written as checkpoints are, by `checkpoint/storage.py`."""
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CONFIGS = sorted((ROOT / "examples" / "configs").glob("**/*.yaml"))


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported name: `from a import b` is a.b where that is a module, else a."""

    module: str
    line: int
    at_import: bool


@dataclass(frozen=True, kw_only=True)
class Module:
    """One source file, read."""

    name: str
    path: Path
    package: bool
    tree: ast.Module

    def at(self, node: ast.AST | Import) -> str:
        line = node.line if isinstance(node, Import) else getattr(node, "lineno", 1)
        return f"{self.path.relative_to(ROOT)}:{line}"

    @property
    def room(self) -> str:
        return room(self.name)


def room(name: str) -> str:
    """The room that a module of the core lives in."""
    return ".".join(name.split(".")[1:2])


@cache
def modules(*roots: str) -> tuple[Module, ...]:
    found = []
    for root in roots or ("core", *PLUGIN_ROOTS):
        for path in sorted((ROOT / root).glob("**/*.py")):
            parts = list(path.relative_to(ROOT / root).with_suffix("").parts)
            package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if package else parts)
            found.append(
                Module(name=name, path=path, package=package, tree=ast.parse(path.read_text(encoding="utf-8")))
            )
    return tuple(found)


PLUGIN_ROOTS = tuple(sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*") if path.is_dir()))
PLUGIN_PACKAGES = {path.parent.name for path in ROOT.glob("plugins/*/*/__init__.py")}


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module; relative ones are spelt out."""
    names = {other.name for other in modules()}
    for node, at_import in _statements(module.tree, at_import=True):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module=alias.name, line=node.lineno, at_import=at_import)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(module=inner if inner in names else base, line=node.lineno, at_import=at_import)


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + module.package]
    return ".".join([*parts, node.module] if node.module else parts)


def _statements(node: ast.AST, *, at_import: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield child, at_import
        yield from _statements(child, at_import=at_import and not later and not typing_only)


def floor(name: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if name in rooms), None)


def test_every_room_has_a_floor():
    unknown = {module.room for module in modules("core") if floor(module.room) is None}
    assert not unknown, f"say in FLOORS where they stand: {sorted(unknown)}"


def test_rooms_import_downwards_only():
    wrong = []
    for module in modules("core"):
        for found in imports(module):
            here, there = module.room, room(found.module)
            if found.module.split(".")[0] != "colatent" or here == there or (here, there) in ACROSS:
                continue
            if floor(there) is None or floor(there) >= floor(here):
                wrong.append(f"{module.at(found)}: {here or 'colatent'} must not import {found.module}")
    assert not wrong, "\n".join(wrong)


def test_core_knows_no_plugin():
    assert PLUGIN_PACKAGES
    wrong = [
        f"{module.at(found)}: imports {found.module}"
        for module in modules("core")
        for found in imports(module)
        if found.module.split(".")[0] in PLUGIN_PACKAGES
    ]
    named = [
        f"{module.path.relative_to(ROOT)}: names {package}"
        for module in modules("core")
        for package in PLUGIN_PACKAGES
        if package in module.path.read_text(encoding="utf-8")
    ]
    assert not wrong + named, "\n".join(wrong + named)


def test_plugins_do_not_know_each_other():
    wrong = [
        f"{module.at(found)}: imports {found.module}"
        for module in modules(*PLUGIN_ROOTS)
        for found in imports(module)
        if found.module.split(".")[0] in PLUGIN_PACKAGES - {module.name.split(".")[0]}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_round_a_circle():
    graph = {module.name: {found.module for found in imports(module) if found.at_import} for module in modules()}
    graph = {name: targets & graph.keys() - {name} for name, targets in graph.items()}
    while leaves := {name for name, targets in graph.items() if not targets}:
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}
    assert not graph, f"a circle is among {sorted(graph)}"


def test_no_import_climbs():
    wrong = [
        module.at(node)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level > 1
    ]
    assert not wrong, f"write these in full: {wrong}"


def modalities() -> set[str]:
    declared = {
        keyword.value.value
        for module in modules(*PLUGIN_ROOTS)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "modality" and isinstance(keyword.value, ast.Constant)
    }
    return declared | {"text", "image", "audio", "video"}


def asks_for_a_modality(node: ast.AST, names: set[str]) -> bool:
    """Whether a node is a comparison, a case or a dispatch table over modalities."""
    strings = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    if isinstance(node, ast.Compare):
        ladder = any(_last_name(part) == "modality" for part in (node.left, *node.comparators))
        return bool(strings & names) or (ladder and bool(strings))
    if isinstance(node, ast.MatchValue):
        return bool(strings & names)
    if isinstance(node, ast.Dict):
        return any(isinstance(key, ast.Constant) and key.value in names for key in node.keys)
    return False


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def test_core_names_no_modality():
    names = modalities()
    wrong = [
        f"{module.at(node)}: {ast.unparse(node)[:80]}"
        for module in modules("core")
        for node in ast.walk(module.tree)
        if asks_for_a_modality(node, names)
    ]
    assert not wrong, "the seam should carry this:\n" + "\n".join(wrong)


RUNS = {"eval", "exec", "__import__", "builtins.eval", "builtins.exec", "os.system", "os.popen", "runpy.run_path"}
RUNS |= {"torch.load", "torch.save", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "pandas.read_pickle"}
RUNS |= {"subprocess.getoutput", "subprocess.getstatusoutput"}
UNPACKS = {"extract", "extractall", "unpack_archive"}
"""Functions that give files the names that an archive gives them."""


def dangers(module: Module) -> Iterator[str]:
    """What would run or unpickle what a file says, or write where it says."""
    known = aliases(module)
    for found in imports(module):
        if found.module.split(".")[0] in PICKLES:
            yield f"{module.at(found)}: imports {found.module}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (f"{module.at(node)}: imports {name}" for name in sorted(names & RUNS))
        if isinstance(node, ast.Name | ast.Attribute):  # called here, or under another name elsewhere
            first, *rest = ast.unparse(node).split(".")
            meant = ".".join([known.get(first, first), *rest])
            if meant in RUNS or meant.startswith("torch.serialization.") or meant.endswith("Pickler.loads"):
                yield f"{module.at(node)}: names {meant}"
        if isinstance(node, ast.Dict):
            yield from (f"{module.at(key)}: shell" for key in node.keys if key and ast.unparse(key) == "'shell'")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called.split(".")[-1] in UNPACKS:
            yield f"{module.at(node)}: calls {called}"
        for keyword in node.keywords:
            if keyword.arg in {"shell", "allow_pickle"} and ast.unparse(keyword.value) != "False":
                yield f"{module.at(node)}: {keyword.arg}={ast.unparse(keyword.value)}"


def aliases(module: Module) -> dict[str, str]:
    """What the names that a module imports stand for."""
    found = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_nothing_is_unpickled_or_executed_and_no_archive_names_files():
    wrong = [line for module in modules() if module.room != "testing" for line in dangers(module)]
    assert not wrong, "\n".join(wrong)


def test_every_file_opens_with_a_docstring():
    tests = (path for path in (ROOT / "tests").glob("**/*.py") if path.read_text(encoding="utf-8").strip())
    trees = [(module.path, module.tree) for module in modules() if module.tree.body]
    trees += [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in tests]
    silent = [path.relative_to(ROOT).as_posix() for path, tree in trees if not ast.get_docstring(tree)]
    assert not silent, f"say what lives here: {silent}"


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("import pickle", True),
        ("def f():\n    from pickle import loads", True),
        ("torch.load('x')", True),
        ("eval('1')", True),
        ("from torch import load", True),
        ("import torch as t\nt.load('x')", True),
        ("from torch import serialization\nserialization.load('x')", True),
        ("run = eval\nrun('1')", True),
        ("import builtins as b\nb.exec('1')", True),
        ("import _pickle", True),
        ("from multiprocessing.reduction import ForkingPickler\nForkingPickler.loads(data)", True),
        ("subprocess.run('ls', **{'shell': True})", True),
        ("from os import system", True),
        ("yaml.load(text, Loader=yaml.Loader)", True),
        ("archive.extractall('here')", True),
        ("shutil.unpack_archive('x.tar')", True),
        ("subprocess.run('ls', shell=True)", True),
        ("np.load('x', allow_pickle=True)", True),
        ("model.eval()\nsubprocess.run(['ls'], shell=False)", False),
        ("archive.extractfile(member).read()\nyaml.safe_load(text)\nfrom torch import save_to", False),
    ],
)
def test_the_search_for_dangers_finds_them(source, caught):
    module = Module(name="colatent.x", path=ROOT / "x.py", package=False, tree=ast.parse(source))
    assert bool(list(dangers(module))) == caught


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("codec.name == 'text'", True),
        ("'image' in fields", True),
        ("kind in ('audio', 'x')", True),
        ("info.modality == 'touch'", True),
        ("match x:\n    case 'video': pass", True),
        ("{'text': 1}[x]", True),
        ("info.modality == other.modality", False),
        ("codec.name == name", False),
    ],
)
def test_the_search_for_modalities_finds_them(source, caught):
    nodes = ast.walk(ast.parse(source))
    assert any(asks_for_a_modality(node, {"text", "image", "audio", "video"}) for node in nodes) == caught


def to_be_given(value: object, key: str = "") -> Iterator[str]:
    """Key paths that hold `???`."""
    if value == "???":
        yield key
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from to_be_given(inner, f"{key}.{name}" if key else name)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_config_loads(path):
    given = [f"{key}=somewhere" for key in to_be_given(yaml.safe_load(path.read_text(encoding="utf-8")))]
    config = load(path, given).config
    assert isinstance(config, RunConfig)
