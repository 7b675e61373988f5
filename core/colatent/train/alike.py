"""What processes that hold shares of a prior do alike: all gather the weights of a layer, or none does.

Which weights a pass uses, and through which layers a gradient goes back, hangs on its samples. A process that did
without what another uses would never come to gather it, and the other would wait.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from colatent.latents.packing import PackedBatch, with_streams
from colatent.prior.dit import Prior


def row_counts(batch: PackedBatch) -> dict[str, Tensor]:
    """Rows by stream, as counts of a pass: their sums tell every process which streams the step has."""
    return {f"{name}/rows": torch.tensor(len(rows.t_S)) for name, rows in batch.streams.items()}


def with_rows(batch: PackedBatch, prior: Prior, counts: Mapping[str, Tensor], *, gradient: bool = False) -> PackedBatch:
    """The batch with every stream that any process has in this step. `gradient`: of its latents too, of which a process
    may have none that need one, where codecs move and the prior stands still."""
    present = {name: width for name, width in prior.channels.items() if f"{name}/rows" in counts}
    batch = with_streams(batch, present)
    for rows in batch.streams.values():
        if gradient and not rows.z0_SC.requires_grad:
            rows.z0_SC.requires_grad_()
    return batch
