"""What came of judging a model of digits, and its figures by the names under which programs find them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from colatent.evaluate.intervals import wilson
from colatent_gallery.digits.directions import Field, Outcome, Real
from colatent_gallery.digits.likeness import Likeness
from colatent_gallery.digits.twin import Cost


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """All that was found.

    outcomes  by the name of their direction
    real      what the model was asked with
    rights    of the real items of a field, how many its judge knew
    alike     generated pictures beside real ones, None where there are none
    cost      what mixing costs, None where no twin was named
    """

    outcomes: Mapping[str, Outcome]
    real: Mapping[Field, Real]
    rights: Mapping[Field, int]
    alike: Likeness | None
    cost: Cost | None

    def figures(self) -> dict[str, float]:
        """Numbers by name."""
        figures = {name: one.right / len(one.made) for name, one in self.outcomes.items()}
        if self.alike is not None:
            figures |= {} if self.alike.overall is None else {"variety": self.alike.overall}
            figures |= {f"variety_{digit}": ratio for digit, ratio in self.alike.variety.items()}
            figures["nearest_generated"] = float(np.median(self.alike.nearest_generated))
            figures["nearest_real"] = float(np.median(self.alike.nearest_real))
        if self.cost is not None:
            figures |= {f"mixing_{source}": ratio for source, ratio in self.cost.ratios.items()}
        return figures | {f"judge_{field}": self.rights[field] / len(some.items) for field, some in self.real.items()}

    def bounds(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of what was counted."""
        found = {name: wilson(one.right, len(one.made)) for name, one in self.outcomes.items()}
        return found | {
            f"judge_{field}": wilson(self.rights[field], len(some.items)) for field, some in self.real.items()
        }
