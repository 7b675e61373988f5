"""The contract of colatent, as tests: each check is one test with a name."""

from __future__ import annotations

from colatent.testing import parametrize_with_checks


@parametrize_with_checks("pca")
def test_conformance(check) -> None:
    check()
