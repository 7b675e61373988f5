"""How checks run and how they say what is wrong: one result per check, whatever the code under test raises.

A check is a function whose docstring is its contract. It returns where the contract holds, raises where it does not,
and skips with the reason where it does not apply or cannot be judged: nothing passes in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch

from colatent.errors import UserError
from colatent.plugins.loader import describe
from colatent.testing.process import SETTINGS, kept, seeded
from colatent.testing.requiring import BrokenContractError, SkippedError

Under = TypeVar("Under")
Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one check."""

    subject: str
    name: str
    contract: str
    state: Verdict
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Check(Generic[Under]):
    """One check. Where a vital one fails, those after it are skipped."""

    name: str
    contract: str
    run: Callable[[Under], None]
    vital: bool = False


def check(*, vital: bool = False) -> Callable[[Callable[[Under], None]], Check[Under]]:
    """Make a check of a function: its name and the sentence in its docstring are the check's."""

    def made(run: Callable[[Under], None]) -> Check[Under]:
        name = run.__name__.strip("_").replace("_", "-")
        return Check(name=name, contract=" ".join((run.__doc__ or "").split()), run=run, vital=vital)

    return made


class Examination(Generic[Under]):
    """The checks of one subject. Each runs once at most, and after it has been seen that the vital ones before it hold,
    so that they may be asked for in any order.

    errors  what the failed ones raised, by name
    """

    def __init__(self, title: str, checks: Sequence[Check[Under]], subject: Under) -> None:
        self.title, self.checks, self.subject = title, tuple(checks), subject
        self.errors: dict[str, Exception] = {}
        self._results: dict[str, Result] = {}

    def results(self) -> list[Result]:
        """The results of all checks, in order."""
        return [self.result(each.name) for each in self.checks]

    def result(self, name: str) -> Result:
        """The result of the check `name`."""
        if name not in self._results:
            chosen = next(each for each in self.checks if each.name == name)
            state, detail = self._judge(chosen)
            self._results[name] = Result(
                subject=self.title, name=name, contract=chosen.contract, state=state, detail=detail
            )
        return self._results[name]

    def _judge(self, chosen: Check[Under]) -> tuple[Verdict, str]:
        for earlier in self.checks[: self.checks.index(chosen)]:
            if earlier.vital and self.result(earlier.name).state != "passed":
                return "skipped", self._blame(earlier)
        try:
            with _apart():
                chosen.run(self.subject)
        except SkippedError as skipped:
            return "skipped", str(skipped)
        except Exception as error:  # the code under test may raise anything
            self.errors[chosen.name] = error
            told = isinstance(error, BrokenContractError | UserError)
            return "failed", str(error) if told else describe(error)
        return "passed", ""

    def _blame(self, vital: Check[Under]) -> str:
        """Why what stands on a vital check is skipped: the first that failed, not the last that was skipped for it."""
        result = self.result(vital.name)
        return result.detail if result.state == "skipped" else f"needs {vital.name!r}"


@contextmanager
def _apart() -> Iterator[None]:
    """Where a check runs: with the same random numbers for each, and what it does to the process is undone."""
    with kept(SETTINGS), seeded(0), torch.no_grad():
        yield
