"""A zip file is a bundle up to its bounds, and one step beyond them it is none."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from onbehalf.verifier.archive import Archive
from onbehalf.verifier.refused import Unusable

MIB = 1 << 20


def zipped(place: Path, files: dict[str, bytes], *, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(place, "w", how) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return place


def patched(place: Path, offset: int, data: bytes) -> Path:
    """Changed in its (only) central directory entry, so many bytes from the entry's begin."""
    made = bytearray(place.read_bytes())
    at = made.rindex(b"PK\1\2") + offset
    made[at : at + len(data)] = data
    place.write_bytes(made)
    return place


def opened(path: Path, *, max_bytes: int = MIB) -> Archive:
    return Archive(path, max_bytes=max_bytes)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every file that is opened."""
    found: list[Any] = []
    real = Path.open

    def opening(self: Path, *given: Any, **named: Any) -> Any:
        found.append(real(self, *given, **named))
        return found[-1]

    monkeypatch.setattr(Path, "open", opening)
    yield found
    for each in found:
        each.close()


def test_whatever_a_file_is_it_is_closed_again(tmp_path: Path, files: list[Any]) -> None:
    good = zipped(tmp_path / "good.zip", {"checkpoint": b"x"})
    stranger = zipped(tmp_path / "stranger.zip", {"evil": b"x"})
    none = tmp_path / "none.zip"
    none.write_bytes(os.urandom(200))
    directory = bytearray(good.read_bytes())
    directory[directory.rindex(b"PK\1\2")] = 0
    (tmp_path / "torn.zip").write_bytes(directory)
    files.clear()
    archive = opened(good)
    assert not files[0].closed
    archive.close()
    assert files[0].closed
    for path, why in ((stranger, "no bundle has"), (none, "no zip file"), (tmp_path / "torn.zip", "could be read")):
        with pytest.raises(Unusable, match=why):
            opened(path)
        assert files[-1].closed, path
    assert len(files) == 4


def test_a_file_is_read_up_to_its_limit_and_not_one_byte_beyond(tmp_path: Path) -> None:
    archive = opened(zipped(tmp_path / "x.zip", {"checkpoint": b"x" * 100}), max_bytes=150)
    with pytest.raises(Unusable, match="larger than it may be"):
        archive.whole("checkpoint", limit=99)
    archive.close()
    archive = opened(tmp_path / "x.zip", max_bytes=100)
    assert archive.whole("checkpoint", limit=100) == b"x" * 100
    assert archive.hashes == {"checkpoint": (sha256(b"x" * 100).hexdigest(), 100)}
    archive.close()
    archive = opened(tmp_path / "x.zip", max_bytes=99)
    with pytest.raises(Unusable, match="larger than it may be"):
        archive.whole("checkpoint", limit=100)
    archive.close()


def test_a_line_is_read_up_to_its_limit_and_not_one_byte_beyond(tmp_path: Path) -> None:
    data = b"a" * 10 + b"\n" + b"b" * 10 + b"\n" + b"\n" + b"c\n"
    path = zipped(tmp_path / "x.zip", {"leaves.jsonl": data, "opened.jsonl": b"", "checkpoint": b"c" * 10 + b"\ncut"})
    archive = opened(path)
    assert [*archive.lines("leaves.jsonl", limit=10)] == [b"a" * 10, b"b" * 10, b"", b"c"]
    assert [*archive.lines("opened.jsonl", limit=10)] == []
    with pytest.raises(Unusable, match="line of more than 9"):
        [*archive.lines("leaves.jsonl", limit=9)]
    with pytest.raises(Unusable, match="does not end in a newline"):
        [*archive.lines("checkpoint", limit=10)]
    archive.close()
    first = zipped(tmp_path / "y.zip", {"leaves.jsonl": b"a\n" + b"b" * 11 + b"\n"})
    for limit, holds in ((11, True), (10, False)):
        archive = opened(first)
        if holds:
            assert len([*archive.lines("leaves.jsonl", limit=limit)]) == 2
        else:
            with pytest.raises(Unusable, match="line of more"):
                [*archive.lines("leaves.jsonl", limit=limit)]
        archive.close()


def test_lines_that_lie_across_the_pieces_of_reading_come_whole(tmp_path: Path) -> None:
    lines = [b"%07d" % number * 1000 for number in range(150)]  # 7,000 bytes each, 1 MiB in all
    archive = opened(zipped(tmp_path / "x.zip", {"leaves.jsonl": b"\n".join(lines) + b"\n"}), max_bytes=4 * MIB)
    assert [*archive.lines("leaves.jsonl", limit=7000)] == lines
    whole = b"\n".join(lines) + b"\n"
    assert archive.whole("leaves.jsonl", limit=2 * MIB) == whole
    assert archive.hashes == {"leaves.jsonl": (sha256(whole).hexdigest(), len(whole))}
    archive.close()
    long = zipped(tmp_path / "y.zip", {"leaves.jsonl": b"x" * 600_000 + b"\n"})
    for limit, holds in ((600_000, True), (599_999, False)):
        archive = opened(long)
        if holds:
            assert [*archive.lines("leaves.jsonl", limit=limit)] == [b"x" * 600_000]
        else:
            with pytest.raises(Unusable, match="line of more"):
                [*archive.lines("leaves.jsonl", limit=limit)]
        archive.close()


def test_a_file_that_says_it_is_large_and_is_empty_has_no_bytes(tmp_path: Path) -> None:
    path = patched(zipped(tmp_path / "x.zip", {"checkpoint": b""}), 24, struct.pack("<I", 300_000))
    archive = opened(patched(path, 10, struct.pack("<H", zipfile.ZIP_DEFLATED)))
    try:
        read = [*archive.chunks("checkpoint", limit=MIB)]
    except Unusable:
        read = []
    assert read == []
    archive.close()


def policies(count: int) -> dict[str, bytes]:
    return {f"policies/{number:064x}.json": b"" for number in range(count)}


def test_a_bundle_has_at_most_1000_files(tmp_path: Path) -> None:
    archive = opened(zipped(tmp_path / "x.zip", policies(1000)))
    assert len(archive.names) == 1000
    archive.close()
    with pytest.raises(Unusable, match="1001 files"):
        opened(zipped(tmp_path / "y.zip", policies(1001)))


def test_a_directory_has_at_most_262144_bytes(tmp_path: Path) -> None:
    for size in (262_144, 262_145):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
            room = size
            for name in (*policies(4), "checkpoint"):
                info = zipfile.ZipInfo(name)
                info.comment = b"x" * min(room - 46 - len(name), 60_000)
                room -= 46 + len(name) + len(info.comment)
                made.writestr(info, b"")
        assert room == 0
        if size == 262_144:
            opened(tmp_path / "x.zip").close()
        else:
            with pytest.raises(Unusable, match="a directory of 262145 bytes"):
                opened(tmp_path / "x.zip")


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with a 64 bit directory, as a writer makes one that does not know how much will come."""
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
        path = zipped(tmp_path / "wide.zip", {"checkpoint": b"seen", "keys.json": b"{}"})
    assert path.read_bytes()[-98:-94] == b"PK\6\6"
    assert path.read_bytes()[-42:-38] == b"PK\6\7"
    return path


def test_a_bundle_with_a_64_bit_directory_is_read(wide: Path) -> None:
    archive = opened(wide)
    assert archive.whole("checkpoint", limit=4) == b"seen"
    archive.close()


@pytest.mark.parametrize(("offset", "data"), [(32, b"\xe9\3"), (40, b"\1\0\4"), (38, b"\1"), (46, b"\1")])
def test_a_64_bit_directory_beyond_the_bounds_is_refused(wide: Path, offset: int, data: bytes) -> None:
    made = bytearray(wide.read_bytes())
    at = len(made) - 98 + offset
    made[at : at + len(data)] = data
    wide.write_bytes(made)
    with pytest.raises(Unusable, match="which no bundle has"):
        opened(wide)


def test_a_64_bit_directory_that_is_not_where_it_belongs_is_malformed(wide: Path, tmp_path: Path) -> None:
    made = bytearray(wide.read_bytes())
    made[-98] = 0
    wide.write_bytes(made)
    with pytest.raises(Unusable, match="64 bit directory is malformed"):
        opened(wide)
    (tmp_path / "short.zip").write_bytes(b"PK\6\6" + bytes(made[-93:]))
    with pytest.raises(Unusable, match="64 bit directory is malformed"):
        opened(tmp_path / "short.zip")


def test_what_is_no_zip_file_is_said_by_what_is_wrong_with_it(tmp_path: Path) -> None:
    good = zipped(tmp_path / "good.zip", {"checkpoint": b"x"}).read_bytes()
    for data, why in (
        (b"x" * 300, "cut off"), (b"PK\5\6" + bytes(17), "cut off"), (good[:-1], "cut off"), (b"", "cut off"),
        (good[:-2] + b"\1\0", "something behind its end"), (b"PK\5\6" + bytes(18), "does not begin"),
        (b"xK" + good[2:], "does not begin"),
    ):  # fmt: skip
        (tmp_path / "x.zip").write_bytes(data)
        with pytest.raises(Unusable, match=why):
            opened(tmp_path / "x.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        made.writestr("checkpoint", b"a")
        made.writestr("checkpoint", b"b")
    with pytest.raises(Unusable, match="stands twice"):
        opened(tmp_path / "x.zip")


def test_what_is_encrypted_or_packed_in_another_way_is_refused(tmp_path: Path) -> None:
    for how in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(Unusable, match="encrypted or packed"):
            opened(zipped(tmp_path / "x.zip", {"checkpoint": b"x"}, how=how))
    with pytest.raises(Unusable, match="encrypted or packed"):
        opened(patched(zipped(tmp_path / "x.zip", {"checkpoint": b"x"}), 8, b"\1\0"))
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # bit 1 says how hard it was packed
        opened(patched(zipped(tmp_path / "x.zip", {"checkpoint": b"x"}, how=how), 8, b"\2\0")).close()


def test_a_file_whose_bytes_are_not_there_is_said_by_name_and_reason(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"checkpoint": b"x" * 50}, how=zipfile.ZIP_STORED)
    patched(path, 20, struct.pack("<II", 100_000, 100_000))
    archive = opened(path)
    with pytest.raises(Unusable, match=r"`checkpoint` cannot be read from the zip file: EOFError"):
        archive.whole("checkpoint", limit=MIB)
    archive.close()
    with pytest.raises(Unusable, match="cannot be opened"):
        opened(tmp_path / "nothing.zip")
    with pytest.raises(Unusable, match=r"`proof\.json` is missing"):
        opened(zipped(tmp_path / "y.zip", {"checkpoint": b""})).whole("proof.json", limit=1)
