"""The key-value cache of generation: keys stored rotated, the last W latents kept, allocated once where it is known how
many there will be.

Histories of a batch are right-aligned: every sample's newest latent lies in the same column, so a new block is written
at the same place for all and a shorter history is only a mask. Rotary is relative, so nothing is rotated again when old
latents are forgotten.

Axes: B samples, S columns, H heads, D head channels, Q queries.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of `layers` attention layers for B samples, `window` latents of history and one block.

    end        columns in use
    length_B   latents of history that each sample really has, at most `window`
    """

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        heads: int,
        head_dim: int,
        window: int,
        block: int,
        expected: int | None = None,
    ) -> None:
        """`expected`: latents of history that there will probably be at most, the prefix included. Where they are fewer
        than the window, columns are allocated for these; None: for the whole window."""
        self.layers, self.window, self.block = layers, window, block
        columns = (window if expected is None else min(window, expected)) + block
        self._shape = (batch, columns, heads, head_dim)
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers
        self.end = 0
        self.length_B = torch.zeros(batch, dtype=torch.int64)

    def fill(self, layer: int, k_BLHD: Tensor, v_BLHD: Tensor) -> None:
        """Keep the last W columns of a right-aligned prefix."""
        kept = min(k_BLHD.shape[1], self.window)
        keys, values = self._store(layer, k_BLHD)
        if kept:
            keys[:, :kept], values[:, :kept] = k_BLHD[:, -kept:], v_BLHD[:, -kept:]

    def read(self, layer: int, k_BQHD: Tensor, v_BQHD: Tensor) -> tuple[Tensor, Tensor]:
        """History and the current block's own keys and values, (B, end + Q, H, D) each, where B may also be only the
        first samples."""
        keys, values = (stored[: len(k_BQHD)] for stored in self._store(layer, k_BQHD))
        stop = self.end + k_BQHD.shape[1]
        keys[:, self.end : stop], values[:, self.end : stop] = k_BQHD, v_BQHD
        return keys[:, :stop], values[:, :stop]

    def filled(self, length_B: Tensor) -> None:
        """Note that a prefix of these lengths was left by `fill` in every layer."""
        self.end = min(int(length_B.max()), self.window)
        self.length_B = length_B.clamp(max=self.window)

    def commit(self, length: int) -> None:
        """Make the block that `read` last wrote part of the history, forgetting the oldest latents past the window."""
        self.end += length
        self.length_B = (self.length_B + length).clamp(max=self.window)
        surplus = self.end - self.window
        if surplus > 0:
            for store in (*self._keys, *self._values):
                if store is not None:
                    store[:, : self.window] = store[:, surplus : self.end].clone()
            self.end = self.window

    def mask_BQK(self, length: int) -> Tensor | None:
        """What a block of `length` sees: its sample's history and itself. None where nothing has to be hidden."""
        if bool((self.length_B == self.end).all()):
            return None
        column_K = torch.arange(self.end + length)
        seen_BK = column_K[None] >= (self.end - self.length_B)[:, None]
        return seen_BK[:, None].expand(-1, length, -1)

    def make_room(self, block: int) -> None:
        """Have columns for a next block of this length. More than was expected (longer blocks, longer history) costs a
        copy: then there is room for the whole window."""
        self.block = max(self.block, block)
        columns, needed = self._shape[1], self.end + block
        if needed <= columns:
            return
        more = self.window + self.block - columns
        for stores in (self._keys, self._values):
            stores[:] = [None if one is None else _longer(one, more) for one in stores]
        self._shape = (self._shape[0], columns + more, *self._shape[2:])

    def _store(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:  # allocated at first use: dtype and device are those of the pass
            keys, values = self._keys[layer], self._values[layer] = _zeros(self._shape, like), _zeros(self._shape, like)
        return keys, values


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An empty store, (B, S, H, D). On a CPU, whose kernels go through one head after the other, columns of a head lie
    side by side: in long histories that is half as fast again."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    batch, columns, *head = shape
    return like.new_zeros(batch, head[0], columns, head[1]).transpose(1, 2)


def _longer(store: Tensor, more: int) -> Tensor:
    """A copy of a store with so many columns more."""
    batch, columns, *head = store.shape
    longer = _zeros((batch, columns + more, *head), store)
    longer[:, :columns] = store
    return longer
