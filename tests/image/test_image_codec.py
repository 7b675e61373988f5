"""The image codec: one picture's latents are its own, of any size and number of bands, and training improves them."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from colatent.errors import UserError
from colatent.generate.requests import Request
from colatent.generate.running import batches
from colatent.plugins.contract import OptionedCodec, PlanRequest, TrainableCodec
from colatent.plugins.items import FileCodec, Showable
from colatent_image.codec import TOLERANCE, ImageCodec
from colatent_image.config import ImageConfig
from colatent_image.items import Image

TINY: dict[str, Any] = {"bands": 1, "height": 8, "width": 8, "downsample": 4, "features": 16, "depth": 1, "channels": 8}
KINDS = ("conv", "patch")


def make_codec(seed: int = 0, **settings: Any) -> ImageCodec:
    torch.manual_seed(seed)
    codec = ImageCodec(ImageConfig(**TINY | settings))
    with torch.no_grad():  # blocks that begin as identities would hide what they mix
        for parameter in codec.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return codec


def picture(height: int, width: int, *, bands: int = 1, seed: int = 0) -> Image:
    return np.random.default_rng(seed).random((bands, height, width), dtype=np.float32)


def crosses(count: int) -> list[Image]:
    """Dark pictures with a bright row and column each."""
    items = []
    for number in range(count):
        item = np.full((1, 8, 8), 0.1, dtype=np.float32)
        item[:, number % 8] = item[:, :, (3 * number + number // 8) % 8] = 0.9
        items.append(item)
    return items


def test_it_can_be_trained_asked_stored_and_shown() -> None:
    codec = make_codec()
    for protocol in (TrainableCodec, OptionedCodec, FileCodec, Showable):
        assert isinstance(codec, protocol)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_a_picture_of_any_size_is_one_block_of_its_squares(kind: str, bands: int) -> None:
    codec = make_codec(kind=kind, bands=bands)
    for height, width in ((4, 4), (8, 20), (12, 4)):
        (record,) = codec.encode([picture(height, width, bands=bands)])
        squares = [(row, column) for row in range(height // 4) for column in range(width // 4)]
        assert record.positions_LA.tolist() == [list(map(float, square)) for square in squares]
        assert record.block_lengths == (len(squares),)
        assert record.units_L.tolist() == [16] * len(squares)
        (again,) = codec.decode([record.sample(None)])
        assert again.shape == (bands, height, width)
        assert again.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_several_sizes_in_a_batch_are_encoded_and_decoded_as_alone(kind: str) -> None:
    codec = make_codec(kind=kind)
    codec.set_scale(torch.linspace(-0.5, 0.5, 8), torch.linspace(0.5, 2.0, 8))
    sizes = [(8, 8), (4, 12), (8, 8), (12, 4), (4, 12), (8, 8)]
    items = [picture(*size, seed=seed) for seed, size in enumerate(sizes)]
    records = codec.encode(items)
    made = codec.decode([record.sample(None) for record in records])
    for item, record, decoded in zip(items, records, made, strict=True):
        (alone,) = codec.encode([item])
        torch.testing.assert_close(record.mean_LC, alone.mean_LC, atol=1e-5, rtol=0)
        assert torch.equal(record.positions_LA, alone.positions_LA)
        np.testing.assert_allclose(decoded, codec.decode([alone.sample(None)])[0], atol=1e-5)


def test_latents_stand_where_their_pixels_are() -> None:
    """Where one square changes, so do the latents that two convolutions reach from there, and no other."""
    codec, before = make_codec(kind="patch"), picture(28, 36)
    after = before.copy()
    after[:, 20:24, 8:12] = 0.5
    one, other = codec.encode([before, after])
    changed = (one.mean_LC != other.mean_LC).any(-1)
    near = (one.positions_LA - torch.tensor([5.0, 2.0])).abs().amax(-1) <= 2
    assert torch.equal(changed, near)


@pytest.mark.parametrize("kind", KINDS)
def test_even_pictures_of_different_brightness_stay_apart(kind: str) -> None:
    items = [np.full((1, 8, 8), value, dtype=np.float32) for value in (0.3, 0.4)]
    one, other = make_codec(kind=kind, mean_norm=False).encode(items)
    assert (one.mean_LC - other.mean_LC).abs().amax(-1).min() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_means_are_normalised_and_noise_is_fixed(kind: str) -> None:
    (record,) = make_codec(kind=kind).encode([picture(8, 8)])
    assert record.logvar_LC is not None
    torch.testing.assert_close(record.mean_LC.square().mean(-1), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(record.mean_LC.mean(-1), torch.zeros(4), atol=1e-5, rtol=0)
    assert torch.equal(record.logvar_LC, torch.full((4, 8), -4.5))


def test_noise_may_be_learned_and_means_left_free() -> None:
    codec = make_codec(log_snr=None, mean_norm=False, channels=1)
    (record,) = codec.encode([picture(8, 8)])
    assert record.logvar_LC is not None
    assert len(record.logvar_LC.unique()) > 1
    assert not torch.allclose(record.mean_LC.square().mean(), torch.ones(()), atol=1e-2)
    record.logvar_LC.sum().backward()
    assert float(codec.encoder.final_layer.weight.grad.abs().max()) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_the_pixel_loss_is_the_mean_over_all_pixels_of_all_sizes(kind: str, loss: str) -> None:
    codec = make_codec(kind=kind, pixel_loss=loss)
    items = [picture(8, 8), picture(4, 12, seed=1), picture(8, 8, seed=2)]
    latents = [record.sample(None) for record in codec.encode(items)]
    found = codec.losses(items, latents, generator=torch.Generator())["reconstruction"].detach()
    off = []
    for item, record in zip(items, latents, strict=True):
        z_HWC = record.z_LC.unflatten(0, (item.shape[1] // 4, item.shape[2] // 4))
        made = codec.decoder(z_HWC[None])[0].detach().numpy()
        off += (made - item).flatten().tolist()
    expected = np.square(off).mean() if loss == "mse" else np.abs(off).mean()
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_reaches_every_parameter(kind: str) -> None:
    codec = make_codec(kind=kind, log_snr=None)
    items = [picture(8, 8), picture(4, 12)]
    noise = torch.Generator().manual_seed(0)
    latents = [r.sample(torch.randn(r.mean_LC.shape, generator=noise)) for r in codec.encode(items)]
    codec.losses(items, latents, generator=noise)["reconstruction"].backward()
    missed = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not missed


def test_a_pixel_counts_where_all_its_bands_are_near() -> None:
    codec = make_codec(bands=2)
    (record,) = codec.encode([picture(4, 8, bands=2)])
    (made,) = codec.decode([record.sample(None)])
    item = made.copy()
    item[0, 0, 0] = made[0, 0, 0] + (0.2 if made[0, 0, 0] < 0.5 else -0.2)
    item[:, 1, 2] = np.where(made[:, 1, 2] < 0.5, 1, -1) * 0.2 + made[:, 1, 2]
    item[1, 3, 3] = made[1, 3, 3] + (0.5 * TOLERANCE if made[1, 3, 3] < 0.5 else -0.5 * TOLERANCE)
    assert codec.reconstruction_score([item], [record.sample(None)]) == (30, 32)


def test_decoded_values_stay_within_zero_and_one() -> None:
    codec = make_codec()
    (record,) = codec.encode([picture(8, 8)])
    (made,) = codec.decode([record.sample(1000 * torch.randn(record.mean_LC.shape))])
    assert (made.min(), made.max()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "shape"), [({}, (2, 3)), ({"height": 4}, (1, 3)), ({"height": 12, "width": 8}, (3, 2))]
)
def test_a_plan_is_one_block_of_the_size_that_is_asked_for(options: dict[str, int], shape: tuple[int, int]) -> None:
    codec = make_codec(width=12)
    (plan,) = codec.plan(PlanRequest(options=codec.options_model()(**options).model_dump()))
    (record,) = codec.encode([picture(4 * shape[0], 4 * shape[1])])
    assert plan.length == shape[0] * shape[1]
    assert torch.equal(plan.positions_LA, record.positions_LA)


def test_a_size_that_is_no_whole_number_of_latents_cannot_be_generated() -> None:
    with pytest.raises(UserError, match=r"option width: is 10, not a multiple of the codec's downsample \(4\); give 4"):
        list(make_codec().plan(PlanRequest(options={"height": 8, "width": 10})))


def test_a_size_beyond_the_limit_cannot_be_generated() -> None:
    with pytest.raises(UserError, match=r"height and width: are 16 x 20, more than max_pixels=256; generate a smaller"):
        list(make_codec(max_pixels=256).plan(PlanRequest(options={"height": 16, "width": 20})))


def test_a_block_of_more_latents_than_can_look_at_one_another_is_refused_before_it_is_made() -> None:
    codecs, asked = {"image": make_codec()}, Request(target="image", options={"height": 800_000, "width": 16})
    line = r"stream 'image': asks for 800,000 latents in one block, more than 65,536; ask for something smaller"
    with pytest.raises(UserError, match=line):
        batches(codecs, [asked], size=1)


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ("a cat", r"image 1: is a str; give a float32 array \(1, height, width\)"),
        (np.zeros((1, 8, 8), dtype=np.uint8), r"is uint8 \(1, 8, 8\)"),
        (np.zeros((8, 8), dtype=np.float32), r"is float32 \(8, 8\)"),
        (np.zeros((3, 8, 8), dtype=np.float32), r"is float32 \(3, 8, 8\)"),
        (np.zeros((1, 8, 10), dtype=np.float32), r"is 8 x 10 pixels, its sides must be multiples of downsample \(4\)"),
        (np.zeros((1, 0, 8), dtype=np.float32), r"is 0 x 8 pixels"),
        (np.full((1, 8, 8), 1.5, dtype=np.float32), r"below 0 or above 1"),
        (np.full((1, 8, 8), np.nan, dtype=np.float32), r"no numbers"),
    ],
)
def test_what_is_no_picture_of_this_codec_is_refused_by_its_place(item: object, what: str) -> None:
    with pytest.raises(UserError, match=what):
        make_codec().encode([picture(8, 8), item])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"height": 10}, "height 10 must be a multiple of downsample"),
        ({"width": 6}, "width 6 must be a multiple of downsample"),
        ({"height": 6, "width": 6, "downsample": 3}, "downsample 3 must be a power of two where kind is conv"),
        ({"channels": 2}, "mean_norm leaves no freedom to 2 channels"),
        ({"vgg": 0.1}, "vgg and vgg_weights go together"),
        ({"vgg_weights": "vgg.safetensors"}, "vgg and vgg_weights go together"),
        ({"vgg": 0.1, "vgg_weights": "x", "bands": 2}, "vgg sees pictures of 1 or 3 bands"),
        ({"vgg": 0.1, "vgg_weights": "x", "downsample": 2}, "at least 4 pixels a side"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        ImageConfig(**TINY | settings)


def test_patches_need_no_power_of_two() -> None:
    codec = make_codec(kind="patch", downsample=3, height=6, width=6)
    (record,) = codec.encode([picture(6, 9)])
    assert codec.decode([record.sample(None)])[0].shape == (1, 6, 9)


def test_a_codec_travels_into_a_worker_and_keeps_its_scale() -> None:
    codec = make_codec()
    codec.set_scale(torch.full((8,), 0.3), torch.full((8,), 0.7))
    other = pickle.loads(pickle.dumps(codec))
    assert torch.equal(other.encode([picture(8, 8)])[0].mean_LC, codec.encode([picture(8, 8)])[0].mean_LC)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_pictures_are_learnt(kind: str) -> None:
    """Mean absolute error after noise of log SNR 4.5 falls below 0.04, which grey pictures miss by far."""
    torch.manual_seed(0)
    codec, items = ImageCodec(ImageConfig(**TINY | {"kind": kind, "features": 32, "channels": 16})), crosses(12)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=5e-3)
    noise = torch.Generator().manual_seed(0)

    def draw() -> list[Any]:
        return [r.sample(torch.randn(r.mean_LC.shape, generator=noise)) for r in codec.encode(items)]

    for _ in range(200):
        loss = codec.losses(items, draw(), generator=noise)["reconstruction"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        off = [np.abs(made - item).mean() for made, item in zip(codec.decode(draw()), items, strict=True)]
    assert np.mean([np.abs(item - item.mean()).mean() for item in items]) > 0.2
    assert np.mean(off) < 0.04
