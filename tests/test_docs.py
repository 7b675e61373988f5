"""The documentation against the code: links, commands, names, settings and Python blocks.

What is checked is what rots: a setting that was renamed, a command that moved, a function that the tour of the code
still names. Sentences are not. The changelog may name commands that are gone, so its commands are not looked at.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from pydantic import BaseModel

from colatent.cli.main import cli
from colatent.config import RunConfig, load
from colatent.plugins import LatentSpec, contract, items, load_plugins
from colatent.plugins.contract import OptionedCodec
from colatent.testing.surface import methods

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("**/*.md"))
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
PAGES = [*GUIDES, ROOT / "CHANGELOG.md"]
ROOMS = (ROOT, ROOT / "core" / "colatent", *sorted((ROOT / "plugins").iterdir()))
"""Where a path in the documentation may begin."""
SETTINGS = ROOT / "docs" / "configuration.md"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, *languages: str) -> Iterator[str]:
    return (body for language, body in FENCE.findall(text) if language in languages)


# Links.


def anchors(path: Path) -> set[str]:
    """What a link into a page may name: its headings, as code hosts spell them."""
    headings = HEADING.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, page: Path) -> list[str]:
    broken = []
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    assert not broken_links(page.read_text(encoding="utf-8"), page)


def test_the_search_for_links_finds_broken_ones():
    text = "[a](concepts.md) [b](concepts.md#time) [c](none.md) [d](concepts.md#none) [e](https://x.org/none)"
    assert broken_links(text, ROOT / "docs" / "files.md") == ["none.md", "concepts.md#none"]


def test_every_page_is_reached_by_a_link():
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not target.startswith("#")
    }
    lost = [name_of(page) for page in DOCS if page not in linked]
    assert not lost, f"link them from docs/concepts.md or the README: {lost}"


# Commands.


def commands(text: str) -> Iterator[list[str]]:
    """The words after `colatent` of every command line: lines of shell blocks, and inline code."""
    lines = [line for body in blocks(text, "", "sh", "bash", "console", "shell") for line in joined(body)]
    for line in [*lines, *INLINE.findall(FENCE.sub("", text))]:
        found = re.match(r"(?:\$ )?(?:\S*/)?colatent(?: (.*))?$", line.strip())
        if found:
            yield shlex.split(found[1] or "", comments=True)


def joined(body: str) -> list[str]:
    return body.replace("\\\n", " ").splitlines()


def complaints(words: list[str]) -> Iterator[str]:
    """What the command line would not understand of a documented command."""
    command: click.Command = cli
    context = click.Context(cli, info_name="colatent")
    options = {"--debug", "--help", "-h"}
    for word in words:
        if word.startswith("-"):
            options |= {name for parameter in command.params for name in parameter.opts}
            if word.partition("=")[0] not in options and word != "--":
                yield f"{context.command_path} has no option {word}"
        elif isinstance(command, click.Group) and word[0].islower():
            choices = [command.get_command(context, each) for each in word.split("|")]
            if None in choices:
                yield f"{context.command_path} has no command {word}"
                return
            command = choices[0]  # type: ignore[assignment]
            context = click.Context(command, info_name=word, parent=context)


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_documented_commands_exist(page):
    wrong = [line for words in commands(page.read_text(encoding="utf-8")) for line in complaints(words)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("`colatent train CONFIG --resume`", False),
        ("`colatent plugins list|info`", False),
        ("`colatent --help`", False),
        ("`colatent fly`", True),
        ("`colatent plugins fly`", True),
        ("`colatent generate RUN --wings 2`", True),
        ("```\n$ .venv/bin/colatent generate RUN \\\n  --wings\n```", True),
        ("`colatent` is a word", False),
    ],
)
def test_the_search_for_commands_finds_wrong_ones(line, wrong):
    assert bool([each for words in commands(line) for each in complaints(words)]) == wrong


def training_lines() -> list[list[str]]:
    """`colatent train FILE KEY=VALUE ...` where the file is one of ours."""
    found = [words for page in GUIDES for words in commands(page.read_text(encoding="utf-8"))]
    named = [words[1:] for words in found if words[:1] == ["train"] and words[1:2] and words[1].endswith(".yaml")]
    return [words for words in named if words[0].startswith("examples/")]


def test_documented_training_lines_load():
    assert training_lines()
    for path, *rest in training_lines():
        load(ROOT / path, [word for word in rest if not word.startswith("-")])


# Files and names.


def places() -> list[tuple[str, str]]:
    """(page, reference) of inline code that names a file or a name in one: `flow/path.py:interpolate`."""
    reference = re.compile(r"[\w.-]+(?:/[\w.-]+)+\.(?:py|yaml|toml)(?::[\w.]+)?")
    return [
        (name_of(page), code)
        for page in GUIDES
        for code in INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        if reference.fullmatch(code)
    ]


@cache
def names(path: Path) -> frozenset[str]:
    """Functions, classes, methods and assigned names of a module, methods as Class.method."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        found |= defined(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for inner in node.body for name in defined(inner)}
    return frozenset(found)


def defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return {target.id for target in targets if isinstance(target, ast.Name)}


def missing(reference: str) -> bool:
    file, _, name = reference.partition(":")
    paths = [room / file for room in ROOMS if (room / file).is_file()]
    return not paths or (bool(name) and name not in names(paths[0]))


def test_files_and_names_in_the_documentation_exist():
    assert len(places()) > 40
    wrong = [f"{page}: {reference}" for page, reference in places() if missing(reference)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("reference", "gone"),
    [
        ("flow/path.py:interpolate", False),
        ("colatent_text/codec.py:TextCodec.encode", False),
        ("flow/path.py:fly", True),
        ("flow/none.py", True),
        ("colatent_text/codec.py:TextCodec.fly", True),
    ],
)
def test_the_search_for_names_finds_missing_ones(reference, gone):
    assert missing(reference) == gone


# Python blocks.


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_compile(page):
    for body in blocks(page.read_text(encoding="utf-8"), "python", "py"):
        compile(body, name_of(page), "exec")


# The contract.


def contract_section() -> str:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    return text.partition("### The contract\n")[2].partition("\n### ")[0]


def test_the_records_of_the_contract_are_documented_field_by_field():
    found: dict[str, list[str]] = {}
    for record, field in re.findall(r"^\| (?:`(\w+)` )?\| `(\w+)` \| \S.* \|$", contract_section(), re.MULTILINE):
        found.setdefault(record or list(found)[-1], []).append(field)
    records = (LatentSpec, contract.Encoded, contract.Latents, contract.BlockPlan, contract.PlanRequest, items.Shown)
    assert found == {record.__name__: [field.name for field in fields(record)] for record in records}


def test_the_methods_of_the_contract_are_documented_as_they_are_called():
    written = re.findall(r"^\| `(\w+\(.*\))` \| \S.* \|$", contract_section(), re.MULTILINE)
    protocols = (contract.Codec, contract.TrainableCodec)
    assert written == [call(protocol, name) for protocol in protocols for name in methods(protocol)]


def call(protocol: type, name: str) -> str:
    """A method with its arguments, without types."""
    _, *arguments = inspect.signature(getattr(protocol, name)).parameters.values()
    return f"{name}{inspect.Signature([each.replace(annotation=each.empty) for each in arguments])}"


# Settings.


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings models anywhere inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def with_nested(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            yield from with_nested(inner)


@cache
def all_models() -> dict[str, type[BaseModel]]:
    """Every model of settings in this distribution, by the name of its class."""
    found = load_plugins()
    ours = [plugin for plugin in found.active if plugin.distribution == "colatent"]
    roots = [RunConfig]
    roots += [found.codec_config(info.name) for plugin in ours for info in plugin.codecs]
    codecs = [found.codec_class(info.name) for plugin in ours for info in plugin.codecs]
    roots += [codec.options_model() for codec in codecs if isinstance(codec, OptionedCodec)]
    roots += [found.dataset_config(info.name) for plugin in ours for info in plugin.datasets]
    roots += [found.task_config(info.name) for plugin in ours for info in plugin.tasks]
    return {model.__name__: model for root in roots for model in with_nested(root)}


def documented() -> dict[str, dict[str, str]]:
    """The tables of the page: model -> key -> default as written. A heading names its model in brackets."""
    tables: dict[str, dict[str, str]] = {}
    for section in re.split(r"^## ", SETTINGS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        model = re.search(r"\(`(\w+)`\)$", heading)
        if model:
            rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| \S.* \|$", body, re.MULTILINE)
            tables[model[1]] = dict(rows)
    return tables


def expected(model: type[BaseModel]) -> dict[str, Any]:
    return {name: default_of(field) for name, field in model.model_fields.items()}


def default_of(field: Any) -> Any:
    if list(models_in(field.annotation)):
        return "below"
    if field.is_required():
        return "required"
    return json.loads(json.dumps(field.get_default(call_default_factory=True)))  # a tuple as the list that YAML has


def test_every_model_of_settings_has_a_table():
    assert documented().keys() == all_models().keys()


@pytest.mark.parametrize("name", sorted(all_models()))
def test_settings_are_documented_with_their_defaults(name):
    written = {key: yaml.safe_load(cell.strip("`")) for key, cell in documented()[name].items()}
    assert written == expected(all_models()[name])
