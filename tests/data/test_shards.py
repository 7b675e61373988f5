"""Reading shards: which files are a field, what is held out, what is refused, and what becomes of damage."""

from __future__ import annotations

import io
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from colatent.data.dataset import Opener
from colatent.data.index import DAMAGED, INDEX, index_bytes, parse_index
from colatent.data.locate import expand, locate
from colatent.data.scan import scan
from colatent.data.shards import Shards, ShardsConfig
from colatent.errors import UserError
from colatent_text.codec import TextCodec
from colatent_text.config import TextConfig
from data.shards_made import TEXT, archive, opened, packed, text_of, texts

MANY = 1000.0


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return packed(tmp_path / "shards", 40)


def place(shards: Path, number: int) -> tuple[Path, int, int]:
    """Shard, first byte and size of sample `number`."""
    for one in parse_index((shards / INDEX).read_bytes(), where=""):
        if f"{number:04d}" in one.keys:
            start, size, _ = one.members[one.keys.index(f"{number:04d}")]["txt"]
            return shards / one.name, start, size
    raise AssertionError(number)


def overwrite(path: Path, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def test_both_splits_together_are_the_data_once(shards: Path) -> None:
    train, held = texts(opened(shards)), texts(opened(shards, split="heldout"))
    assert sorted(train + held) == sorted(text_of(number) for number in range(40))
    assert 0 < len(held) < len(train)


def test_a_sample_stays_on_its_side_when_others_come(shards: Path, tmp_path: Path) -> None:
    held = texts(opened(shards, split="heldout", heldout=0.3))
    more = texts(opened(packed(tmp_path / "more", 60), split="heldout", heldout=0.3))
    assert set(held) == {text for text in more if int(text.split()[1]) < 40}


def test_two_samples_are_one_to_train_on_and_one_held_out(tmp_path: Path) -> None:
    shards = packed(tmp_path / "two", 2)
    for share in (0.001, 0.5):
        assert [len(opened(shards, split=split, heldout=share)) for split in ("train", "heldout")] == [1, 1]
    with pytest.raises(UserError, match="holds 1 samples; give two at least"):
        opened(packed(tmp_path / "one", 1))


def test_it_can_be_sent_to_another_process(shards: Path) -> None:
    dataset = opened(shards)
    assert texts(pickle.loads(pickle.dumps(dataset))) == texts(dataset)


@pytest.mark.parametrize(
    ("names", "given", "field", "text"),
    [
        (("a.txt", "a.md"), {}, "text", "a.txt"),
        (("a.png", "a.md"), {}, "text", "a.md"),
        (("a.left.txt", "a.txt"), {}, "left", "a.left.txt"),
        (("a.left.txt", "a.txt"), {"left": ("txt",)}, "left", "a.txt"),
        (("a.left.txt", "a.txt"), {"text": "left.txt"}, "text", "a.left.txt"),
        (("a.title", "a.txt"), {}, "title", "a.title"),
    ],
)
def test_a_field_is_found_among_the_files(names, given, field: str, text: str, tmp_path: Path) -> None:
    members = [(name.replace("a", key, 1), name.encode()) for key in ("x", "y") for name in names]
    with pytest.warns(UserWarning, match=r"has no shards\.json: 2 samples were"):
        dataset = opened(archive(tmp_path / "some.tar", members), openers={field: TEXT}, fields=given)
    assert dataset.fields() == [field]
    assert dataset.sample(0, np.random.default_rng(0)) == {field: text}


def test_a_field_that_no_file_holds_is_told(shards: Path) -> None:
    with pytest.raises(UserError, match=r"fields\.text: no file of the shards ends in md; they end in txt"):
        opened(shards, fields={"text": "md"})
    dataset = opened(shards, openers={})
    dataset.name_fields({"image": ("png", "jpg")})
    assert dataset.fields() == []


def test_two_ways_to_open_a_field_are_refused(shards: Path) -> None:
    dataset = opened(shards)
    dataset.open_with("text", Opener(codec=TextCodec, config=TextConfig()))
    with pytest.raises(UserError, match="field 'text' is read by two streams whose codecs are set up differently"):
        dataset.open_with("text", Opener(codec=TextCodec, config=TextConfig(channels=3)))


# What is refused.


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("a.txt")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_plain_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "some.tar", [("b.txt", b"b"), link(kind)])
    with pytest.raises(UserError, match=r"some\.tar: member 'a\.txt' is no plain file"):
        opened(path)


@pytest.mark.parametrize("name", ["a.pkl", "a.pyd", "a.x.PTH", "dir/a.pt", "a.pickle"])
def test_pickles_are_refused_by_name_and_none_runs(name: str, tmp_path: Path, in_tmp: Path) -> None:
    bomb = b"cos\nsystem\n(S'touch ran'\ntR."
    path = archive(tmp_path / "some.tar", [("b.txt", b"b"), ("c.txt", b"c"), (name, bomb)])
    with pytest.raises(UserError, match="is a pickle by its name, and reading one can run code"):
        opened(path)
    with pytest.raises(ValidationError, match="text names pickles"):
        ShardsConfig(path="x", fields={"text": [name.partition(".")[2]]})
    assert not Path("ran").exists()


def test_an_index_that_names_pickles_is_refused(tmp_path: Path, in_tmp: Path) -> None:
    path = archive(tmp_path / "some.tar", [("a.txt", b"a"), ("b.txt", b"cos\nsystem\n(S'touch ran'\ntR.")])
    found = scan(path)
    renamed = found.model_copy(update={"members": tuple({"pkl": files["txt"]} for files in found.members)})
    (tmp_path / INDEX).write_bytes(index_bytes([renamed]))
    with pytest.raises(UserError, match=rf"{INDEX}: '\*\.pkl' is a pickle by its name"):
        opened(tmp_path)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["../a.tar", "/etc/a.tar", "a/b.tar", "a.txt", ".a.tar", "a\0.tar"])
def test_an_index_names_archives_beside_it_only(name: str, tmp_path: Path) -> None:
    found = scan(archive(tmp_path / "some.tar", [("a.txt", b"a")]))
    (tmp_path / INDEX).write_bytes(index_bytes([found.model_copy(update={"name": name})]))
    with pytest.raises(UserError, match=rf"{INDEX}: does not say where its samples are"):
        opened(tmp_path)


def test_an_array_with_objects_is_damaged_and_not_unpickled(tmp_path: Path, in_tmp: Path) -> None:
    from plugins_for_tests.grid import GridConfig
    from plugins_for_tests.grid_codec import GridCodec

    class Bomb:
        def __reduce__(self):
            return (Path("ran").touch, ())

    file = io.BytesIO()
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    path = archive(tmp_path / "some.tar", [("a.npy", file.getvalue()), ("b.npy", file.getvalue())])
    with pytest.warns(UserWarning, match="has no shards"):
        dataset = opened(path, openers={"grid": Opener(codec=GridCodec, config=GridConfig())})
    with pytest.raises(UserError, match=r"sample \w: npy is no picture that can be read"):
        dataset.sample(0, np.random.default_rng(0))
    assert not Path("ran").exists()


def test_names_never_become_paths(tmp_path: Path, in_tmp: Path) -> None:
    members = [("../up.txt", b"one"), ("/abs/olute.txt", b"two"), ("a\nb/c.txt", b"three"), ("no suffix", b"")]
    with pytest.warns(UserWarning, match="3 samples"):
        dataset = opened(archive(tmp_path / "some.tar", members))
    assert sorted(texts(dataset) + texts(opened(tmp_path / "some.tar", split="heldout"))) == ["one", "three", "two"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["some.tar"]


def test_names_of_strangers_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    members = [("\x1b[2Ja.md", b"one"), ("b.txt", b"two"), ("c.txt", b"two"), ("d." + "İ" * 100, b"")]
    with pytest.warns(UserWarning, match="3 samples"):
        dataset = opened(archive(tmp_path / "some.tar", members), fields={"text": "txt"}, heldout=0.01)
    with pytest.raises(UserError) as caught:
        texts(dataset), texts(opened(tmp_path / "some.tar", split="heldout", fields={"text": "txt"}))
    assert r"sample '\x1b[2Ja': has no text (txt)" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "path", ["pipe:cat a.tar", "http://x.org/a.tar", "file:///a.tar", "s3://b/a.tar", "https:a", "gs:x"]
)
def test_only_paths_and_https_are_taken(path: str, in_tmp: Path) -> None:
    with pytest.raises(UserError, match="is not a way by which shards come; give a path on this disk or an address"):
        locate(path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("none", "none: no such file or folder"),
        ("empty", r"empty: holds neither shards\.json nor a \.tar file"),
        ("a.txt", r"a\.txt: is no tar archive"),
        ("empty.tar", r"empty\.tar: is no tar archive"),
        ("{3..1}.tar", r"\{3\.\.1\} does not count up, or too far"),
        ("{0..999999999}.tar", r"does not count up, or too far"),
    ],
)
def test_what_holds_no_shards_is_one_line(path: str, line: str, in_tmp: Path) -> None:
    Path("empty").mkdir()
    Path("a.txt").write_text("no archive, but long enough to have a block" * 100)
    Path("empty.tar").touch()
    with pytest.raises(UserError, match=line):
        locate(path)


def test_a_pattern_stands_for_names() -> None:
    assert expand("a/{08..10}.tar") == ["a/08.tar", "a/09.tar", "a/10.tar"]
    assert expand("{0..1}-{5..6}") == ["0-5", "0-6", "1-5", "1-6"]


def test_an_index_that_was_changed_is_refused(shards: Path) -> None:
    index = shards / INDEX
    data = index.read_bytes()
    index.write_bytes(data.replace(b'"0007"', b'"0008"'))
    with pytest.raises(UserError, match=rf"{INDEX}: does not match its own hash; {DAMAGED}"):
        opened(shards)
    index.write_bytes(data.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(UserError, match="written by format 2, this colatent reads 1"):
        opened(shards)


# Damage.


def test_a_flipped_bit_is_named_and_the_next_sample_takes_its_place(shards: Path) -> None:
    before = opened(shards, damaged=0.05)
    numbers = [int(text.split()[1]) for text in texts(before)]
    path, start, _ = place(shards, numbers[5])
    overwrite(path, start + 3, b"X")
    dataset = opened(shards, damaged=0.05)
    key = rf"{path.name}, sample {numbers[5]:04d}: txt does not match its checksum"
    with pytest.warns(UserWarning, match=f"damaged, and passed over: {key}") as told:
        first = texts(dataset)
    assert texts(dataset) == first
    assert len(told) == 1
    assert first == [text_of(number) for number in [*numbers[:5], numbers[6], *numbers[6:]]]


def test_more_damage_than_the_budget_stops_with_the_last_errors(shards: Path) -> None:
    dataset = opened(shards, damaged=0.05)
    for number in range(10):
        path, start, _ = place(shards, number)
        overwrite(path, start, b"\xff\xff")
    line = r"3 of 40 samples are damaged, more than damaged=0\.05 allows: .*0000.*; .*0001.*; .*; mend the data, or"
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(UserError, match=line):
        texts(dataset)
    with pytest.raises(UserError, match=r"1 of 40 samples are damaged, more than damaged=0\.001 allows"):
        texts(opened(shards))


def test_the_last_sample_is_replaced_by_the_first(shards: Path) -> None:
    order = texts(opened(shards))
    path, start, _ = place(shards, int(order[-1].split()[1]))
    overwrite(path, start, b"\0")
    with pytest.warns(UserWarning, match="damaged"):
        assert texts(opened(shards, damaged=0.1))[-1] == order[0]


def test_a_shard_that_is_cut_short_or_missing_is_counted_before_the_first_step(shards: Path) -> None:
    path, start, size = place(shards, 39)
    with open(path, "r+b") as file:
        file.truncate(start + size - 1)
    with pytest.raises(UserError, match=rf"1 of 40 samples .*: {path.name}, sample 0039: the shard has \d+ bytes of"):
        opened(shards)
    path.unlink()
    lost = sum(number >= int(parse_index((shards / INDEX).read_bytes(), where="")[-1].keys[0]) for number in range(40))
    line = rf"{lost} of 40 samples are damaged.*samples 00\d\d to 0039: the shard has 0 bytes of \d+"
    with pytest.raises(UserError, match=line):
        opened(shards, damaged=0.01)
    with pytest.warns(UserWarning, match="the shard has 0 bytes"):
        assert len(texts(opened(shards, damaged=0.5))) == len(opened(packed(shards.parent / "whole", 40)))


def test_a_missing_file_of_a_sample_is_damage(tmp_path: Path) -> None:
    members = [(f"{number}.txt" if number != 4 else "4.md", b"x") for number in range(20)]
    with pytest.warns(UserWarning, match="has no shards"):
        dataset = opened(archive(tmp_path / "some.tar", members), fields={"text": "txt"})
    with pytest.raises(UserError, match=r"some\.tar, sample 4: has no text \(txt\)"):
        texts(dataset)


def test_an_archive_that_goes_on_after_a_damaged_header_is_not_silently_shorter(tmp_path: Path) -> None:
    path = archive(tmp_path / "some.tar", [(f"{number}.txt", b"x") for number in range(20)])
    overwrite(path, 10 * 1024, b"\xff" * 20)
    told = r"10 samples were found .*; a header is damaged after byte 10240 of 30720"
    lost = r"some\.tar: a header is damaged .*, about 20 samples are lost"
    with pytest.warns(UserWarning, match=told), pytest.raises(UserError, match=lost):
        opened(path)
    with pytest.warns(UserWarning, match="damaged, and passed over"):
        assert len(opened(path, damaged=0.9)) + len(opened(path, split="heldout", damaged=0.9)) == 10


def test_a_negative_size_is_no_endless_loop(tmp_path: Path) -> None:
    path = archive(tmp_path / "some.tar", [("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c")])
    header = bytearray(path.read_bytes()[1024:1536])
    header[124:136] = b"\xff" * 4 + (-1024 & (2**64 - 1)).to_bytes(8)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    overwrite(path, 1024, bytes(header))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(UserError, match="holds 1 samples"):
            opened(path)
    assert "'b.txt' has a negative size after byte 1024 of 10240" in str(told[0].message)


def test_samples_that_are_all_damaged_are_an_error_even_where_much_is_allowed(shards: Path) -> None:
    dataset = opened(shards, damaged=0.99)
    for number in range(40):
        path, start, _ = place(shards, number)
        overwrite(path, start, b"\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="every sample is damaged"):
            dataset.sample(0, np.random.default_rng(0))


def test_a_dataset_that_is_opened_twice_looks_through_an_archive_once(tmp_path: Path) -> None:
    path = archive(tmp_path / "some.tar", [(f"{number}.txt", b"x") for number in range(4)])
    with pytest.warns(UserWarning, match="4 samples were found by looking through it, without checksums"):
        Shards(ShardsConfig(path=str(path)), split="train")
    Shards(ShardsConfig(path=str(path)), split="heldout")  # and warns no more
