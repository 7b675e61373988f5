"""log p(tokens | latents) of the text decoder, block by block.

The end symbol is a token like any other: without it a text would be as likely as all that begins with it. Padding is
left out, which is what leaving it unobserved gives, since tokens are independent of one another given the latents.

Axes: N latents of the flat batch, L latents of an item, P tokens per latent, V vocabulary, K blocks of an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from colatent.plugins.contract import Latents

if TYPE_CHECKING:
    from colatent_text.codec import TextCodec
    from colatent_text.tokens import TextItem


def log_likelihood(codec: TextCodec, items: Sequence[TextItem], latents: Sequence[Latents]) -> list[Tensor]:
    """Sum of the log-probabilities, in nats, of the tokens of each block, (K,) per item; see `Scorable`."""
    rows, device = [codec.token_rows(item) for item in items], codec.shift_C.device
    ids_NP = torch.cat([row.ids_LP for row in rows]).to(device)
    real_NP = torch.cat([row.real_LP for row in rows]).to(device)
    logits_NPV = codec.logits([record.z_LC for record in latents], as_generated=True)
    wide = torch.promote_types(logits_NPV.dtype, torch.float32)
    log_NP = logits_NPV.log_softmax(-1, dtype=wide).gather(-1, ids_NP[..., None])[..., 0]
    log_N = log_NP.masked_fill(~real_NP, 0.0).sum(-1)
    parts = log_N.split([len(record.z_LC) for record in latents])
    blocks = [part_L.split(list(record.block_lengths)) for part_L, record in zip(parts, latents, strict=True)]
    return [torch.stack([block.sum() for block in some]) for some in blocks]
