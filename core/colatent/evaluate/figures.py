"""The figures of a diagnosis, as PNG bytes by file name: one per question, a row for each stream.

Nothing here measures. Every curve has its reference in the same axes, because a loss or a share alone says little.
Drawn on Agg canvases of their own: pyplot would keep global state and may look for a screen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

from colatent.evaluate.diagnosis import Diagnosis, StreamDiagnosis
from colatent.evaluate.diagnosis_decoder import Bin
from colatent.evaluate.findings import LOW_LOG_SNR

PUBLISHED_LOG_SNR = 4.5
"""What the paper's posterior learns."""
FEWEST = 3e-4
"""Share of wrong units where the log axis ends; less is drawn there."""
DPI = 110

Panel = Callable[[Any, StreamDiagnosis], None]


def draw_figures(diagnosis: Diagnosis) -> dict[str, bytes]:
    """All figures that have something to show, by file name."""
    return {name: png for name, panels in FIGURES.items() if (png := _draw(diagnosis.streams, panels)) is not None}


def _draw(streams: Mapping[str, StreamDiagnosis], panels: Sequence[tuple[Panel, str]]) -> bytes | None:
    """One row of panels per stream that has the part that the figure is about; None where no stream has."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    part = panels[0][1]
    shown = {name: one for name, one in streams.items() if getattr(one, part) is not None}
    if not shown:
        return None
    figure = Figure(figsize=(5.2 * len(panels), 4.0 * len(shown)), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for row, (name, one) in zip(figure.subplots(len(shown), len(panels), squeeze=False), shown.items(), strict=True):
        for axis, (panel, needed) in zip(row, panels, strict=True):
            if getattr(one, needed) is None:
                axis.set_axis_off()
                continue
            panel(axis, one)
            axis.set_title(f"{name}: {axis.get_title()}", fontsize=11)
    out = BytesIO()
    canvas.print_png(out, metadata={"Software": "colatent"})
    return out.getvalue()


def _snr(axis: Any, one: StreamDiagnosis) -> None:
    latents = one.latents
    axis.set_title("posterior log SNR per channel")
    axis.set_xlabel("channel")
    axis.set_ylabel("ln(signal / noise)  [nats]")
    _whole(axis.xaxis)
    axis.grid(axis="y", alpha=0.3)
    if latents.log_snr is None:
        axis.text(0.5, 0.5, "deterministic encoder:\nno posterior noise", ha="center", transform=axis.transAxes)
        return
    axis.bar(range(len(latents.log_snr)), latents.log_snr, color="tab:blue")
    axis.axhline(PUBLISHED_LOG_SNR, color="tab:green", linestyle="--", label=f"published: {PUBLISHED_LOG_SNR:g}")
    axis.axhline(LOW_LOG_SNR, color="tab:red", linestyle=":", label=f"low: {LOW_LOG_SNR:g}")
    axis.set_ylim(min(0.0, *latents.log_snr) * 1.1, 1.35 * max(PUBLISHED_LOG_SNR, *latents.log_snr))
    axis.legend(fontsize=8, loc="upper right", ncols=2)


def _variance(axis: Any, one: StreamDiagnosis) -> None:
    latents = one.latents
    axis.set_title("variance per channel")
    axis.set_xlabel("channel")
    axis.set_ylabel("variance at unit scale")
    _whole(axis.xaxis)
    axis.grid(axis="y", alpha=0.3)
    channels = range(len(latents.signal))
    axis.bar(channels, latents.signal, color="tab:blue", label="signal: variance of means")
    if latents.noise is not None:
        axis.bar(channels, latents.noise, bottom=latents.signal, color="tab:orange", label="noise: posterior variance")
    axis.axhline(1.0, color="black", linewidth=0.8, linestyle="--", label="unit scale")
    axis.set_ylim(0.0, 1.4 * max(1.0, *(std**2 for std in latents.std)))
    axis.legend(fontsize=8, loc="upper right")


def _correlation(axis: Any, one: StreamDiagnosis) -> None:
    axis.set_title("correlation between channels")
    image = axis.imshow(one.latents.correlation, vmin=-1.0, vmax=1.0, cmap="RdBu_r")
    axis.set_xlabel("channel")
    axis.set_ylabel("channel")
    _whole(axis.xaxis)
    _whole(axis.yaxis)
    axis.figure.colorbar(image, ax=axis, shrink=0.85, label="correlation")


def _whole(line: Any) -> None:
    """Whole numbers only beside an axis."""
    line.get_major_locator().set_params(integer=True)


def _length(axis: Any, one: StreamDiagnosis) -> None:
    assert one.reconstruction is not None
    axis.set_title("units right, by length")
    parts = {"items": one.reconstruction.by_length, "beginnings of items": one.reconstruction.beginnings}
    _bins(axis, parts, "latents that hold data")
    axis.legend(fontsize=8, loc="upper right", ncols=2)


def _block(axis: Any, one: StreamDiagnosis) -> None:
    assert one.reconstruction is not None
    axis.set_title("units right, by place in the item")
    if one.reconstruction.by_block is None:
        axis.text(0.5, 0.5, "this codec cannot cut items", ha="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    _bins(axis, {"items": one.reconstruction.by_block}, "number of the block, from 0")


def _bins(axis: Any, parts: Mapping[str, Sequence[Bin] | None], label: str) -> None:
    """Bars side by side, a group for each bin, with the share in percent and the number of units above it."""
    shown = {name: [each for each in bins if each.total] for name, bins in parts.items() if bins}
    ranges = sorted({(each.low, each.high) for bins in shown.values() for each in bins})
    width = 0.8 / max(1, len(shown))
    for number, (name, bins) in enumerate(shown.items()):
        places = [ranges.index((each.low, each.high)) + (number - (len(shown) - 1) / 2) * width for each in bins]
        axis.bar(places, [each.right / each.total for each in bins], width=0.95 * width, label=name, alpha=0.8)
        for place, each in zip(places, bins, strict=True):
            share = each.right / each.total
            units = f"{each.total}" if each.total < 1000 else f"{each.total / 1000:.1f}k"
            axis.text(place, share + 0.01, f"{100 * share:.1f}\n{units}", ha="center", va="bottom", fontsize=6)
    axis.set_xticks(range(len(ranges)), [f"{a}" if a == b else f"{a}–{b}" for a, b in ranges], fontsize=8)
    axis.set_xlabel(label)
    axis.set_ylim(0.0, 1.25)
    _percent(axis)


def _robust(axis: Any, one: StreamDiagnosis) -> None:
    assert one.robustness is not None
    axis.set_title("units right under noise on the latents")
    axis.plot(one.robustness.noise, one.robustness.share, marker="o", markersize=4, label="posterior mean + noise")
    if one.robustness.posterior_std is not None:
        std = one.robustness.posterior_std
        axis.axvline(std, color="tab:orange", linestyle="--", label=f"posterior's own std, {std:.2f}")
    axis.set_xlabel("std of the noise (latents have std 1)")
    axis.set_ylim(0.0, 1.05)
    axis.legend(fontsize=8)
    _percent(axis)


def _percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_ylabel("units right")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axis.grid(axis="y", alpha=0.3)


def _loss(axis: Any, one: StreamDiagnosis) -> None:
    assert one.flow is not None
    flow = one.flow
    axis.set_title("flow loss by t")
    axis.plot(flow.t, flow.constant, color="grey", linestyle=":", label="best constant")
    axis.plot(flow.t, flow.gaussian, color="tab:red", linestyle="--", label="Gaussian: mean and covariance only")
    axis.plot(flow.t, flow.loss, color="tab:blue", marker="o", markersize=4, label="the prior")
    if len(flow.by_source) > 1:
        for (source, loss), style in zip(flow.by_source.items(), cycle(("--", "-.", ":")), strict=False):
            axis.plot(flow.t, loss, color="tab:blue", linewidth=0.9, linestyle=style, label=f"the prior, {source}")
    axis.plot(flow.t, flow.oracle, color="tab:green", linestyle="--", label="oracle: told the item")
    axis.set_ylabel("mean squared error of velocity")
    highest = max(*flow.constant, *flow.loss, *(value for loss in flow.by_source.values() for value in loss))
    axis.set_ylim(0.0, 1.6 * highest)
    _times(axis)
    axis.legend(fontsize=8, loc="upper center", ncols=2)


def _history(axis: Any, one: StreamDiagnosis) -> None:
    assert one.flow is not None
    axis.set_title("what history adds")
    if one.flow.after is None or one.flow.alone is None:
        axis.text(0.5, 0.5, "no block has a history", ha="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    axis.plot(one.flow.t, one.flow.alone, color="tab:purple", marker="s", markersize=4, label="history hidden")
    axis.plot(one.flow.t, one.flow.after, color="tab:blue", marker="o", markersize=4, label="with history")
    axis.fill_between(one.flow.t, one.flow.after, one.flow.alone, color="tab:purple", alpha=0.12)
    axis.set_ylabel("mean squared error of velocity")
    axis.set_ylim(0.0, 1.15 * max(*one.flow.alone, *one.flow.after))
    _times(axis)


def _times(axis: Any) -> None:
    axis.set_xlabel("t  (0 clean, 1 noise)")
    axis.set_xlim(0.0, 1.02)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _split(axis: Any, one: StreamDiagnosis) -> None:
    assert one.denoising is not None
    split = one.denoising
    axis.set_title("units right when denoised from t")
    axis.axhline(split.clean, color="tab:green", linestyle="--", label=f"true latents: {split.clean:.1%}")
    axis.plot(split.t, split.denoised, color="tab:blue", marker="o", markersize=4, label="z_t denoised by the prior")
    axis.plot(split.t, split.undenoised, color="grey", marker="s", markersize=4, label="z_t decoded as it is")
    axis.axvspan(0.0, split.readable_t, color="tab:green", alpha=0.08, label="z_t shows its content")
    axis.set_ylim(0.0, 1.05)
    _times(axis)
    axis.legend(fontsize=8, loc="lower left")
    _percent(axis)


def _errors(axis: Any, one: StreamDiagnosis) -> None:
    """Wrong units on a log axis, where a small share can still be told from none."""
    assert one.denoising is not None
    split = one.denoising
    axis.set_title("wrong units, by whose fault")
    wrong = [max(FEWEST, 1.0 - share) for share in split.denoised]
    decoder = [min(max(FEWEST, 1.0 - split.clean), every) for every in wrong]
    axis.fill_between(split.t, decoder, wrong, color="tab:blue", alpha=0.2, label="the prior's")
    axis.fill_between(split.t, FEWEST, decoder, color="tab:orange", alpha=0.4, label="the decoder's")
    axis.plot(split.t, wrong, color="tab:blue", marker="o", markersize=4, label="z_t denoised by the prior")
    axis.axhline(max(FEWEST, 1.0 - split.clean), color="tab:orange", linestyle="--", label="true latents")
    axis.axvspan(split.readable_t, 1.02, color="grey", alpha=0.12, label="another content may be as right")
    axis.set_yscale("log")
    axis.set_ylim(FEWEST, 1.0)
    axis.set_yticks([1e-3, 1e-2, 1e-1, 1.0], ["0.1%", "1%", "10%", "100%"])
    _times(axis)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    axis.set_ylabel("units wrong (log)")


FIGURES: dict[str, tuple[tuple[Panel, str], ...]] = {
    "latents.png": ((_snr, "latents"), (_variance, "latents"), (_correlation, "latents")),
    "decoder.png": ((_length, "reconstruction"), (_block, "reconstruction"), (_robust, "robustness")),
    "flow.png": ((_loss, "flow"), (_history, "flow")),
    "denoising.png": ((_split, "denoising"), (_errors, "denoising")),
}
"""File names; each panel with the part of a stream's diagnosis that it shows."""
