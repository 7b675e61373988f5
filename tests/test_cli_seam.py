"""The command line from outside: exit codes, one line per failure, and how little `colatent --help` imports."""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from colatent.cli import evaluate
from colatent.cli import main as entry
from colatent.cli.lazy import LazyCommand, OpenGroup
from colatent.errors import UserError

ROOT = Path(__file__).parents[1]
LINES = entry.COMMANDS | {f"eval {name}": command for name, command in evaluate.COMMANDS.items()}

PLUGIN = """
import click
from colatent.plugins import CodecInfo, hookimpl

@hookimpl
def colatent_codecs():
    return [CodecInfo(name="extra", modality="extra", axes=1, fields=("x",), factory="none:None_", config="none:None_")]

@hookimpl
def colatent_add_commands(cli):
    @cli.command()
    def greet():
        '''Say hello.'''
        click.echo("hello")
"""

EVAL_PLUGIN = """
import click
from colatent.plugins import hookimpl

@hookimpl
def colatent_add_commands(cli):
    @cli.group("eval")
    def evaluate():
        '''Not shown: only what is in it is taken.'''

    @evaluate.command()
    @click.argument("what")
    def weigh(what):
        '''Say how heavy it is.'''
        click.echo(f"{what} is light")
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed distributions: colatent itself with its text plugin, and what `add` puts there."""
    add(tmp_path, "colatent", "text = colatent_text.plugin", version="9.9")
    return tmp_path


def add(site: Path, distribution: str, entry_point: str, *, version: str = "1.0", code: str | None = None) -> None:
    info = site / f"{distribution}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[colatent]\n{entry_point}\n")
    if code is not None:
        (site / f"{entry_point.split(' = ')[1]}.py").write_text(code)


def environment(site: Path, **extra: str) -> dict[str, str]:
    path = [str(site), str(ROOT / "core"), str(ROOT / "plugins/text")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)} | extra


def colatent(site: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "colatent", *arguments]
    return subprocess.run(command, env=environment(site, **extra), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [["--help"], ["eval"], ["plugins"], ["plugins", "list", "--json"]])
def test_answers_at_once_and_imports_nothing_heavy(arguments: list[str], site: Path) -> None:
    heavy = ("torch", "numpy", "pydantic", "omegaconf", "rich", "tokenizers", "matplotlib")
    script = f"""
import sys
from colatent.cli.main import main
status = main({arguments!r})
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
sys.exit(status)
"""
    took = []
    for _ in range(5):  # the first one may compile; processor time, since the machine may be busy: the best one counts
        start = processor_time_of_children()
        done = subprocess.run([sys.executable, "-c", script], env=environment(site), capture_output=True, text=True)
        took.append(processor_time_of_children() - start)
        assert (done.returncode, done.stderr.strip()) == (0, "[]")
        if took[-1] <= 0.3:
            break
    assert min(took) <= 0.3


def processor_time_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_shows_core_and_plugin_commands(site: Path) -> None:
    add(site, "extra", "extra = plugin_extra", code=PLUGIN)
    done = colatent(site, "-h")
    assert done.returncode == 0
    for name, command in entry.COMMANDS.items():
        assert name in done.stdout
        assert command.help in done.stdout
    assert "Say hello." in done.stdout
    assert colatent(site, "greet").stdout == "hello\n"
    assert colatent(site).stdout == done.stdout


def test_a_plugins_eval_group_joins_the_cores(site: Path) -> None:
    alone = colatent(site, "eval")
    assert (alone.returncode, alone.stderr) == (0, "")
    assert "Score output and measure models." in alone.stdout
    assert colatent(site, "eval", "weigh", "it").returncode == 2
    add(site, "extra", "extra = plugin_extra", code=EVAL_PLUGIN)
    add(site, "later", "later = plugin_later", code=EVAL_PLUGIN)
    taken = "colatent: plugin 'later' of later 1.0 may not add 'eval weigh': the name is taken\n"
    done = colatent(site, "eval", "weigh", "it")
    assert (done.returncode, done.stdout, done.stderr) == (0, "it is light\n", taken)
    shown = colatent(site, "eval")
    assert (shown.stderr, "Say how heavy it is." in shown.stdout) == (taken, True)
    assert "Not shown" not in shown.stdout
    assert colatent(site, "--help").stderr == ""
    near = colatent(site, "eval", "wiegh", "it").stderr.splitlines()[-1]
    assert near == "colatent: no command 'wiegh', did you mean 'weigh'? (see 'colatent eval --help')"


def test_what_a_plugin_adds_to_eval_fails_alone(site: Path) -> None:
    add(site, "half", "half = plugin_half", code=f"{EVAL_PLUGIN}    raise OSError('half way')\n")
    add(site, "plain", "plain = plugin_plain", code=PLUGIN.replace("@cli.command()", "@cli.command('eval')"))
    add(site, "train", "train = plugin_train", code=EVAL_PLUGIN.replace('"eval"', '"train"'))
    raises = "colatent: plugin 'half' of half 1.0 adds no commands: OSError: half way"
    done = colatent(site, "eval")
    assert (done.returncode, done.stderr.splitlines()) == (0, [raises])
    assert "weigh" not in done.stdout
    root = colatent(site, "--help")
    assert root.stderr.splitlines() == [
        raises,
        "colatent: plugin 'plain' of plain 1.0 may not add 'eval': the name is taken",
        "colatent: plugin 'train' of train 1.0 may not add 'train': the name is taken",
    ]


def test_eval_answers_where_no_plugin_is_active(site: Path) -> None:
    (site / "policy.toml").write_text("[policy]\nblock = ['text']\n")
    done = colatent(site, "eval", COLATENT_REGISTRY=str(site / "policy.toml"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Score output and measure models." in done.stdout


def test_a_plugin_that_fails_at_import_is_listed_and_the_rest_works(site: Path) -> None:
    add(site, "sick", "sick = plugin_sick", code="raise RuntimeError('no device')")
    done = colatent(site, "plugins")
    assert done.returncode == 0
    assert "plugin 'sick' of sick 1.0 is broken: import failed: RuntimeError: no device" in done.stdout
    states = {each["name"]: each["state"] for each in json.loads(colatent(site, "plugins", "--json").stdout)["plugins"]}
    assert states == {"text": "active", "sick": "broken"}
    failed = colatent(site, "plugins", "validate", "sick")
    assert (failed.returncode, len(failed.stderr.splitlines())) == (2, 1)
    assert "RuntimeError: no device" in failed.stderr


def test_a_second_claim_of_text_is_shadowed(site: Path) -> None:
    add(site, "aaa", "aaa = plugin_aaa", code=PLUGIN.replace('name="extra"', 'name="text"'))
    listed = json.loads(colatent(site, "plugins", "list", "--json").stdout)["plugins"]
    assert [(each["name"], each["state"], each["codecs"]) for each in listed] == [
        ("text", "active", ["text"]),
        ("aaa", "shadowed", []),
    ]


def test_info_shows_settings_with_defaults_and_docs_without_torch(site: Path) -> None:
    script = "import sys; from colatent.cli.main import main; main(['plugins', 'info', 'text', '--json'])"
    script += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], env=environment(site), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (codec,) = json.loads(done.stdout)["codecs"]
    settings = {each["name"]: each for each in codec["settings"]}
    assert (codec["axes"], codec["factory"]) == (1, "colatent_text.codec:TextCodec")
    assert settings["channels"]["default"] == "16"
    assert settings["channels"]["doc"] == "Width of a latent."
    assert "channels" in colatent(site, "plugins", "info", "text").stdout


def test_info_tells_a_config_that_does_not_import(site: Path) -> None:
    add(site, "extra", "extra = plugin_extra", code=PLUGIN)
    done = colatent(site, "plugins", "info", "extra")
    assert done.returncode == 0
    assert "cannot import 'none' (ModuleNotFoundError" in done.stdout


def test_doctor(site: Path) -> None:
    facts = json.loads(colatent(site, "plugins", "doctor", "--json").stdout)
    assert facts["colatent"] == "9.9"
    assert facts["versions"]["pluggy"] == importlib.metadata.version("pluggy")
    assert len(facts["fingerprint"]) == 64
    assert facts["registry"].endswith("registry.toml")
    assert "devices" not in facts
    assert "registry.toml" in colatent(site, "plugins", "doctor").stdout


def test_policy_of_ones_own(site: Path) -> None:
    (site / "policy.toml").write_text("[policy]\nblock = ['text']\n")
    done = colatent(site, "plugins", COLATENT_REGISTRY=str(site / "policy.toml"))
    assert "blocked" in done.stdout
    (site / "policy.toml").write_text("[policy]\nblock = 3\n")
    done = colatent(site, "plugins", COLATENT_REGISTRY=str(site / "policy.toml"))
    assert done.returncode == 2
    assert done.stderr == f"colatent: {site / 'policy.toml'}: policy.block must be a list of texts, found 3\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plugns"], "colatent: no command 'plugns', did you mean 'plugins'? (see 'colatent --help')"),
        (["--bogus"], "colatent: No such option"),
        (["plugins", "info"], "colatent: Missing argument 'NAME' (see 'colatent plugins info --help')"),
        (
            ["plugins", "info", "txt"],
            "colatent: no plugin, codec, dataset or task is called 'txt'; did you mean 'text'?",
        ),
    ],
)
def test_user_mistakes_are_one_line_and_exit_2(arguments: list[str], line: str, site: Path) -> None:
    done = colatent(site, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(line)


def test_a_closed_pipe_is_quiet(site: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "colatent", "plugins"]
    done = subprocess.run(command, env=environment(site), stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""


def test_version_is_the_distributions(site: Path) -> None:
    assert colatent(site, "--version").stdout == "colatent 9.9\n"


class _BrokenClickCommand(click.Command):
    failure: BaseException

    def invoke(self, ctx: click.Context) -> None:
        raise self.failure


FAILING = _BrokenClickCommand("failing")


@pytest.mark.parametrize(
    ("failure", "line", "status"),
    [
        (UserError("no such key", where="a.yaml", do="remove it"), "colatent: a.yaml: no such key; remove it", 2),
        (UserError("two\n  lines"), "colatent: two lines", 2),
        (FileNotFoundError(2, "No such file or directory", "x.txt"), "colatent: x.txt: No such file or directory", 2),
        (OSError(28, "No space left on device"), "colatent: No space left on device", 2),
        (BrokenPipeError(32, "Broken pipe"), "colatent: Broken pipe", 2),
        (KeyboardInterrupt(), "colatent: interrupted", 130),
        (click.ClickException("bad"), "colatent: bad", 2),
        (RuntimeError("boom"), "colatent: internal error: RuntimeError: boom; rerun with --debug for the traceback", 1),
    ],
)
def test_every_failure_is_one_line(
    failure: BaseException, line: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = LazyCommand(target=f"{__name__}:FAILING", help="")
    monkeypatch.setitem(entry.COMMANDS, "failing", target)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(FAILING, "failure", failure, raising=False)
    assert entry.main(["failing"]) == status
    assert capsys.readouterr().err.splitlines() == [line]
    assert entry.main(["failing", "--debug"]) == status
    traceback = capsys.readouterr().err
    assert "Traceback" in traceback
    assert traceback.splitlines()[-1] == line.removesuffix("; rerun with --debug for the traceback")


def test_a_command_result_is_no_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FAILING, "invoke", lambda ctx: 7, raising=False)
    monkeypatch.setitem(entry.COMMANDS, "failing", LazyCommand(target=f"{__name__}:FAILING", help=""))
    assert entry.main(["failing"]) == 0


@pytest.mark.parametrize("name", list(LINES))
def test_what_is_written_of_a_lazy_command_is_true(name: str) -> None:
    lazy = LINES[name]
    module, _, attribute = lazy.target.partition(":")
    command = getattr(import_module(module), attribute)
    assert command.get_short_help_str(limit=90) == lazy.help
    assert isinstance(command, OpenGroup) == lazy.open


def test_every_plugins_command_has_json_and_an_example() -> None:
    from colatent.cli.plugins import plugins

    for command in [plugins, *plugins.commands.values()]:
        shown = CliRunner().invoke(command, ["--help"], prog_name="colatent").output
        assert "--json" in shown
        assert "Example: colatent plugins" in shown
