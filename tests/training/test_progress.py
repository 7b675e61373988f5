"""What a run says of itself while it goes on."""

from __future__ import annotations

import pytest

from colatent.train.progress import Reporter


def test_speed_is_told_in_units_whatever_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    """A unit may be a token, a pixel or a sample of sound, and a step may have several kinds."""
    with Reporter().stage("prior", 2) as progress:
        for step in (1, 2):
            progress.update(step, {"loss": 0.5, "tokens_per_second": 1200.0})
    assert capsys.readouterr().out == "prior 2/2  loss 0.500  1,200 units/s  0:00 left\n"
