"""What the engine's tests share: float64 on request, small priors with every weight at work, random segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from colatent.config.prior import PriorConfig
from colatent.latents.sequence import Segment
from colatent.prior.backends.choose import BACKENDS, SETTING
from colatent.prior.dit import Prior

MakePrior = Callable[..., Prior]
MakeSegment = Callable[..., Segment]


@pytest.fixture
def double() -> Iterator[None]:
    """float64 as the default, so that nothing is rounded to float32 on the way."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The backend that attention runs on in this test, FlexAttention's gradients included: PyTorch refuses them on a
    CPU, where it has no kernel for them, but has the plain arithmetic of the kernel that it compiles for CUDA."""
    monkeypatch.setenv(SETTING, request.param)
    if request.param == "flex":
        monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda query, key, value: None)
        monkeypatch.setitem(BACKENDS, "flex", replace(BACKENDS["flex"], why_not=lambda case: None))
    return request.param


@pytest.fixture
def make_prior() -> MakePrior:
    """A prior of random weights; at initialisation gates and exits are zero and would hide everything."""

    def make(channels: dict[str, int], *, seed: int = 0, **settings: Any) -> Prior:
        config = PriorConfig(**({"layers": 2, "width": 24, "heads": 2, "rope_dim": 10} | settings))
        prior = Prior(config, channels)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in prior.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.3 if parameter.ndim == 1 else 1.2 / parameter.shape[-1] ** 0.5
            with torch.no_grad():
                parameter.copy_(scale * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
        return prior.eval()

    return make


@pytest.fixture
def make_segment() -> MakeSegment:
    """A random segment: blocks of these lengths, on one, two or three axes; `fields` are those of `Segment`."""

    def make(
        stream: str, blocks: Sequence[int], *, seed: int, channels: int = 3, axes: int = 1, **fields: Any
    ) -> Segment:
        generator = torch.Generator().manual_seed(seed)
        length = sum(blocks)
        if fields.get("generated", True):
            drawn = {
                "noise_LC": torch.randn(length, channels, generator=generator),
                "t_K": tuple(torch.rand(len(blocks), generator=generator).tolist()),
            }
            fields = drawn | fields
        return Segment(
            stream=stream,
            z_LC=torch.randn(length, channels, generator=generator),
            block_lengths=tuple(blocks),
            positions_LA=grid_positions(length, axes),
            **fields,
        )

    return make


def grid_positions(length: int, axes: int) -> Tensor:
    """Positions of a line, or of a grid three latents wide (with as many frames as it takes)."""
    number = torch.arange(length)
    columns = {1: [number], 2: [number // 3, number % 3], 3: [number // 6, number // 3 % 2, number % 3]}[axes]
    return torch.stack(columns, dim=1).to(torch.get_default_dtype())
