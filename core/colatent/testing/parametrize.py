"""The checks as pytest tests of a plugin's own: one test per check, named after it.

@parametrize_with_checks("depth")
def test_the_contract(check):
    check()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colatent.plugins import PluginSet, load_plugins
from colatent.testing.catalogue import examine
from colatent.testing.running import Examination

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True, kw_only=True)
class BoundCheck:
    """One check of one codec or dataset, which a test calls."""

    examination: Examination[Any]
    name: str

    def __str__(self) -> str:
        return f"{self.examination.title.replace(' ', '-')}-{self.name}"

    def __call__(self) -> None:
        """Return where the contract holds, skip the test with the reason where it cannot be judged, else raise an
        `AssertionError` from what was raised."""
        import pytest

        result = self.examination.result(self.name)
        if result.state == "skipped":
            pytest.skip(result.detail)
        if result.state == "failed":
            line = f"{result.subject}: {result.name} - {result.detail}\ncontract: {result.contract}"
            raise AssertionError(line) from self.examination.errors[self.name]


def parametrize_with_checks(
    names: str | Sequence[str], *, plugins: PluginSet | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run a test once per check, each handed to its argument `check`.

    names    what is under test: a plugin (all that it declares), a codec, a dataset or a task, or several
    plugins  where they are looked for; default: what is installed

    Nothing is built before the first check is called. Checks of one codec share it, so that a test may be run by itself
    and all of them take seconds.
    """
    import pytest

    found = load_plugins() if plugins is None else plugins
    wanted = [names] if isinstance(names, str) else list(names)
    bound = [
        BoundCheck(examination=examination, name=check.name)
        for name in wanted
        for examination in examine(found, name)
        for check in examination.checks
    ]
    decorator: pytest.MarkDecorator = pytest.mark.parametrize("check", bound, ids=str)
    return decorator
