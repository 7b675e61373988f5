"""How speed is measured: the work repeated after a warm-up, beside the matrix peak of the same minute and machine.

Medians, for a shared machine is slow now and then; the peak is the best of many products between the repeats, for it
is what the machine could do. Weights are random, since time does not hang on what they say, except those that
begin as zeros: products with zeros take less of a GPU's power, and so of its time.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from colatent.generate.precision import Precision
from colatent.generate.replays import replaying
from colatent.prior.backends.choose import describe

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
SIDES = {"cpu": 1024, "cuda": 8192}
"""Side of the square matrices whose product stands for the matrix peak: large enough to reach it, and soon done."""
PEAK_SECONDS = 0.15
"""How long products are tried each time."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one kind of work.

    seconds  of each repeat
    tokens   data units that each repeat generated, or trained to generate
    flops    model FLOPs of all repeats by part: `prior`, `codec`
    memory   bytes held at most since the process began (a GPU: since the work began); None where it is not known
    peak     FLOPs per second of the best matrix product
    more     what there is to say of this kind of work only
    """

    seconds: Sequence[float]
    tokens: Sequence[float]
    flops: Mapping[str, int]
    memory: int | None
    peak: float
    more: Mapping[str, float] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """JSON-able figures; rates are medians over the repeats, with the slowest and the fastest. Where repeats are of
        unequal work, as those of mixed sources are, FLOPs per second are those of all together."""
        rates = [count / seconds for count, seconds in zip(self.tokens, self.seconds, strict=True)]
        rate, whole = statistics.median(rates), sum(self.flops.values())
        equal = len(set(self.tokens)) == 1
        speed = rate * whole / sum(self.tokens) if equal else whole / sum(self.seconds)
        return {
            "tokens_per_second": rate,
            "tokens_per_second_range": [min(rates), max(rates)],
            "seconds": statistics.median(self.seconds),
            **self.more,
            "tokens": statistics.median(self.tokens),
            "repeats": len(self.seconds),
            "flops_per_token": whole / sum(self.tokens),
            "flops_share": {name: count / whole for name, count in self.flops.items()},
            "flops_per_second": speed,
            "matrix_peak": self.peak,
            "fraction_of_peak": speed / self.peak,
            "peak_memory": self.memory,
        }


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How work is measured."""

    device: torch.device
    precision: Precision
    warmup: int
    repeats: int

    def run(self, work: Callable[[], Any]) -> tuple[list[float], int | None, float]:
        """Seconds of each repeat, bytes held at most, and the matrix peak, which is tried before and after each."""
        dtype, seconds, memory = DTYPES[self.precision], [], []
        for _ in range(self.warmup):
            self._time(work)
        peaks = [matrix_peak(self.device, dtype)]
        for _ in range(self.repeats):
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            seconds.append(self._time(work))
            memory.append(peak_memory(self.device))
            peaks.append(matrix_peak(self.device, dtype))
        return seconds, max(filter(None, memory), default=None), max(peaks)

    def times(self, work: Callable[[], Any]) -> list[float]:
        """Seconds of each repeat of `work`, after the warm-up."""
        return [self._time(work) for _ in range(self.warmup + self.repeats)][self.warmup :]

    def _time(self, work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        work()
        _wait(self.device)
        return time.perf_counter() - start


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs per second of a large matrix product, the best of several."""
    side = SIDES.get(device.type, SIDES["cpu"])
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + PEAK_SECONDS
    torch.mm(a, b)
    _wait(device)
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    """Until all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes held at most; on a CPU by the whole process, where the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures hang on beside the code."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "kind": device.type,
        "capability": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else None,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "attention": describe(device),
        "graphs": replaying(device),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@torch.no_grad()
def fill_zeros(network: nn.Module) -> None:
    """Small random numbers for matrices that begin as zeros: gates and exits of a prior."""
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
