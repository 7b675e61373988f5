"""Counted FLOPs against the sums one would write down: every matrix product, forward and twice backward."""

from __future__ import annotations

import torch

from colatent.config.prior import PriorConfig
from colatent.evaluate.cost import codec_flops, parameters, prior_flops
from colatent.evaluate.flops import count_flops
from colatent.prior.dit import Prior
from colatent_text.codec import TextCodec
from colatent_text.config import TextConfig
from colatent_text.items import Text


def test_a_matrix_product_costs_two_flops_per_product_forward_and_twice_that_backward() -> None:
    weight = torch.ones(5, 7, requires_grad=True)
    x = torch.ones(3, 5, requires_grad=True)
    assert count_flops(lambda: (x @ weight).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_prior_flops_are_the_sum_of_its_matrix_products() -> None:
    width, layers, block, blocks, channels = 64, 2, 4, 8, 8
    with torch.device("meta"):
        prior = Prior(PriorConfig(layers=layers, width=width, heads=2), {"text": channels})
    length = block * blocks
    clean = length - block  # the last block is nobody's history
    rows, times = clean + length, blocks + 1
    trunk = layers * rows * 12 * width**2  # qkv 3, out 1, MLP 8
    attention = layers * 2 * width * (clean * clean + length * (clean + block))
    # After the last layer nobody looks at the clean copy: its queries are not answered, nothing is made of them.
    trunk, attention = trunk - clean * 9 * width**2, attention - 2 * width * clean * clean
    modulation = times * (layers * 6 + 2) * width**2
    embedding = times * (256 * width + 2 * width**2)
    doors = rows * channels * width + length * width * channels
    expected = 3 * 2 * (trunk + attention + modulation + embedding + doors)
    no_gradient = 2 * times * 256 * width + 2 * rows * channels * width  # sinusoids and latents are no parameters
    assert prior_flops(prior, "text", block_lengths=(block,) * blocks) == expected - no_gradient
    assert parameters(prior) == sum(parameter.numel() for parameter in prior.parameters())


def test_codec_flops_grow_with_the_mask_loss_and_do_not_depend_on_the_device() -> None:
    items = [Text(ids=(1,) * 32, ends=False)]
    found = {}
    for device in ("cpu", "meta"):
        for weight in (0.0, 0.5):
            with torch.device(device):
                config = TextConfig(width=32, heads=2, channels=8, block=4, window=32, mask_weight=weight)
                found[device, weight] = codec_flops(TextCodec(config, {}), items)
    assert found["cpu", 0.5] == found["meta", 0.5]
    assert found["cpu", 0.5] > 1.9 * found["cpu", 0.0]
