"""Slips in streams, files, reports and likelihoods."""

from __future__ import annotations

import numpy as np

from colatent.plugins.contract import Latents
from colatent.plugins.items import Shown
from plugins_for_tests.faults import breaks, changing
from plugins_for_tests.wave import WaveOptions
from plugins_for_tests.wave_codec import WaveCodec, WaveStream

# Streams.


class Streamed(WaveCodec):
    """Opens a stream of its own class."""

    stream = WaveStream

    def open_stream(self, given, *, max_units, options, names):
        return self.stream(self, len(given), options=WaveOptions(**options))


@breaks("streaming", "do not add up to items()")
class RepeatsPieces(Streamed):
    class stream(WaveStream):  # noqa: N801
        def news(self, *, final=False):
            self.told = 0
            return super().news(final=final)


@breaks("streaming", "block by block and whole")
class DecodesOtherwise(Streamed):
    class stream(WaveStream):  # noqa: N801
        def push(self, blocks):
            super().push([Latents(**{**vars(block), "z_LC": 2 * block.z_LC}) for block in blocks])


@breaks("streaming", "in a batch and alone, or after a preview")
class RemembersPreviews(Streamed):
    class stream(WaveStream):  # noqa: N801
        def preview(self, blocks):
            self.gain *= 2
            return super().preview(blocks)


@breaks("streaming", "not JSON serializable")
class DetailsOfTensors(Streamed):
    class stream(WaveStream):  # noqa: N801
        def details(self):
            return [{"curve": curve} for curve in self.curves]


@breaks("streaming", "not one bool per item")
class OneFlag(Streamed):
    class stream(WaveStream):  # noqa: N801
        def finished(self):
            return [False]


# Files, reports, likelihoods.


@breaks("files", "another one after writing and reading")
class WritesRounded(WaveCodec):
    def write_item(self, item, path):
        return super().write_item(item.round(1), path)


@breaks("files", "another one the second time")
class ReadsLessAndLess(WaveCodec):
    def read_item(self, path):
        return super().read_item(path)[:-1]


@breaks("files", "not the path with a suffix appended")
class WritesElsewhere(WaveCodec):
    def write_item(self, item, path):
        return super().write_item(item, path.with_name("curve"))


@breaks("files", "FileNotFoundError")
class FailsLoudly(WaveCodec):
    def read_item(self, path):
        path.stat()
        return super().read_item(path)


@breaks("files", "takes a broken file for an item")
class ReadsAnything(WaveCodec):
    def read_item(self, path):
        if path.is_file() and b"broken" in path.read_bytes():
            return np.zeros(1, dtype=np.float32)
        return super().read_item(path)


@breaks("stored", "not of small letters and without a dot")
class DotsItsSuffix(WaveCodec):
    @classmethod
    def suffixes(cls):
        return (".json",)


@breaks("stored", "which suffixes does not name")
class NamesAnotherSuffix(WaveCodec):
    @classmethod
    def suffixes(cls):
        return ("txt",)


@breaks("stored", "another item than the file")
class OpensHalf(WaveCodec):
    @classmethod
    def open_item(cls, config, data, *, name):
        return super().open_item(config, data, name=name)[:2]

    def read_item(self, path):
        return WaveCodec.open_item(self.config, path.read_bytes(), name=str(path))


@breaks("stored", "takes broken bytes for an item")
class OpensAnything(WaveCodec):
    @classmethod
    def open_item(cls, config, data, *, name):
        return np.zeros(1, dtype=np.float32) if b"broken" in data else super().open_item(config, data, name=name)


@breaks("show", "no media type")
class ShowsAWord(WaveCodec):
    def show(self, item):
        return Shown(media="text", data=b"curve")


@breaks("show", "do not begin as image/png does")
class ShowsNoPicture(WaveCodec):
    def show(self, item):
        return Shown(media="image/png", data=b"curve")


@breaks("likelihood", "has shape (), not (1,)")
class LikelihoodOfAll(WaveCodec):
    def log_likelihood(self, items, latents):
        return [logp_K.sum() for logp_K in super().log_likelihood(items, latents)]


@breaks("likelihood", "no log-variance")
class Points(changing(logvar_LC=lambda logvar: None)):
    pass
