"""What a process has one of, so that whoever changes it changes it for all: how it is read, and how it is put back."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from colatent.testing.requiring import same


@dataclass(frozen=True, kw_only=True)
class State:
    """Something of which a process has one: its name, how its value is read, and how a value is put back."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _set_filters(values: list[Any]) -> None:
    warnings.resetwarnings()
    warnings.filters[:] = values  # type: ignore[index]


def _set_path(values: list[str]) -> None:
    sys.path[:] = values


RANDOM = (
    State(
        name="torch's random state",
        read=lambda: torch.get_rng_state().numpy(),
        restore=lambda value: torch.set_rng_state(torch.from_numpy(value)),
    ),
    State(name="NumPy's random state", read=np.random.get_state, restore=np.random.set_state),
    State(name="the state of `random`", read=random.getstate, restore=random.setstate),
)
SETTINGS = (
    State(name="torch's default dtype", read=torch.get_default_dtype, restore=torch.set_default_dtype),
    State(
        name="torch's default device",
        read=torch.get_default_device,
        restore=lambda value: torch.set_default_device(None),  # naming one, if the CPU, would slow down every call
    ),
    State(name="torch's number of threads", read=torch.get_num_threads, restore=torch.set_num_threads),
    State(name="torch's grad mode", read=torch.is_grad_enabled, restore=torch.set_grad_enabled),
    State(
        name="torch's deterministic mode",
        read=torch.are_deterministic_algorithms_enabled,
        restore=torch.use_deterministic_algorithms,
    ),
    State(
        name="torch's matmul precision",
        read=torch.get_float32_matmul_precision,
        restore=torch.set_float32_matmul_precision,
    ),
    State(name="the warning filters", read=lambda: list(warnings.filters), restore=_set_filters),
    State(name="the current directory", read=os.getcwd, restore=os.chdir),
    State(name="the environment", read=lambda: dict(os.environ), restore=_set_environment),
    State(name="sys.path", read=lambda: list(sys.path), restore=_set_path),
)


@contextmanager
def kept(states: Sequence[State]) -> Iterator[list[str]]:
    """Put back what was changed meanwhile; the list that is given holds the names of that, once all is over."""
    before = [state.read() for state in states]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for state, value in zip(states, before, strict=True):
            if not same(state.read(), value, within=0.0):
                changed.append(state.name)
                state.restore(value)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every random state as `seed` has it, and afterwards as it was."""
    with kept(RANDOM):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
