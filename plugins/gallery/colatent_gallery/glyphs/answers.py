"""What a model answers when it is asked for pictures of names and for names of pictures, and what of it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from colatent.errors import UserError
from colatent.evaluate.tasks import Progress
from colatent.generate.requests import Given
from colatent_gallery.glyphs.faces import SIDE, Alphabet
from colatent_gallery.glyphs.judge import named_right, nearest_classes
from colatent_gallery.glyphs.settings import GlyphsTaskConfig

if TYPE_CHECKING:
    from colatent.generate.model import Model

ROUND = 32
"""Questions that are answered together."""
NEAREST = 5
"""How many of the nearest true pictures count as top 5."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """A model's answers for some characters of an alphabet.

    numbers   the characters
    pictures  drawn from each one's name, (B, H, W)
    nearest   the classes whose pictures are nearest to that, (B, NEAREST)
    names     written from each one's picture, several tries
    """

    alphabet: Alphabet
    numbers: Sequence[int]
    pictures: np.ndarray
    nearest: np.ndarray
    names: Sequence[Sequence[str]]

    def drawn(self, within: int) -> list[bool]:
        """Whether the true class is among the `within` nearest."""
        true_B = self.alphabet.classes_N[list(self.numbers)]
        return [bool(right) for right in (self.nearest[:, :within] == true_B[:, None]).any(1)]

    def named(self, within: int) -> list[bool]:
        """Whether the first `within` tries hold a name of the true class."""
        classes = self.alphabet.classes_N[list(self.numbers)].tolist()
        return [
            named_right(tries[:within], true, self.alphabet) for tries, true in zip(self.names, classes, strict=True)
        ]


def ask(
    model: Model,
    alphabet: Alphabet,
    numbers: Sequence[int],
    *,
    config: GlyphsTaskConfig,
    seed: int,
    kind: str,
    progress: Progress,
) -> Answers:
    """Every character asked for in both directions; `kind` says in `progress` which ones they are."""
    pictures: list[np.ndarray] = []
    names: list[list[str]] = []
    for start in range(0, len(numbers), ROUND):
        some = numbers[start : start + ROUND]
        # Identical pictures name the same noise: in another round they are answered anew.
        by_name = [[Given(config.text, alphabet.names[number])] for number in some]
        drawn = model.generate_many(by_name, target=config.image, seed=seed + start)
        pictures += [_picture(results[0].item) for results in drawn]
        by_picture = [[Given(config.image, alphabet.pictures_NHW[number][None])] for number in some]
        written = model.generate_many(by_picture, n=config.tries, target=config.text, seed=seed + start)
        names += [[str(result.item) for result in results] for results in written]
        progress(f"{kind} glyphs", len(names), len(numbers))
    made = np.stack(pictures)
    nearest = nearest_classes(made, alphabet, count=NEAREST)
    return Answers(alphabet=alphabet, numbers=numbers, pictures=made, nearest=nearest, names=names)


def _picture(item: Any) -> np.ndarray:
    """A generated picture, (H, W)."""
    if np.shape(item) != (1, SIDE, SIDE):
        what = f"a picture has the shape {np.shape(item)}, and glyphs have (1, {SIDE}, {SIDE})"
        raise UserError(what, where="task 'glyphs'", do="set bands, height and width of the image codec to these")
    return np.asarray(item[0], dtype=np.float32)
