"""What every test stands on: few threads, no network, no traces of the user's own settings.

Small tensors on many threads are slower than on one, and tests that run side by side must not fight for cores. The
variables are set before anything imports torch, which reads them once.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["COLUMNS"] = "200"
os.environ.pop("FORCE_COLOR", None)

from pathlib import Path

import pytest
import torch

from installed import build_wheel, make_env

torch.set_num_threads(1)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """An empty folder that is the current directory while the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def env(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel in it."""
    return make_env(tmp_path_factory.mktemp("elsewhere") / "env", wheel)
