"""Six hundred changed configs: none breaks the program or stops it, and what is changed is mostly noticed."""

from __future__ import annotations

from pathlib import Path

from reliability.bad_configs import EXAMPLES, try_configs


def test_a_changed_config_is_taken_or_refused_in_a_line(tmp_path: Path) -> None:
    found = try_configs(tmp_path, EXAMPLES, count=600)
    assert found.total() == 600
    assert found["refused"] > 200
