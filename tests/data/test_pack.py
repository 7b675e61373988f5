"""Packing: what becomes a sample, the same bytes every time, and nothing left of what was cut off."""

from __future__ import annotations

import errno
import json
import os
import re
import tarfile
from pathlib import Path

import pytest

from colatent.cli.main import main
from colatent.data.index import parse_index
from colatent.data.pack import pack
from colatent.data.raw import Raw, open_raw
from colatent.errors import UserError
from data.shards_made import packed


def names(shards: Path) -> list[str]:
    """Names of all members."""
    return list(content(shards))


def content(shards: Path) -> dict[str, bytes]:
    """All members, by other means than ours."""
    found = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {info.name: tar.extractfile(info).read() for info in tar}
    return found


def pack_lines(tmp_path: Path, text: str | bytes, **rest: str) -> dict[str, bytes]:
    source = tmp_path / "some.txt"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    return content(pack(open_raw(source, **rest), tmp_path / "out").path)


def test_lines_of_a_text_are_samples(tmp_path: Path) -> None:
    found = pack_lines(tmp_path, "\ufeffone\r\n\n  \ntwo\nthree")
    assert found == {"000000000.txt": b"one", "000000001.txt": b"two", "000000002.txt": b"three"}


def test_paragraphs_end_at_empty_lines(tmp_path: Path) -> None:
    found = pack_lines(tmp_path, "a\nb\n\n\n c\n\n", cut="paragraphs")
    assert found == {"000000000.txt": b"a\nb", "000000001.txt": b" c"}


def test_an_object_of_json_lines_is_a_sample(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.PNG").write_bytes(b"picture")
    source = tmp_path / "some.jsonl"
    lines = [{"image": "cats/1.PNG", "caption": "a cät", "size": [1, 2]}, {"image": "cats/1.PNG", "caption": None}]
    source.write_text("\n".join(map(json.dumps, lines)))
    assert content(pack(open_raw(source), tmp_path / "out").path) == {
        "000000000.caption.txt": "a cät".encode(),
        "000000000.image.png": b"picture",
        "000000000.size.json": b"[1, 2]",
        "000000001.image.png": b"picture",
    }


def test_fields_of_any_name_come_through(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text('{"_id": 7, "Text": "a", "x-y": true}\n')
    found = content(pack(open_raw(tmp_path / "some.jsonl"), tmp_path / "out").path)
    members = {"000000000._id.json": b"7", "000000000.text.txt": b"a", "000000000.x-y.json": b"true"}
    assert found == members


def test_files_of_one_name_are_a_sample(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for name in ("b/1.png", "b/1.txt", "a.x.png", "a.x.txt", ".hidden/2.png", "b/.3.png", "b/README", "b/4.a b"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode())
    assert names(pack(open_raw(source), tmp_path / "out").path) == ["a.x.png", "a.x.txt", "b/1.png", "b/1.txt"]
    (source / "notes.md").write_text("not a sample")
    with pytest.raises(UserError, match=r"notes\.md: stands alone, where other samples have 2 files"):
        open_raw(source)
    assert open_raw(source, suffixes=(".png", " TXT")).total == 2
    with pytest.raises(UserError, match=r"photos: no file ends in \.jpg; take it out of --suffixes"):
        open_raw(source, suffixes=("png", "txt", "jpg"))


def test_a_sample_that_lacks_one_of_its_files_is_refused(tmp_path: Path) -> None:
    for name in ("1.png", "1.txt", "1.json", "2.png", "2.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"2\.png: is one of 2, where other samples have 3 files"):
        open_raw(tmp_path)


def test_shards_are_bounded_and_the_index_tells_what_is_in_them(tmp_path: Path) -> None:
    shards = packed(tmp_path / "out", 40)
    found = parse_index((shards / "shards.json").read_bytes(), where="")
    assert [one.name for one in found] == [f"{number:06d}.tar" for number in range(4)]
    assert sum(len(one.keys) for one in found) == 40
    for one in found:
        data = (shards / one.name).read_bytes()
        assert one.size == len(data) <= 12_000 + 10_240
        with tarfile.open(shards / one.name) as tar:
            assert [(info.offset_data, info.size) for info in tar] == [tuple(m["txt"][:2]) for m in one.members]
            assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in tar} == {(0, 0, 0, "", "")}


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = packed(tmp_path / "one"), packed(tmp_path / "other")
    files = sorted(path.name for path in one.iterdir())
    assert files == sorted(path.name for path in other.iterdir())
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


def test_an_interrupted_pack_leaves_nothing(tmp_path: Path) -> None:
    def samples():
        yield "a", {"txt": b"a"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(Raw(samples=samples()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"out: cannot be written: No space left on device; make room"):
        packed(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_read_only_is_told_by_the_folder_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    out = tmp_path / "out"
    line = f"{out}: cannot be written: Read-only file system; make room, or choose another OUT"
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        pack(Raw(samples=iter([("a", {"txt": b"a"})])), out)


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("a.txt", b"one\n\xff", r"a\.txt, line 2: not UTF-8 \(byte 0xff\)"),
        ("a.txt", b"\n \n", r"there is nothing to pack"),
        ("a.jsonl", b"{", r"line 1: is not JSON"),
        ("a.jsonl", b"[" * 100_000, r"line 1: is not JSON"),
        ("a.jsonl", b"[1]", r"line 1: is no JSON object"),
        ("a.jsonl", b'{"a.b": 1}', r"line 1: field 'a\.b' is not of up to 50 letters"),
        ("a.jsonl", b'{"a": 1, "A": 2}', r"line 1: two fields differ by capital letters only"),
        ("a.jsonl", b'{"a": null}', r"line 1: holds nothing but null"),
        ("a.jsonl", b'{"a": "a.jsonl"}\n{"a": "b.jsonl"}', r"line 2: a names no file, as it did before: 'b\.jsonl'"),
        ("a.jsonl", b'{"a": "b"}\n{"a": "a.jsonl"}', r"line 2: a names a file, and did not before"),
        ("a.jsonl", b'{"a": "model.pkl"}', r"line 1: 'model\.pkl' is a pickle by its name"),
    ],
)
def test_what_cannot_be_packed_is_one_line(name: str, data: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=line):
        pack(open_raw(tmp_path / name), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["../secret.txt", "/etc/passwd", "link.txt", "a\0b", "x" * 5000, "."])
def test_a_value_names_only_what_lies_beside_it(value: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "a.jsonl").write_text(json.dumps({"a": value}))
    found = content(pack(open_raw(inside / "a.jsonl"), tmp_path / "out").path)
    assert found == {"000000000.a.txt": value.encode()}


def test_a_folder_with_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "x.PT").write_bytes(b"x")
    with pytest.raises(UserError, match=r"'x\.PT' is a pickle by its name, and reading one can run code"):
        open_raw(tmp_path / "some")


def test_a_file_that_goes_away_is_told_by_its_name(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    raw = open_raw(tmp_path)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(
        UserError, match=r"b\.txt: cannot be read \(No such file or directory\); check it and its rights"
    ):
        pack(raw, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_long_and_foreign_names_come_through(tmp_path: Path) -> None:
    long = "/".join(["x" * 150] * 3)
    for name in (f"{long}/a.txt", "ключ.txt"):
        (tmp_path / "some" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "some" / name).write_text(name)
    packed = pack(open_raw(tmp_path / "some"), tmp_path / "out")
    assert packed.shards[0].keys == (f"{long}/a", "ключ")
    assert names(packed.path) == [f"{long}/a.txt", "ключ.txt"]


def test_a_key_ends_at_the_first_dot_of_a_name(tmp_path: Path) -> None:
    for name in ("a.b.png", "a_b.txt", "v1.0/a.png", "v1_0/a.png"):
        (tmp_path / "some" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "some" / name).write_bytes(b"x")
    found = pack(open_raw(tmp_path / "some"), tmp_path / "out")
    assert found.shards[0].keys == ("a", "a_b", "v1.0/a", "v1_0/a")
    assert [list(files) for files in found.shards[0].members] == [["b.png"], ["txt"], ["png"], ["png"]]
    assert open_raw(tmp_path / "some", suffixes=("b.png",)).total == 1
    assert open_raw(tmp_path / "some", suffixes=("png",)).total == 3


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("a.x.PNG", "a.x.png"), r"a\.x\.png: is 'x\.png' of sample 'a', as .*a\.x\.PNG is; rename one$"),
        (("Mr. Smith.png",), r"Mr\. Smith\.png: what follows the first dot of its name has white space, .*; rename it"),
        (("a..png",), r"a\.\.png: what follows the first dot of its name has .*an empty part"),
        ((f"a.{'b.' * 50}png",), r"png: what follows the first dot of its name has .*over 100 characters; rename it"),
    ],
)
def test_names_that_make_no_sample_are_refused(names: tuple[str, ...], line: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=line):
        open_raw(tmp_path)


def test_the_command_says_what_it_wrote(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.txt").write_text("one\ntwo\n")
    assert main(["data", "pack", "a.txt", "out", "--json"]) == 0
    size = Path("out/000000.tar").stat().st_size
    assert json.loads(capsys.readouterr().out) == {
        "path": "out",
        "samples": 2,
        "bytes": size,
        "suffixes": ["txt"],
        "shards": [{"name": "000000.tar", "samples": 2, "size": size}],
    }
    assert main(["data", "pack", "a.txt", "out"]) == 2
    assert capsys.readouterr().err == "colatent: out: exists already; choose another OUT, or remove it\n"
    assert main(["data", "pack", "a.txt", "more", "--suffixes", "txt"]) == 2
    assert "a.txt: is no folder, whose files --suffixes chooses; leave" in capsys.readouterr().err
    assert main(["data", "pack", ".", "more", "--cut", "paragraphs"]) == 2
    assert "is no text that could be cut; leave --cut out" in capsys.readouterr().err
    assert main(["data", "pack", "b.txt", "more"]) == 2
    assert "b.txt: no such file or folder; give a text file" in capsys.readouterr().err
