"""Which example configs have a stored curve, and what is changed in each so that it takes seconds on one CPU thread.

A config keeps its streams, sources, losses and optimiser. What is changed is the number of steps, the batch, the
precision (how bf16 is rounded hangs on the CPU: all curves are of float32) and, where a network is for many GPUs, its
size. Data that a config does not bring are made on the spot: what they teach does not matter, only that they are the
same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from colatent.latents.draws import generator

STEPS = 20
HERE = "{here}"
"""Stands, in an override, for the folder that holds the data made on the spot, and the runs by their names."""
SYLLABLES = ("ba", "do", "fe", "ki", "lu", "mor", "nen", "pa", "ris", "so", "ta", "vul")


@dataclass(frozen=True, kw_only=True)
class Case:
    """An example config, and how it is run.

    config     its file under examples/
    batches    samples per step, by the stage of which there is a curve
    overrides  what else is changed
    made       writes data to a path, by the name that the file has in the folder
    after      the case whose run it starts from
    unicode    whether it learns the names of Unicode characters, of which a newer Python knows more
    """

    config: str
    batches: Mapping[str, int]
    overrides: tuple[str, ...] = ()
    made: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    after: str | None = None
    unicode: bool = False

    def settings(self) -> list[str]:
        """All overrides, with `HERE` still in them."""
        found = ["device=cpu", *self.overrides]
        for stage, batch in self.batches.items():
            values = {"steps": STEPS, "batch": batch, "precision": "float32", "log_every": 1, "eval_every": 0}
            found += [f"stages.{stage}.{key}={value}" for key, value in values.items()]
        return found


def write_text(path: Path) -> None:
    """Lines of made-up words, which speakers say in turn."""
    rng = generator("curves", "text")
    words = ["".join(rng.choice(SYLLABLES, size=int(rng.integers(1, 4)))) for _ in range(300)]
    lines = (" ".join(rng.choice(words, size=int(rng.integers(3, 9)))) for _ in range(4000))
    path.write_text("".join(f"{words[number % 7].upper()}: {line}.\n" for number, line in enumerate(lines)))


def write_tokenizer(path: Path) -> None:
    """A tokenizer.json in which only bytes are tokens, and the two special ones that cola-2b.yaml names."""
    from tokenizers import Tokenizer

    from colatent_text.tokenizers import train_bpe

    library = Tokenizer.from_str(train_bpe(["a"], 256).decode())
    library.add_special_tokens(["<|endoftext|>", "<|pad|>"])
    path.write_text(library.to_str())


def write_voices(path: Path) -> None:
    """An archive in the format of the Free Spoken Digit Dataset, of tones."""
    from plugins_for_tests.speech_stub import takes, write_archive

    write_archive(path, takes(6))  # of which 5 are held out


COLA = {
    "streams.text.config": {"width": 48, "heads": 4, "encoder_layers": 2, "decoder_layers": 2, "ffn": 96},
    "streams.text.config.tokenizer": {"path": f"{HERE}/tokenizer.json", "size": 300},
    "data": {"path": f"{HERE}/text.txt", "length": 64},
    "prior": {"layers": 3, "width": 64, "heads": 2, "rope_dim": 24},
    "stages.codec": {"warmup": 5},
    "stages.joint": {"warmup": 5},
}
"""Sizes of another order than the published ones: those need 40 GB."""

CASES: dict[str, Case] = {
    "tiny": Case(config="configs/tiny.yaml", batches={"codec": 8, "prior": 8}),
    "digits": Case(config="configs/digits.yaml", batches={"codec": 4, "prior": 4}, unicode=True),
    "digits-text-only": Case(
        config="configs/digits-text-only.yaml",
        batches={"prior": 4},
        overrides=(f"streams.text.weights={HERE}/digits",),
        after="digits",
        unicode=True,
    ),
    "glyphs": Case(config="configs/glyphs.yaml", batches={"codec": 4, "prior": 4}, unicode=True),
    "shakespeare": Case(
        config="configs/shakespeare.yaml",
        batches={"codec": 2, "prior": 2},
        overrides=(f"data.path={HERE}/text.txt",),
        made={"text.txt": write_text},
    ),
    "spoken-digits": Case(
        config="configs/spoken-digits.yaml",
        batches={"codec": 4, "prior": 8},
        overrides=(f"data.path={HERE}/voices.tar.gz", "tasks.spoken-digits.samples=100"),
        made={"voices.tar.gz": write_voices},
    ),
    "cola-2b": Case(
        config="configs/cola-2b.yaml",
        batches={"codec": 4, "joint": 4},
        overrides=tuple(f"{where}.{key}={value}" for where, some in COLA.items() for key, value in some.items()),
        made={"text.txt": write_text, "tokenizer.json": write_tokenizer},
    ),
    "signal": Case(config="plugin-template/train.yaml", batches={"codec": 16, "prior": 16}),
    "signal-mixed": Case(config="plugin-template/mixed.yaml", batches={"codec": 16, "prior": 16}),
    "strokes": Case(config="colatent-strokes/strokes.yaml", batches={"codec": 8, "prior": 8}),
    "pca": Case(config="colatent-pca/pca.yaml", batches={"prior": 16}),
}
"""By the name of the run. The codec of pca.yaml is fitted and not trained: there is no curve of it."""
