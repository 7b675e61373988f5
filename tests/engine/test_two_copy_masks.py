"""Who sees whom in the two-copy pass, held to tables written by hand from the paper's layouts.

Visibility is measured, not read from a mask: in a prior of one layer, row i's velocity moves with row j's latent
exactly where i attends to j. Blocks are named by copy: C0, C1, ... and N0, N1, ... are clean and noisy text, I and i a
clean and a noisy image, S0 and s0 of sound, P an instruction that is only given. What nothing looks at (the last clean
group) has no line.
"""

from __future__ import annotations

import pytest
import torch

from colatent.flow.path import interpolate
from colatent.latents.packing import pack
from colatent.latents.sequence import LatentSequence

Layout = tuple[tuple[str, ...], str, dict[str, str]]
"""Segments, the blocks' names (clean/noisy), and for each block whom it sees."""

LAYOUTS: dict[str, Layout] = {
    "text to text": (
        ("text 3",),
        "C0/N0 C1/N1 C2/N2",
        {"C0": "C0", "C1": "C0 C1", "N0": "N0", "N1": "C0 N1", "N2": "C0 C1 N2"},
    ),
    "text to image": (
        ("text 2", "image"),
        "C0/N0 C1/N1 I/i",
        {"C0": "C0", "C1": "C0 C1", "N0": "N0", "N1": "C0 N1", "i": "C0 C1 i"},
    ),
    "image to text": (
        ("given image", "text 2"),
        "I C0/N0 C1/N1",
        {"I": "I", "C0": "I C0", "N0": "I N0", "N1": "I C0 N1"},
    ),
    "text to sound": (
        ("given text 2", "sound 2"),
        "P0 P1 S0/s0 S1/s1",
        {"P0": "P0", "P1": "P0 P1", "S0": "P0 P1 S0", "s0": "P0 P1 s0", "s1": "P0 P1 S0 s1"},
    ),
    "sound to text": (
        ("given sound 2", "text 1"),
        "S0 S1 C0/N0",
        {"S0": "S0", "S1": "S0 S1", "N0": "S0 S1 N0"},
    ),
    "three in a row": (
        ("text 1", "image", "sound 2"),
        "C0/N0 I/i S0/s0 S1/s1",
        {
            "C0": "C0",
            "I": "C0 I",
            "S0": "C0 I S0",
            "N0": "N0",
            "i": "C0 i",
            "s0": "C0 I s0",
            "s1": "C0 I S0 s1",
        },
    ),
    "image + text to text": (
        ("given text 2", "given joined image", "text 2"),
        "P0 P1 I C0/N0 C1/N1",
        {
            "P0": "P0 P1 I",
            "P1": "P0 P1 I",
            "I": "P0 P1 I",
            "C0": "P0 P1 I C0",
            "N0": "P0 P1 I N0",
            "N1": "P0 P1 I C0 N1",
        },
    ),
    "instruction, then image, apart": (
        ("given text 2", "given image", "text 1"),
        "P0 P1 I C0/N0",
        {"P0": "P0", "P1": "P0 P1", "I": "P0 P1 I", "N0": "P0 P1 I N0"},
    ),
    "history dropped": (
        ("text 3 dropped 1",),
        "C0/N0 C1/N1 C2/N2",
        {"C0": "C0", "C1": "C0 C1", "N0": "N0", "N1": "N1", "N2": "C0 C1 N2"},
    ),
    "text and image in one group": (
        ("text 2", "joined image", "text 1"),
        "C0/N0 C1/N1 I/i C2/N2",
        {
            "C0": "C0 C1 I",
            "C1": "C0 C1 I",
            "I": "C0 C1 I",
            "N0": "N0",
            "N1": "N1",
            "i": "i",
            "N2": "C0 C1 I N2",
        },
    ),
    "given at the end": (("text 2", "given image"), "C0/N0 C1/N1 I", {"C0": "C0", "N0": "N0", "N1": "C0 N1"}),
}


def build(make_segment, words: tuple[str, ...]) -> LatentSequence:
    """Segments from their descriptions: blocks of two latents of text, of three of an image."""
    segments = []
    for seed, word in enumerate(words):
        parts = word.split()
        blocks = 1 if "image" in parts else int(parts[-1] if "sound" in parts else parts[parts.index("text") + 1])
        fields = {"generated": "given" not in parts, "same_group": "joined" in parts}
        if "dropped" in parts:
            fields["alone_K"] = tuple(number == int(parts[-1]) for number in range(blocks))
        image = "image" in parts
        stream, lengths = ("image", (3,)) if image else ("sound" if "sound" in parts else "text", (2,) * blocks)
        segments.append(make_segment(stream, lengths, seed=seed, axes=2 if image else 1, **fields))
    return tuple(segments)


def names_of(sequence: LatentSequence, names: str) -> dict[tuple[float, ...], tuple[str, ...]]:
    """Clean and noisy name of each latent, by its value."""
    lengths = [length for segment in sequence for length in segment.block_lengths]
    each = [tuple(name.split("/")) for name, length in zip(names.split(), lengths, strict=True) for _ in range(length)]
    latents = [tuple(z_C.tolist()) for segment in sequence for z_C in segment.z_LC]
    return dict(zip(latents, each, strict=True))


@pytest.mark.parametrize("dual_layers", [0, 1])
@pytest.mark.parametrize("name", LAYOUTS)
def test_visibility(double, make_prior, make_segment, name: str, dual_layers: int) -> None:
    words, names, table = LAYOUTS[name]
    sequence = build(make_segment, words)
    known = names_of(sequence, names)
    prior = make_prior({"text": 3, "image": 3, "sound": 3}, dual_layers=dual_layers, layers=1 - dual_layers)
    batch = pack([sequence])
    streams = batch.streams
    x = {s: interpolate(r.z0_SC, r.noise_SC, r.t_S[:, None]).requires_grad_() for s, r in streams.items()}
    velocity = prior(
        x,
        layout=batch.layout,
        rows={s: r.rows_S for s, r in streams.items()},
        positions_N3=batch.positions_N3,
        t_index_N=batch.t_index_N,
        modulation=prior.modulate(batch.t_T),
    )
    label = [
        (s, row, known[tuple(z_C.tolist())][int(noisy)])
        for s, r in streams.items()
        for row, (z_C, noisy) in enumerate(zip(r.z0_SC, r.noisy_S, strict=True))
    ]
    assert {block for _, _, block in label} == set(table)
    for stream, row, block in label:
        moved = torch.autograd.grad(velocity[stream][row].sum(), list(x.values()), retain_graph=True, allow_unused=True)
        gradient = dict(zip(x, moved, strict=True))
        seen = {(s, j) for s, j, _ in label if gradient[s] is not None and gradient[s][j].abs().max() > 1e-9}
        assert seen == {(s, j) for s, j, other in label if other in table[block].split()}, block
