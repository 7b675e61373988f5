"""What a GPU does with the published model's shape. Run from the repository: python tests/measure_gpu.py --out gpu.json

The backends of attention and recorded passes are held to their references first; then the prior of `cola-2b.yaml`,
1.8 B parameters of random weights, trains and generates. Every point is a `colatent bench` in a process of its own.
Takes about eight minutes on an H200; figures are stored as they come, so a run that is cut short keeps its first ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from colatent.config.prior import PriorConfig
from colatent.prior.dit import Prior

ROOT = Path(__file__).resolve().parents[1]
HELD = ("tests/engine/test_attention_backends.py", "tests/engine/test_replays.py")
LAYERS, WIDTH, HEADS, CHANNELS, BLOCK = 24, 2048, 16, 16, 16
SHAPE = f"--layers {LAYERS} --width {WIDTH} --heads {HEADS} --vae-layers 4 --vae-width 1536 --vocab 100278".split()
PROMPT, NEW, STEPS = 512, 64, 16
TRAIN = ((512, 16), (1024, 8), (2048, 4), (512, 32))
"""Lengths and batches: the first three have the same tokens in a step."""


def points() -> Iterator[tuple[str, list[str]]]:
    """Names of what is measured, and the words behind `colatent bench`."""
    for length, batch in TRAIN:
        size = ["--sequence", str(length), "--batch", str(batch), "--warmup", "3"]
        yield f"train {batch} x {length}, compiled", ["train", *size, "--compile"]
    yield "train 16 x 512, as written", ["train", "--sequence", "512", "--batch", "16"]
    for batch in (1, 8, 32):
        size = ["--batch", str(batch), "--prompt", str(PROMPT), "--new", str(NEW), "--steps", str(STEPS)]
        yield f"generate {batch}, compiled", ["generate", *size, "--repeats", "3", "--compile"]
    size = ["--batch", "1", "--prompt", str(PROMPT), "--new", str(NEW), "--steps", str(STEPS)]
    yield "generate 1, as written", ["generate", *size, "--repeats", "3"]


def hold() -> dict[str, Any]:
    """The tests that need a card, and how they ended."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rsfE", *HELD]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    return {"passed": done.returncode == 0, "said": said}


def measure(words: Sequence[str]) -> dict[str, Any]:
    """The document that one bench prints."""
    command = [sys.executable, "-m", "colatent", "bench", *words, *SHAPE, "--device", "cuda", "--json"]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def bandwidth() -> float:
    """Bytes per second, read and written, of a large copy: the best of several."""
    source = torch.randn(2**29, device="cuda")
    copy, best = torch.empty_like(source), float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        copy.copy_(source)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def bytes_read(tokens: int) -> int:
    """Bytes of the prior's weights, in 16 bits, that generating so many tokens cannot do without reading. Each pass
    reads all but the modulations', which are computed once; the first reads the prompt, others solve and commit."""
    with torch.device("meta"):
        prior = Prior(PriorConfig(layers=LAYERS, width=WIDTH, heads=HEADS), {"text": CHANNELS})
    weights = [one.numel() for name, one in prior.named_parameters() if "modulation" not in name]
    blocks = tokens // BLOCK
    return 2 * sum(weights) * (1 + blocks * STEPS + blocks - 1)


def earlier(path: Path) -> dict[str, Any]:
    """The points that a file has already, which those of a part are put beside."""
    return dict(json.loads(path.read_text())["points"]) if path.exists() else {}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure the published shape on a GPU.")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="where figures go")
    parser.add_argument("--only", metavar="WORD", help="points whose name has this word")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    found: dict[str, Any] = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "bandwidth": bandwidth(),
        "held": hold(),
        "points": earlier(asked.out) if asked.only else {},
    }
    torch.cuda.empty_cache()
    print(f"{found['card']}, torch {found['torch']}, {found['bandwidth'] / 1e12:.2f} TB/s; {found['held']}", flush=True)
    for name, words in points():
        if asked.only and asked.only not in name:
            continue
        one = found["points"][name] = measure(words)
        if name.startswith("generate 1,"):
            one["bandwidth_fraction"] = bytes_read(NEW) / found["bandwidth"] / one["seconds"]
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{name}: {said(one)}", flush=True)


def said(one: dict[str, Any]) -> str:
    """The figures of one point that matter, in words."""
    words = [
        f"{one['tokens_per_second']:.0f} tokens/s",
        f"{one['fraction_of_peak']:.3f} of {one['matrix_peak'] / 1e12:.0f} TFLOP/s",
        f"{one['peak_memory'] / 2**30:.1f} GiB",
    ]
    if "first_block_seconds" in one:
        words.append(f"first block {1000 * one['first_block_seconds']:.0f} ms")
    if "bandwidth_fraction" in one:
        words.append(f"{one['bandwidth_fraction']:.3f} of the bandwidth bound")
    return ", ".join(words)


if __name__ == "__main__":
    main()
