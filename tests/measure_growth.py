"""How cost grows: with history, length, batch and modalities. Run from the repository: python tests/measure_growth.py

Every point is a `colatent bench` in a process of its own, so that the memory is that of this point. Writes the figures
to docs/pictures/growth.json and draws docs/pictures/growth.png from them; `--draw` only draws.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
TOKENS = 4096
"""Latents of a training step, whatever their sequences' length."""
NEW, BLOCK = 64, 16
"""Latents that are generated after each history, and those of a block."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One way to grow: values of what grows, and the bench that measures each."""

    name: str
    values: Sequence[int]
    words: Sequence[str]

    def command(self, value: int) -> list[str]:
        """The bench at one value; `{}` stands for it, `{per}` for as many sequences as have `TOKENS` latents."""
        return [word.format(value, per=max(1, TOKENS // max(1, value))) for word in self.words]


CURVES = (
    Curve(
        name="history",
        values=(0, 512, 1024, 2048, 4096, 8192),
        words=("generate", "--batch", "1", "--prompt", "{}", "--new", str(NEW), "--guidance", "7"),
    ),
    Curve(
        name="length",
        values=(256, 512, 1024, 2048, 4096),
        words=("train", "--sequence", "{}", "--batch", "{per}"),
    ),
    Curve(name="batch", values=(1, 2, 4, 8, 16), words=("train", "--sequence", "256", "--batch", "{}")),
)
DIGITS = ROOT / "examples" / "configs" / "digits.yaml"
RARE = 1e-9
"""Weight of a source that is not to be drawn."""


def points(folder: Path) -> Iterator[tuple[str, int, list[str]]]:
    """What is measured: the curve, the value, and the words behind `colatent bench`. `folder` takes configs."""
    for curve in CURVES:
        for value in curve.values:
            yield curve.name, value, curve.command(value)
    names = "data.sources.names.batch=24"
    yield "modalities", 1, ["train", str(text_alone(folder)), names]
    others = [f"data.sources.{name}.weight={RARE}" for name in digits()["data"]["sources"] if name != "names"]
    yield "modalities", 3, ["train", str(DIGITS), names, *others]


def digits() -> dict[str, Any]:
    """The config of three modalities."""
    return dict(yaml.safe_load(DIGITS.read_text()))


def text_alone(folder: Path) -> Path:
    """The config of three modalities with nothing but names of characters, in a file in `folder`."""
    config = digits()
    del config["tasks"], config["flow"]["times"], config["sample"]["streams"]
    config["streams"] = {"text": config["streams"]["text"]}
    config["data"]["sources"] = {"names": config["data"]["sources"]["names"]}
    path = folder / "text-alone.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def measure(words: Sequence[str], *, warmup: int, repeats: int) -> dict[str, Any]:
    """The document that one bench prints."""
    command = [sys.executable, "-m", "colatent", "bench", *words, "--device", "cpu", "--json"]
    command += ["--warmup", str(warmup), "--repeats", str(repeats)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def block_seconds(found: dict[str, Any]) -> float:
    """Of a block after the first, which also waits for the prefix."""
    return float((found["seconds"] - found["first_block_seconds"]) / (NEW // BLOCK - 1))


def draw(found: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Four pictures: a block's time over history, training speed over length and batch, memory over both; nothing
    where one of these has not been measured."""
    if missing := [curve.name for curve in CURVES if curve.name not in found]:
        print(f"no picture: {', '.join(missing)} not measured")
        return
    mpl.use("Agg")
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 2)
    _line(axes[0, 0], found["history"], block_seconds, "latents of history", "seconds per block of 16 latents")
    _line(axes[0, 1], found["length"], _rate, "latents of a sequence, 4096 a step", "training tokens per second")
    _line(axes[1, 0], found["batch"], _rate, "sequences of 256 latents a step", "training tokens per second")
    for name, label in (("length", "by length, 4096 a step"), ("batch", "by batch of 256")):
        tokens = [int(value) * (1 if name == "length" else 256) for value in found[name]]
        axes[1, 1].plot(tokens, [one["peak_memory"] / 2**30 for one in found[name].values()], "o-", label=label)
    axes[1, 1].set(xlabel="latents (length; or batch x 256)", ylabel="peak memory, GiB", ylim=(0, None))
    axes[1, 1].legend()
    figure.savefig(path, dpi=110)


def _rate(found: dict[str, Any]) -> float:
    return float(found["tokens_per_second"])


def _line(axes: Axes, found: dict[str, dict[str, Any]], read: Any, what: str, of: str) -> None:
    axes.plot([int(value) for value in found], [read(one) for one in found.values()], "o-")
    axes.set(xlabel=what, ylabel=of, ylim=(0, None))
    axes.grid(alpha=0.3)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure how cost grows, and draw it.")
    parser.add_argument("--draw", action="store_true", help="draw what was measured before, and measure nothing")
    parser.add_argument("--only", metavar="CURVE", action="append", help="history, length, batch or modalities")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=PICTURES, help="where figures and picture go")
    asked = parser.parse_args()
    stored = asked.out / "growth.json"
    found: dict[str, dict[str, Any]] = json.loads(stored.read_text()) if stored.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, value, words in () if asked.draw else points(Path(folder)):
            if not asked.only or name in asked.only:
                one = measure(words, warmup=asked.warmup, repeats=asked.repeats)
                found.setdefault(name, {})[str(value)] = one
                stored.write_text(json.dumps(found, indent=1) + "\n")
                of = f"{one['tokens_per_second']:.0f} tokens/s, {one['fraction_of_peak']:.2f} of the peak"
                print(f"{name} {value}: {of}", flush=True)
    draw(found, asked.out / "growth.png")


if __name__ == "__main__":
    main()
