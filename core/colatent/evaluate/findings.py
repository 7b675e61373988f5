"""What stands out in a diagnosis, in plain sentences with their thresholds.

A finding is a hint, not a verdict: each has one threshold, written beside it, and says what to try. The thresholds are
ours; docs/diagnosis.md gives the reason for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from colatent.evaluate.diagnosis import Diagnosis, StreamDiagnosis
from colatent.latents.posterior import SCALE_RANGE

LOW_LOG_SNR = 2.0
"""The paper's learned log SNR is about 4.5; a small prior of ours at 0.9 spent itself on noise."""
LOW_RECONSTRUCTION = 0.95
FRAGILE_NOISE, FRAGILE_SHARE = 0.2, 0.9
"""A decoder is fragile where noise of this std costs more than a tenth of the units it had right."""
LATER_DROP = 0.05
KNOWING_TIMES, KNOWING_GAIN = (0.2, 0.9), 0.05
"""A prior knows something where its loss is this share under the Gaussian's at some t between."""
HISTORY_GAIN = 0.02
UNTRAINED = 1.2
"""Hidden history: this many times the Gaussian's loss is worse than knowing nothing but mean and covariance."""
HARM = 0.01


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that stands out.

    name   stable key
    text   what was measured, beside its threshold
    do     what to try
    """

    stream: str
    name: str
    text: str
    do: str


def findings(diagnosis: Diagnosis) -> list[Finding]:
    """All that stands out, stream by stream, in the order of the stages."""
    return [
        Finding(stream=stream, name=name, text=text, do=do)
        for stream, one in diagnosis.streams.items()
        for name, check in CHECKS.items()
        for text, do in check(one)
    ]


Found = Iterator[tuple[str, str]]


def _low_snr(one: StreamDiagnosis) -> Found:
    low = [value for value in one.latents.log_snr or () if value < LOW_LOG_SNR]
    if low:
        yield (
            f"log SNR of {len(low)} of {len(one.latents.mean)} channels is under {LOW_LOG_SNR:g} "
            f"(lowest {min(low):.1f}): the prior has to model noise that carries nothing",
            "fix a higher SNR (log_snr); where it is learned, a lower weight of the KL in stage codec raises it",
        )


def _inactive(one: StreamDiagnosis) -> Found:
    idle = len(one.latents.mean) - one.latents.active
    if idle:
        yield (
            f"{idle} of {len(one.latents.mean)} channels are inactive (signal at most 1 % of their variance)",
            "use fewer channels or a smaller weight of the KL",
        )


def _off_scale(one: StreamDiagnosis) -> Found:
    low, high = SCALE_RANGE
    if not low <= one.latents.overall_std <= high:
        yield (
            f"held-out latents are off scale: std {one.latents.overall_std:.2f}, expected {low:g} to {high:g}",
            "measure the scale on data like these: train stage codec on them",
        )


def _poor_decoder(one: StreamDiagnosis) -> Found:
    if one.reconstruction is None or one.reconstruction.share >= LOW_RECONSTRUCTION:
        return
    what = (
        f"the decoder gets {one.reconstruction.share:.1%} of held-out units right from true latents, "
        f"under {LOW_RECONSTRUCTION:.0%}: no prior can do better"
    )
    of_mean = None if one.robustness is None else one.robustness.share[0]
    if of_mean is not None and of_mean >= LOW_RECONSTRUCTION:
        yield f"{what} (from the posterior's mean it gets {of_mean:.1%}: its noise costs the rest)", "use a higher SNR"
    else:
        yield what, "train stage codec longer, or give it more channels or less KL"


def _later(one: StreamDiagnosis) -> Found:
    bins = one.reconstruction.by_block if one.reconstruction is not None else None
    shares = [each.share for each in bins or () if each.share is not None]
    if len(shares) > 1 and shares[0] - shares[-1] > LATER_DROP:
        yield (
            f"reconstruction falls from {shares[0]:.1%} in the first block to {shares[-1]:.1%} in the last ones, "
            f"by more than {LATER_DROP:.0%}",
            "train the codec on items as long as these",
        )


def _fragile(one: StreamDiagnosis) -> Found:
    if one.robustness is None:
        return
    share = dict(zip(one.robustness.noise, one.robustness.share, strict=True))
    if share[FRAGILE_NOISE] < FRAGILE_SHARE * share[0.0]:
        yield (
            f"noise of std {FRAGILE_NOISE:g} on the latents takes reconstruction from {share[0.0]:.1%} to "
            f"{share[FRAGILE_NOISE]:.1%} (under {FRAGILE_SHARE:.0%} of it): small errors of the prior become errors",
            "train the codec with more posterior noise, or mask some of its input",
        )


def _ignorant(one: StreamDiagnosis) -> Found:
    if one.flow is None:
        return
    low, high = KNOWING_TIMES
    curves = zip(one.flow.t, one.flow.loss, one.flow.gaussian, strict=True)
    gains = [1 - loss / known for t, loss, known in curves if low <= t <= high and known > 0]
    if gains and max(gains) < KNOWING_GAIN:
        yield (
            f"at no t from {low:g} to {high:g} is the flow loss {KNOWING_GAIN:.0%} under that of a Gaussian with the "
            f"latents' mean and covariance ({_gain(max(gains))})",
            "train stage prior longer or give it more width; check that loss falls at all",
        )


def _gain(best: float) -> str:
    return f"best {best:.1%}" if best > 0 else "nowhere lower"


def _no_history(one: StreamDiagnosis) -> Found:
    if one.flow is None or one.flow.after is None or one.flow.alone is None:
        return
    gains = [1 - after / alone for after, alone in zip(one.flow.after, one.flow.alone, strict=True) if alone > 0]
    if gains and max(gains) < HISTORY_GAIN:
        yield (
            f"history lowers the flow loss by less than {HISTORY_GAIN:.0%} at every t ({_gain(max(gains))}): "
            "the prior ignores it, or blocks do not depend on one another",
            "train stage prior longer, on sequences whose blocks belong together",
        )


def _untrained_alone(one: StreamDiagnosis) -> Found:
    if one.flow is None or one.flow.alone is None:
        return
    low, high = KNOWING_TIMES
    curves = zip(one.flow.t, one.flow.alone, one.flow.gaussian, strict=True)
    ratios = [(alone / known, t) for t, alone, known in curves if low <= t <= high and known > 0]
    worst, t = max(ratios, default=(0.0, 0.0))
    if worst > UNTRAINED:
        yield (
            f"with history hidden the flow loss is {worst:.1f} times that of a Gaussian at t = {t:g} "
            f"(more than {UNTRAINED:g}): guidance's unconditional branch was hardly trained",
            "generate with guidance 1, or train with flow.history_dropout",
        )


def _harmful(one: StreamDiagnosis) -> Found:
    if one.denoising is None:
        return
    rows = zip(one.denoising.t, one.denoising.denoised, one.denoising.undenoised, strict=True)
    units = one.reconstruction.units if one.reconstruction is not None else 1
    worse = [
        (before - after, t)
        for t, after, before in rows
        if t <= KNOWING_TIMES[1] and before - after > max(HARM, _two_errors(before, units))
    ]
    if worse:
        loss, t = max(worse)
        yield (
            f"the prior takes away what z_t still shows: from t = {t:g} it leaves {100 * loss:.1f} points fewer units "
            f"right than decoding z_t as it is (more than {100 * HARM:g})",
            "train stage prior longer, or with a time law that draws smaller t",
        )


def _two_errors(share: float, units: int) -> float:
    """Two standard errors of a share of so many units: what is less may be chance."""
    return 2.0 * (share * (1.0 - share) / max(1, units)) ** 0.5


CHECKS: dict[str, Callable[[StreamDiagnosis], Found]] = {
    "low_log_snr": _low_snr,
    "inactive_channels": _inactive,
    "off_scale": _off_scale,
    "poor_reconstruction": _poor_decoder,
    "later_blocks_worse": _later,
    "fragile_decoder": _fragile,
    "prior_knows_only_moments": _ignorant,
    "history_does_not_help": _no_history,
    "unconditional_untrained": _untrained_alone,
    "denoising_harms": _harmful,
}
