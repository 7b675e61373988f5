"""The loader with real tiny plugins: installed distributions in a folder on the path, one per way to fail."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module, invalidate_caches
from pathlib import Path

import pluggy
import pytest

from colatent.errors import UserError
from colatent.plugins import API_VERSION, Candidate, CodecInfo, LatentSpec, TaskInfo, hookimpl, load_plugins
from colatent.plugins.hookspecs import HOOK_NAMES
from colatent.plugins.loader import installed
from colatent.plugins.registry import CodecEntry, DatasetEntry, Registry, TaskEntry, inventory_table, read_registry

ROOT = Path(__file__).parents[1]
OPEN = Registry(path=Path("registry.toml"))
PINNED = replace(
    OPEN,
    codecs={"text": CodecEntry(distribution="colatent", modality="text", axes=1, fields=("text",))},
    datasets={"words": DatasetEntry(distribution="colatent", fields=("text",))},
)

HEAD = """
from colatent.plugins import CodecInfo, DatasetInfo, hookimpl
def codec(name, **rest):
    base = dict(modality="toy", axes=1, fields=("toy",), factory="toy_codec:Toy", config="toy_codec:ToyConfig")
    return CodecInfo(name=name, **(base | rest))
"""
GOOD = HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('good')]\n"

Install = Callable[..., Candidate]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with one plugin on the path; its module is forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts of one size and second would share it

    def write(name: str, code: str, *, distribution: str | None = None, version: str = "1.0") -> Candidate:
        distribution = distribution or f"{name}-dist"
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[colatent]\n{name} = plugin_{name}\n")
        (tmp_path / f"plugin_{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, f"plugin_{name}", raising=False)
        invalidate_caches()
        return Candidate(name=name, distribution=distribution, version=version, target=f"plugin_{name}")

    return write


def only(candidate: Candidate, registry: Registry = OPEN):
    (plugin,) = load_plugins([candidate], registry=registry).plugins
    return plugin


def test_installed_distributions_are_found_by_entry_point(install: Install) -> None:
    candidate = install("found", GOOD, version="2.5")
    assert candidate in installed()


def test_active_plugin_answers_by_name(install: Install) -> None:
    found = load_plugins([install("good", GOOD)], registry=OPEN)
    (plugin,) = found.plugins
    assert (plugin.state, plugin.reason, plugin.hooks) == ("active", "", ("colatent_codecs",))
    assert found.codec("good") == plugin.codecs[0]


def test_a_module_object_and_a_generator_hook_work() -> None:
    class Plugin:
        @hookimpl
        def colatent_codecs(self):
            yield CodecInfo(name="a", modality="m", axes=2, fields=("f",), factory="a:B", config="a:C")

        @hookimpl
        def colatent_datasets(self):
            return []

        @hookimpl
        def colatent_tasks(self):
            return (TaskInfo(name="a", factory="a:B", config="a:C") for _ in range(1))

    plugin = only(Candidate(name="object", distribution="d", version="1", target=Plugin()))
    assert plugin.state == "active"
    assert plugin.hooks == ("colatent_codecs", "colatent_datasets", "colatent_tasks")
    assert plugin.claims == (("codec", "a"), ("task", "a"))  # a name is of one kind


BROKEN = {
    "raises at import": ("1 / 0", "import failed: ZeroDivisionError: division by zero"),
    "exits at import": ("raise SystemExit(3)", "import failed: SystemExit: 3"),
    "lacks a module": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "misspells a hook": (
        HEAD + "@hookimpl\ndef colatent_codec():\n    return []\n",
        "no hook is called 'colatent_codec'; did you mean 'colatent_codecs'?",
    ),
    "takes a wrong argument": (HEAD + "@hookimpl\ndef colatent_codecs(wrong):\n    return []\n", "does not fit"),
    "forgets the mark": (
        HEAD + "def colatent_codecs():\n    return []\n",
        "colatent_codecs is not marked with @hookimpl",
    ),
    "implements nothing": ("", "implements no hook"),
    "raises in a hook": (HEAD + "@hookimpl\ndef colatent_codecs():\n    raise OSError('gone')\n", "OSError: gone"),
    "raises in a generator": (
        HEAD + "@hookimpl\ndef colatent_datasets():\n    yield 1 / 0\n",
        "colatent_datasets raised: ZeroDivisionError",
    ),
    "returns a bare record": (
        HEAD + "@hookimpl\ndef colatent_codecs():\n    return codec('x')\n",
        "must return a list",
    ),
    "returns something else": (HEAD + "@hookimpl\ndef colatent_codecs():\n    return ['x']\n", "found str in it"),
    "declares a name twice": (
        HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('x'), codec('x')]\n",
        "declares codec 'x' twice",
    ),
    "has a bad name": (HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('X y')]\n", "name must be"),
    "has bad axes": (
        HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('x', axes=4)]\n",
        "axes must be 1, 2",
    ),
    "has text for fields": (
        HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('x', fields='toy')]\n",
        "fields must be a tuple",
    ),
    "has a bad reference": (
        HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('x', factory='a.B')]\n",
        "factory must be written as",
    ),
    "has a bad version": (
        HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('x', requires_api='one')]\n",
        "requires_api must be",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_and_the_others_work(case: str, install: Install) -> None:
    code, reason = BROKEN[case]
    found = load_plugins([install("aa", code), install("good", GOOD)], registry=OPEN)
    broken, good = found.plugins
    assert (broken.state, good.state) == ("broken", "active")
    assert reason in broken.reason
    assert "\n" not in broken.reason
    assert list(found.codecs) == ["good"]


def test_rollback_leaves_nothing_registered(install: Install) -> None:
    code = HEAD + (
        "@hookimpl\ndef colatent_datasets():\n"
        "    return [DatasetInfo(name='half', fields=('a',), factory='a:B', config='a:C')]\n"
        "@hookimpl\ndef colatent_codecs():\n    raise ValueError('late')\n"
        "@hookimpl\ndef colatent_add_commands(cli):\n    raise AssertionError('never asked')\n"
    )
    found = load_plugins([install("half", code)], registry=OPEN)
    (plugin,) = found.plugins
    assert (plugin.codecs, plugin.datasets, plugin.tasks, plugin.hooks, plugin.manager) == ((), (), (), (), None)
    assert (found.codecs, found.datasets, found.active, dict(found.owners)) == ({}, {}, (), {})
    import click

    cli = click.Group("colatent")
    found.add_commands(cli)
    assert not cli.commands


@pytest.mark.parametrize(
    ("requires", "state"),
    [
        ("1", "active"),
        ("1.0", "active"),
        (f"{API_VERSION[0]}.{API_VERSION[1] + 1}", "incompatible"),
        (f"{API_VERSION[0] + 1}", "incompatible"),
        ("0.9", "incompatible"),
    ],
)
def test_api_version(requires: str, state: str, install: Install) -> None:
    code = HEAD + f"@hookimpl\ndef colatent_codecs():\n    return [codec('x', requires_api={requires!r})]\n"
    found = load_plugins([install("versioned", code)], registry=OPEN)
    assert found.plugins[0].state == state
    if state == "incompatible":
        with pytest.raises(UserError, match=f"versioned-dist 1.0 is incompatible .*needs version {requires}"):
            found.codec("x")


def test_a_blocked_plugin_is_never_imported(install: Install) -> None:
    candidate = install("bad", "raise AssertionError('imported')")
    for policy in (
        replace(OPEN, block=("bad",)),
        replace(OPEN, block=("BAD_*",)),
        replace(OPEN, allow=("other",)),
    ):
        plugin = only(candidate, policy)
        assert plugin.state == "blocked"
        assert "policy." in plugin.reason
    assert "plugin_bad" not in sys.modules


def test_an_allow_list_admits_what_it_names_and_what_is_built_in(install: Install) -> None:
    policy = replace(OPEN, allow=("good-*",))
    assert only(install("good", GOOD), policy).state == "active"
    assert only(install("builtin", GOOD, distribution="colatent"), policy).state == "active"
    assert (
        only(install("builtin", GOOD, distribution="colatent"), replace(policy, block=("builtin",))).state == "blocked"
    )


def test_a_pinned_name_belongs_to_its_distribution(install: Install) -> None:
    text = HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('text'), codec('other')]\n"
    thief = install("aaa", text)
    found = load_plugins([thief], registry=PINNED)
    assert found.plugins[0].state == "shadowed"
    assert "codec 'text' belongs to colatent" in found.plugins[0].reason
    for name in ("text", "other"):
        with pytest.raises(
            UserError, match=f"codec '{name}' is not available: plugin 'aaa' of aaa-dist 1.0 is shadowed"
        ):
            found.codec(name)
    ours = install(
        "own", HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('text')]\n", distribution="Colatent"
    )
    both = load_plugins([thief, ours], registry=PINNED)
    assert [(plugin.name, plugin.state) for plugin in both.plugins] == [("own", "active"), ("aaa", "shadowed")]
    assert both.owners["codec", "text"].name == "own"
    assert both.codec("text")


def test_a_pinned_dataset_is_guarded_too(install: Install) -> None:
    code = HEAD + (
        "@hookimpl\ndef colatent_datasets():\n"
        "    return [DatasetInfo(name='words', fields=('a',), factory='a:B', config='a:C')]\n"
    )
    assert only(install("words", code), PINNED).state == "shadowed"
    assert only(install("words", code), OPEN).state == "active"


def test_tasks_are_declared_pinned_and_found_as_codecs_are(install: Install) -> None:
    code = (
        "from colatent.plugins import TaskInfo, hookimpl\n@hookimpl\ndef colatent_tasks():\n"
        "    return [TaskInfo(name='trial', factory='plugin_trial:Trial', config='plugin_trial:Settings')]\n"
        "class Trial: pass\nclass Settings:\n    model_fields = {}\n"
    )
    candidate = install("trial", code)
    found = load_plugins([candidate], registry=OPEN)
    assert (found.task_class("trial").__name__, found.task_config("trial").__name__) == ("Trial", "Settings")
    with pytest.raises(UserError, match=r"tasks.tral: no active plugin brings task 'tral'; did you mean 'trial'\?"):
        found.task("tral", where="tasks.tral")
    pinned = replace(OPEN, tasks={"trial": TaskEntry(distribution="another")})
    assert "task 'trial' belongs to another" in only(candidate, pinned).reason
    demo = install("trial", code.replace("name=", "demo='colatent_text:demo.yaml', name="))
    assert load_plugins([demo], registry=OPEN).demos()["trial"].is_file()
    wrong = install("trial", code.replace("name=", "demo='demo.yaml', name="))
    assert "demo must be written as 'package:file.yaml'" in only(wrong).reason
    same = install("trial", code.replace("name=", "requires_api='1.1', name="))
    assert load_plugins([same], registry=OPEN).fingerprint == found.fingerprint
    for version in ("1", "1.0"):
        older = install("trial", code.replace("name=", f"requires_api={version!r}, name="))
        line = f"task 'trial': requires_api must be at least '1.1', which brought tasks, found {version!r}"
        assert (only(older).state, only(older).reason) == ("broken", line)


def test_two_packages_with_one_open_name_are_refused_by_a_run(install: Install) -> None:
    code = HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('toy'), codec(__name__[-1])]\n"
    found = load_plugins([install("b", code), install("a", code)], registry=OPEN)
    assert [(plugin.name, plugin.state) for plugin in found.plugins] == [("a", "active"), ("b", "shadowed")]
    assert found.codec("a")
    with pytest.raises(UserError, match=r"'toy' is declared by plugin 'a' of a-dist 1.0 and by plugin 'b' of b-dist"):
        found.codec("toy")
    pin = CodecEntry(distribution="b-dist", modality="toy", axes=1, fields=("toy",))
    pinned = load_plugins([install("b", code), install("a", code)], registry=replace(OPEN, codecs={"toy": pin}))
    assert pinned.owners["codec", "toy"].name == "b"
    assert pinned.codec("toy")


def test_unknown_names_say_what_is_near_and_what_failed(install: Install) -> None:
    found = load_plugins([install("good", GOOD), install("sick", "1 / 0")], registry=PINNED)
    with pytest.raises(UserError) as caught:
        found.codec("god", where="streams.a.codec")
    assert str(caught.value) == (
        "streams.a.codec: no active plugin brings codec 'god', and plugin 'sick' of sick-dist 1.0 is broken (import "
        "failed: ZeroDivisionError: division by zero); did you mean 'good'?"
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(UserError, match="it comes with the package 'colatent': pip install colatent"):
        found.codec("text")
    with pytest.raises(UserError, match=r"dataset 'good'.*there are: none"):
        found.dataset("good")


TOY_CODEC = """
class Toy: pass
class ToyConfig:
    model_fields = {}
    def latent_spec(self): ...
NUMBER = 3
"""


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_toy:Toy", "cannot import 'no_such_toy' (ModuleNotFoundError"),
        ("toy_codec:Toys", "'toy_codec' has no 'Toys'; did you mean 'Toy'?"),
        ("toy_codec:NUMBER", "'toy_codec:NUMBER' is a int, not a class"),
    ],
)
def test_references_resolve_or_say_why(
    factory: str, message: str, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_codec.py").write_text(TOY_CODEC)
    monkeypatch.delitem(sys.modules, "toy_codec", raising=False)
    code = HEAD + f"@hookimpl\ndef colatent_codecs():\n    return [codec('good'), codec('bad', factory={factory!r})]\n"
    found = load_plugins([install("refs", code)], registry=OPEN)
    assert found.codec_class("good").__name__ == "Toy"
    assert found.codec_config("good").__name__ == "ToyConfig"
    with pytest.raises(UserError) as caught:
        found.codec_class("bad")
    assert str(caught.value).startswith("codec 'bad' of plugin 'refs' of refs-dist 1.0: ")
    assert message in str(caught.value)


def test_a_config_must_be_a_model_with_a_spec(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_codec.py").write_text(TOY_CODEC)
    monkeypatch.delitem(sys.modules, "toy_codec", raising=False)
    code = HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec('x', config='toy_codec:Toy')]\n"
    found = load_plugins([install("conf", code)], registry=OPEN)
    with pytest.raises(UserError, match="'toy_codec:Toy' is not a pydantic model"):
        found.codec_config("x")


def test_fingerprint_is_of_the_set_in_force(install: Install) -> None:
    def of(*candidates: Candidate) -> str:
        return load_plugins(candidates, registry=OPEN).fingerprint

    good, sick = install("good", GOOD), install("sick", "1 / 0")
    base = of(good)
    assert re.fullmatch(r"[0-9a-f]{64}", base)
    assert of(good) == of(good, sick) == base
    assert of(replace(good, version="1.1")) != base
    assert of(replace(good, distribution="another")) != base
    assert of(replace(good, name="another")) != base
    assert of() != base
    for change, differs in (("summary='x'", False), ("axes=2", True), ("config='a:B'", True)):
        code = GOOD.replace("codec('good')", f"codec('good', {change})")
        assert (of(install("good", code)) != base) is differs, change


def test_fingerprint_does_not_depend_on_order(install: Install) -> None:
    code = HEAD + "@hookimpl\ndef colatent_codecs():\n    return [codec(name) for name in NAMES]\n"
    one = load_plugins([install("order", "NAMES = 'ab'\n" + code)], registry=OPEN).fingerprint
    other = load_plugins([install("order", "NAMES = 'ba'\n" + code)], registry=OPEN).fingerprint
    assert one == other


def test_commands_of_each_plugin_apart(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    import click

    def adding(*lines: str) -> str:
        body = "".join(f"    {line}\n" for line in lines)
        return (
            f"import click\nfrom colatent.plugins import hookimpl\n@hookimpl\ndef colatent_add_commands(cli):\n{body}"
        )

    found = load_plugins(
        [
            install("a", adding("cli.add_command(click.Command('lost'))", "raise ValueError('half way')")),
            install("b", adding("cli.add_command(click.Command('train'))", "cli.add_command(click.Command('own'))")),
            install("c", adding("cli.add_command(click.Command('own'))")),
        ],
        registry=OPEN,
    )
    cli = click.Group("colatent")
    found.add_commands(cli, reserved=["train"])
    assert list(cli.commands) == ["own"]
    assert capsys.readouterr().err.splitlines() == [
        "colatent: plugin 'a' of a-dist 1.0 adds no commands: ValueError: half way",
        "colatent: plugin 'b' of b-dist 1.0 may not add 'train': the name is taken",
        "colatent: plugin 'c' of c-dist 1.0 may not add 'own': the name is taken",
    ]


def test_commands_of_an_open_group_are_asked_for_apart(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    import click

    head = "import click\nfrom colatent.plugins import hookimpl\n@hookimpl\ndef colatent_add_commands(cli):\n"
    group = "    cli.add_command(click.Group({name!r}, commands=[click.Command(each) for each in {commands!r}]))\n"

    def giving(**groups: list[str]) -> str:
        return head + "".join(group.format(name=name, commands=commands) for name, commands in groups.items())

    found = load_plugins(
        [
            install("a", giving(open=["one", "core"], closed=["x"], own=["y"])),
            install("b", giving(open=["one", "two"])),
        ],
        registry=OPEN,
    )
    root, inner = click.Group("colatent"), click.Group("open")
    found.add_commands(root, reserved=["open", "closed"], open_groups=["open"])
    found.add_subcommands(inner, reserved=["core"])
    assert (list(root.commands), list(inner.commands)) == (["own"], ["one", "two"])
    assert capsys.readouterr().err.splitlines() == [
        "colatent: plugin 'a' of a-dist 1.0 may not add 'closed': the name is taken",
        "colatent: plugin 'a' of a-dist 1.0 may not add 'open core': the name is taken",
        "colatent: plugin 'b' of b-dist 1.0 may not add 'open one': the name is taken",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[policy", "is not TOML: "),
        ("[polcy]", "unknown key polcy; did you mean 'policy'?"),
        ("[policy]\nblok = []", "unknown key policy.blok; did you mean 'block'?"),
        ("[policy]\nblock = 'x'", "policy.block must be a list of texts, found 'x'"),
        ("policy = 3", "policy must be a table, found 3"),
        ("[codecs]\ntext = 'colatent'", "codecs.text must be a table, found 'colatent'"),
        (
            "[codecs.text]\nmodality = 'text'\naxes = 1\nfields = []",
            "codecs.text.distribution must be a text, it is mi",
        ),
        ("[tasks.t]\nfields = ['f']", "unknown key tasks.t.fields; known: distribution, status"),
        ("[codecs.t]\naxes = 5", "codecs.t.axes must be 1, 2 or 3, found 5"),
        ("[datasets.t]\ndistribution = 'd'\nfields = ['f']\nstatus = 'new'", "datasets.t.status must be one of exper"),
    ],
)
def test_a_bad_registry_names_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_registry(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_registry_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml: cannot be read \(No such file"):
        read_registry(tmp_path / "none.toml")


def test_the_environment_may_name_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[policy]\nallow = []\n")
    monkeypatch.setenv("COLATENT_REGISTRY", str(path))
    assert read_registry() == Registry(path=path, allow=())


def test_registry_entry_points_and_declarations_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    candidates = [
        Candidate(name=name, distribution=project["name"], version="0", target=import_module(value))
        for name, value in project["entry-points"]["colatent"].items()
    ]
    registry = read_registry(ROOT / "registry.toml")
    found = load_plugins(candidates, registry=registry)
    assert {plugin.state for plugin in found.plugins} == {"active"}
    ours = {name: entry for name, entry in registry.codecs.items() if entry.distribution == "colatent"}
    assert set(found.codecs) == set(ours)
    for name, entry in ours.items():
        info = found.codecs[name]
        assert (info.modality, info.axes, info.fields) == (entry.modality, entry.axes, entry.fields)
    datasets = {name: entry.fields for name, entry in registry.datasets.items() if entry.distribution == "colatent"}
    assert {name: info.fields for name, info in found.datasets.items()} == datasets
    assert set(found.tasks) == {name for name, entry in registry.tasks.items() if entry.distribution == "colatent"}


def test_the_registry_in_force_is_the_projects() -> None:
    assert read_registry() == replace(read_registry(ROOT / "registry.toml"), path=read_registry().path)


def test_docs_hold_the_inventory_and_every_hook() -> None:
    page = (ROOT / "docs/plugins.md").read_text()
    assert inventory_table(read_registry(ROOT / "registry.toml")) in page
    tested = Path(__file__).read_text()
    assert HOOK_NAMES
    for hook in HOOK_NAMES:
        assert f"### `{hook}(" in page
        assert f"def {hook}(" in tested


def test_the_declaration_in_the_docs_works(install: Install) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), flags=re.DOTALL)
    declaration = next(block for block in blocks if "def colatent_codecs" in block)
    found = load_plugins([install("depth", declaration)], registry=OPEN)
    assert found.codec("depth").axes == 2


def test_exports_are_the_records_and_the_marker() -> None:
    assert LatentSpec(channels=1, block=None, units_per_latent=1.0).block is None
    assert isinstance(hookimpl, pluggy.HookimplMarker)
