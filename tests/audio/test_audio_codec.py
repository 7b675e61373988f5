"""The audio codec: sounds in latents and back, where they end, and that nothing leaks between items or blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from audio.sounds import KEYS, RATE, detected, keypad
from colatent.errors import UserError
from colatent.plugins import load_plugins
from colatent.plugins.contract import Latents, PlanRequest
from colatent.testing import check_codec
from colatent.train.codec_stage import draw, latent_statistics
from colatent_audio.codec import AudioCodec
from colatent_audio.config import AudioConfig
from colatent_audio.inversion import Inversion
from colatent_audio.items import Span
from colatent_audio.spectrum import STEP_DB, Spectrum

SMALL = AudioConfig(block=4)


def tones(seed: int, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [keypad(KEYS[number % len(KEYS)], rng) for number in range(count)]


def pauses(seed: int, count: int) -> list[np.ndarray]:
    """Two keys with silence between."""
    rng, items = np.random.default_rng(seed), tones(seed, 2 * count)
    gaps = [np.zeros(int(rng.integers(1000)), dtype=np.float32) for _ in range(count)]
    return [np.concatenate(parts) for parts in zip(items[::2], gaps, items[1::2], strict=True)]


@pytest.fixture(scope="module")
def trained() -> AudioCodec:
    """A codec after some seconds on keypad tones, some of them in pairs, at unit scale."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = AudioCodec(SMALL)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=3e-3)
    steps = 400
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1.0, step / 30) * (1 - step / steps)
        items = tones(step, 16) + pauses(step, 4)
        losses = codec.losses(items, draw(codec.encode(items), (step,)), generator=torch.Generator())
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    codec.eval().requires_grad_(False)
    codec.set_scale(*latent_statistics(codec, tones(1000, 64), (0,)))
    return codec


def blocks_of(latents: Latents, size: int) -> Iterator[Latents]:
    for z_LC, positions_LA in zip(latents.z_LC.split(size), latents.positions_LA.split(size), strict=True):
        yield Latents(z_LC=z_LC, block_lengths=(len(z_LC),), positions_LA=positions_LA)


def test_the_codec_keeps_the_contract() -> None:
    results = check_codec(load_plugins(), "audio")
    assert [(result.name, result.detail) for result in results if result.state == "failed"] == []
    assert {result.name for result in results if result.state == "passed"} >= {"streaming", "files", "show", "losses"}


def test_the_span_of_a_block_is_told() -> None:
    assert AudioConfig().block_seconds == AudioCodec(AudioConfig()).block_seconds == 8 * 2 * 128 / 8000


@pytest.mark.parametrize("samples", [1, 127, 128, 129, 1023, 1024, 1025])
def test_units_are_the_samples_and_the_end(samples: int) -> None:
    (record,) = AudioCodec(SMALL).encode([np.full(samples, 0.1, dtype=np.float32)])
    assert int(record.units_L.sum()) == samples + 1
    assert set(record.block_lengths) == {SMALL.block}
    frames = record.units_L.numpy()
    end = -(-samples // SMALL.hop) // SMALL.frames_per_latent
    assert frames[end] > 0
    assert not frames[end + 1 :].any()
    assert len(frames) - end <= SMALL.block


def test_an_item_is_encoded_as_it_would_be_alone(trained: AudioCodec) -> None:
    items = [*tones(1, 5), np.zeros(1, dtype=np.float32), np.ones(5000, dtype=np.float32)]
    for item, together in zip(items, trained.encode(items), strict=True):
        (alone,) = trained.encode([item])
        assert alone.block_lengths == together.block_lengths
        torch.testing.assert_close(alone.mean_LC, together.mean_LC, atol=1e-5, rtol=0)


def test_tones_come_back_as_the_same_key(trained: AudioCodec) -> None:
    items = tones(2000, 64)
    assert [detected(item) for item in items] == [KEYS[number % len(KEYS)] for number in range(64)]
    back = trained.decode(draw(trained.encode(items), (1,)))
    right = [detected(one) == detected(item) for one, item in zip(back, items, strict=True)]
    assert sum(right) >= 62
    for one, item in zip(back, items, strict=True):
        assert one.dtype == np.float32
        assert 0.5 < float(np.square(one).mean() / np.square(item).mean()) < 2.0


def test_most_ends_are_found_to_a_frame_and_silence_is_none(trained: AudioCodec) -> None:
    items = tones(3000, 16) + pauses(3000, 16)
    latents = [record.sample(None) for record in trained.encode(items)]
    lengths = [Span(samples=len(item), config=SMALL).frames * SMALL.hop for item in items]
    assert sum(len(one) == length for one, length in zip(trained.decode(latents), lengths, strict=True)) >= 28
    assert all(trained.finished(one) for one in latents)
    assert not trained.finished(next(blocks_of(latents[0], SMALL.block)))


def test_pieces_of_a_stream_are_the_whole_to_the_bit(trained: AudioCodec) -> None:
    items = pauses(4, 4)
    latents = [record.sample(None) for record in trained.encode(items)]
    whole = trained.decode(latents)
    for one, expected in zip(latents, whole, strict=True):
        stream, pieces = trained.open_stream([None]), []
        for block in blocks_of(one, SMALL.block):
            guess = stream.preview([block])[0]
            stream.push([block])
            assert np.array_equal(guess, stream.items()[0])
            pieces.append(stream.news()[0].item)
        assert stream.finished() == [True]
        assert sum(len(piece) > 0 for piece in pieces) > 2
        assert np.array_equal(np.concatenate(pieces), expected)
        assert np.array_equal(stream.items()[0], expected)
        assert stream.details() == [{"seconds": len(expected) / RATE, "stopped": "end"}]


def test_a_stream_that_is_broken_off_tells_the_rest_at_last(trained: AudioCodec) -> None:
    latents = trained.encode([tones(6, 1)[0]])[0].sample(None)
    stream = trained.open_stream([None])
    stream.push([next(blocks_of(latents, SMALL.block))])
    first, rest = stream.news()[0].item, stream.news(final=True)[0].item
    assert len(first) > 0
    assert len(rest) > 0
    assert np.array_equal(np.concatenate([first, rest]), stream.items()[0])
    assert len(stream.items()[0]) == SMALL.block * SMALL.samples_per_latent
    assert stream.finished() == [False]


@pytest.mark.parametrize(("budget", "stopped"), [(0, "budget"), (700, "budget"), (10**6, "end")])
def test_the_budget_is_exact(trained: AudioCodec, budget: int, stopped: str) -> None:
    item = tones(7, 1)[0]
    stream = trained.open_stream([None], max_units=budget)
    pieces = [stream.news()[0].item]
    for block in blocks_of(trained.encode([item])[0].sample(None), SMALL.block):
        stream.push([block])
        pieces.append(stream.news()[0].item)
    whole = Span(samples=len(item), config=SMALL).frames * SMALL.hop
    assert len(np.concatenate(pieces)) == len(stream.items()[0]) == min(budget, whole)
    assert stream.finished() == [True]
    assert stream.details()[0]["stopped"] == stopped


def test_what_is_given_is_no_part_of_what_is_made(trained: AudioCodec) -> None:
    (record,) = trained.encode(pauses(8, 1))
    latents, block = record.sample(None), SMALL.block
    whole = trained.decode([latents])[0]
    begun = type(record)(
        mean_LC=record.mean_LC[: 2 * block],
        logvar_LC=None,
        block_lengths=(block,) * 2,
        positions_LA=record.positions_LA[: 2 * block],
        units_L=record.units_L[: 2 * block].clone(),
    )
    begun.units_L[block + 1 :] = 0  # a block and a latent: the second block is still to be made
    assert next(trained.plan(PlanRequest(given=begun, options={}))).positions_LA[0, 0] == block
    stream = trained.open_stream([begun])
    for made in list(blocks_of(latents, block))[1:]:
        stream.push([made])
    assert np.array_equal(stream.items()[0], whole[(block + 1) * SMALL.samples_per_latent :])


def test_what_follows_an_end_changes_nothing(trained: AudioCodec) -> None:
    (record,) = trained.encode([tones(9, 1)[0][:1000]])
    z_LC = record.mean_LC.clone()
    z_LC[record.units_L == 0] = 50.0
    noisy = Latents(z_LC=z_LC, block_lengths=record.block_lengths, positions_LA=record.positions_LA)
    assert bool((record.units_L == 0).any())
    assert np.array_equal(trained.decode([noisy])[0], trained.decode([record.sample(None)])[0])


def test_latents_of_noise_give_a_bounded_sound(trained: AudioCodec) -> None:
    z_LC = 100.0 * torch.randn(12, SMALL.channels, generator=torch.Generator().manual_seed(0))
    positions_LA = torch.arange(12.0)[:, None]
    (sound,) = trained.decode([Latents(z_LC=z_LC, block_lengths=(4, 4, 4), positions_LA=positions_LA)])
    assert len(sound) >= SMALL.hop
    assert float(np.abs(sound).max()) <= 1.0


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros(0, dtype=np.float32), "no samples"),
        (np.array([0.1, np.nan], dtype=np.float32), "NaN or infinity"),
        (np.zeros((2, 10), dtype=np.float32), r"shape \(2, 10\)"),
        (np.zeros(10, dtype=np.int16), r"whole numbers \(int16\)"),
        (np.array([0.1, -32768.0], dtype=np.float32), "this one's go up to 32768"),
        ("a sound", "type <U7"),
    ],
)
def test_what_is_no_sound_is_refused(item: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        AudioCodec(SMALL).encode([item])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop": 100}, "must be a multiple of 2 x hop"),
        ({"block": 1, "frames_per_latent": 1}, "shorter than the window"),
        ({"channels": 2}, "mean_norm leaves no freedom to 2 channels"),
        ({"mels": 129}, "at most half of n_fft"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioConfig(**settings)


def test_mel_bands_narrower_than_the_spectrum_are_refused() -> None:
    with pytest.raises(UserError, match=r"mels: \d+ of 100 mel bands"):
        AudioCodec(AudioConfig(mels=100))


@pytest.mark.parametrize(("mels", "decibels"), [(None, 2.0), (64, 4.5)])
def test_there_is_a_way_back_from_levels_to_sound(mels: int | None, decibels: float) -> None:
    """A sound made of the levels of another has these levels; the same samples in another order are far from them."""
    config, rng = AudioConfig(mels=mels), np.random.default_rng(0)
    spectrum, away, farther = Spectrum(config), [], []
    for sound in tones(0, len(KEYS)):
        levels_FM = spectrum([sound]).flatten(0, 1)
        inversion = Inversion(n_fft=config.n_fft, hop=config.hop, iterations=30)
        back = inversion.add(spectrum.magnitudes(levels_FM), ends=True)[: len(sound)].astype(np.float32)
        for one, distances in ((back, away), (rng.permutation(sound), farther)):
            loud_FM = levels_FM > levels_FM.max() - 2
            distance_FM = (spectrum([one]).flatten(0, 1) - levels_FM).abs() * STEP_DB
            distances.append(float(distance_FM[loud_FM].mean()))
    assert np.mean(away) < decibels
    assert np.mean(farther) > 15.0


def test_learned_noise_carries_a_gradient() -> None:
    codec = AudioCodec(AudioConfig(log_snr=None, mels=32, mean_norm=False, width=32))
    (record,) = codec.encode(tones(0, 1))
    assert record.logvar_LC is not None
    record.logvar_LC.sum().backward()
    assert float(codec.encoder.final_layer.bias.grad[codec.config.channels :].abs().sum()) > 0
