"""Whether the items of a source are what a stream's codec takes them for, where the items themselves do not show it.

An array of samples is as good at one rate as at another, and a codec of the wrong one makes every sound too high or too
low without a word. So a dataset may say facts of its items, and a codec those that it stands on; what a fact means is
known to these two alone, and the core sees whether facts of one name are equal.
"""

from __future__ import annotations

from collections.abc import Mapping

from colatent.data.dataset import FactualDataset
from colatent.data.sources import Sources
from colatent.errors import UserError
from colatent.plugins.contract import Codec, ExpectingCodec


def check_facts(sources: Sources, codecs: Mapping[str, Codec]) -> None:
    """Refuse a source that says of a stream's items something else than the stream's codec expects. What only one of
    them says is no contradiction."""
    for name, (dataset, _) in sources.training.items():
        said = dataset.facts() if isinstance(dataset, FactualDataset) else {}
        for stream, codec in codecs.items():
            expected = codec.expects() if isinstance(codec, ExpectingCodec) else {}
            facts = said.get(sources.fields[stream], {}) if stream in sources.streams_of(name) else {}
            for fact in sorted(expected.keys() & facts.keys()):
                if facts[fact] != expected[fact]:
                    what = f"its items for stream {stream!r} have {fact} {facts[fact]}, the codec's is {expected[fact]}"
                    raise UserError(what, where=f"data.sources.{name}", do="give both the same")
