"""The entry point `colatent`: its commands, and how each kind of failure ends.

A mistake that the user can mend is one line on stderr and exit status 2, whoever noticed it: a `UserError` of ours, the
operating system, or click. Everything else is a bug of ours: one line, status 1. `--debug` adds the traceback, and may
stand anywhere in the line, since one adds it after something failed.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import click

from colatent.cli.lazy import LazyCommand, LazyGroup
from colatent.errors import UserError

MISTAKE, BUG, INTERRUPTED = 2, 1, 130

COMMANDS = {
    "train": LazyCommand(target="colatent.cli.train:train", help="Train a model from a config."),
    "encode": LazyCommand(target="colatent.cli.encode:encode", help="Encode data once, into a latent cache."),
    "generate": LazyCommand(target="colatent.cli.generate:generate", help="Generate items with a trained model."),
    "data": LazyCommand(target="colatent.cli.data:data", help="Pack data for training."),
    "eval": LazyCommand(target="colatent.cli.evaluate:evaluate", help="Score output and measure models.", open=True),
    "report": LazyCommand(
        target="colatent.cli.report:report", help="Show a run as one page: curves, samples, findings."
    ),
    "runs": LazyCommand(target="colatent.cli.runs:runs", help="List, compare and clean run folders."),
    "bench": LazyCommand(target="colatent.cli.bench:bench", help="Measure the speed of training and generation."),
    "plugins": LazyCommand(target="colatent.cli.plugins:plugins", help="List, inspect and check plugins."),
}


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"colatent {version('colatent')}")
    except PackageNotFoundError:
        click.echo("colatent (not installed, run from its source)")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks; may stand anywhere in the line.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """One prior over continuous latents, for any kind of data that a plugin can encode.

    Example: colatent plugins
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit status."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    # Read by GNU OpenMP when torch loads it. By default its threads spin for milliseconds at every barrier, which makes
    # training several times slower as soon as anything else runs on the CPU; a short spin costs an idle one little.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    if instruction := os.environ.get("_COLATENT_COMPLETE"):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "colatent", "_COLATENT_COMPLETE", instruction)
    debug, args = _take_debug(args)
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module="colatent")
        warnings.showwarning = _show_warning
        return _run(args, debug=debug)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(_line(f"warning: {message}"), err=True)


def _run(args: list[str], *, debug: bool) -> int:
    try:
        with cli.make_context("colatent", args) as ctx:
            cli.invoke(ctx)
        if sys.stdout is not None:  # None where it was closed before we were started
            sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_gone():
            return BUG
        if debug:
            import traceback

            traceback.print_exception(error)
        line, status = _explain(error, debug=debug)
        click.echo(line, err=True)
        return status
    return 0


def _take_debug(args: list[str]) -> tuple[bool, list[str]]:
    """Take --debug out of the options; what follows a bare -- is not an option."""
    end = args.index("--") if "--" in args else len(args)
    options = [each for each in args[:end] if each != "--debug"]
    return len(options) < end, options + args[end:]


def _explain(error: BaseException, *, debug: bool) -> tuple[str, int]:
    """The one line and the exit status for what ended a command."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "colatent: interrupted", INTERRUPTED
    if isinstance(error, click.UsageError):
        return _usage_line(error), MISTAKE
    if isinstance(error, click.ClickException):
        return _line(error.format_message()), MISTAKE
    if isinstance(error, UserError):
        return _line(str(error)), MISTAKE
    if isinstance(error, OSError):
        return _line(_os_line(error)), MISTAKE
    if isinstance(error, ModuleNotFoundError) and (missing := _missing_line(error)):
        return _line(missing), MISTAKE
    hint = "" if debug else "; rerun with --debug for the traceback"
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    return _line(f"internal error: {type(error).__name__}: {error}{notes}{hint}"), BUG


def _usage_line(error: click.UsageError) -> str:
    # click >= 8.2 raises the whole help as an error where a command asks for it when called with nothing.
    if type(error).__name__ == "NoArgsIsHelpError":
        return error.format_message()
    path = error.ctx.command_path if error.ctx else "colatent"
    return _line(f"{error.format_message().rstrip('.')} (see '{path} --help')")


def _os_line(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    return what if error.filename is None else f"{error.filename}: {what}"


def _missing_line(error: ModuleNotFoundError) -> str | None:
    """A package that a plugin imports only when it is used, and that is not installed."""
    from colatent.plugins.loader import installed
    from colatent.plugins.missing import how_to_install, missing_module, what_is_missing

    module = missing_module(error)
    if module is None:
        return None
    return f"{what_is_missing(module)}; {how_to_install(module, {one.distribution for one in installed()})}"


def _line(message: str) -> str:
    return f"colatent: {' '.join(message.split())}"


def _stdout_is_gone() -> bool:
    """Whether the reader of our output went away (`colatent ... | head`), and not some other pipe of ours."""
    import select

    try:
        stdout = sys.stdout.fileno()
    except (AttributeError, OSError):  # replaced by something that is no file
        return False
    # Writing again would not tell: the failed write may have emptied the buffer.
    poll = select.poll()
    poll.register(stdout, 0)
    if not poll.poll(0):
        return False
    # The interpreter flushes once more when it exits, and would complain there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return True


if __name__ == "__main__":
    sys.exit(main())
