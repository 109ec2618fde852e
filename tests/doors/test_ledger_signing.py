"""The log's second key: made at the first start, also of an old house, and under the heads that are kept and shown."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from company import company
from onbehalf.app import building
from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_signing import OWN, HeadSigning, SignedTiles
from onbehalf.doors.ledger_tiles import LedgerTiles
from onbehalf.errors import ConfigInvalid, LedgerUnavailable
from onbehalf.explain.checkpoint import Checkpoint, Head
from onbehalf.explain.cosignature import ED25519, ML_DSA_44, HeadSigner, cosigned, cosigner
from onbehalf.model import UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.cosign import cosigned_at, witness_key
from onbehalf.verifier.note import checkpoint, log_key
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Verdict
from onbehalf.verifier.signers import log_keys
from verifier.bundle_house import KEY, ORIGIN, packed, recorded

HEAD = Checkpoint(origin=ORIGIN, size=7, root=hashlib.sha256(b"root").digest())


def signing(place: Path, now: int = 5000) -> tuple[LedgerHeads, HeadSigning]:
    keys = read_ledger_keys(place / "keys", origin=ORIGIN)
    assert keys.heads is not None
    heads = LedgerHeads(place / "log.db", place / "heads.db", verifier=keys.signer.verifier)
    return heads, HeadSigning(heads, keys.heads, clock=lambda: UnixTime(now))


def lines(place: Path) -> str:
    return (place / "keys" / "log.pub").read_text()


def test_what_we_sign_both_readers_verify_and_a_changed_head_neither(tmp_path: Path) -> None:
    keys = open_ledger_keys(tmp_path, origin=ORIGIN)
    assert keys.heads is not None
    note = keys.signer.sign(HEAD.text()) + keys.heads.line(HEAD, at=1234)
    assert cosigned(note, keys.heads.cosigner, HEAD) == (1234, note.splitlines(keepends=True)[-1])
    theirs = log_keys("\n".join(keys.vkeys))
    assert theirs.also is not None
    assert cosigned_at(checkpoint(note.encode(), theirs.key), theirs.also, ORIGIN) == 1234
    other = Checkpoint(origin=ORIGIN, size=8, root=HEAD.root)
    moved = keys.signer.sign(other.text()) + note.splitlines(keepends=True)[-1]
    with pytest.raises(ValueError, match="does not verify"):
        cosigned_at(checkpoint(moved.encode(), theirs.key), theirs.also, ORIGIN)


def test_an_old_house_gets_the_second_key_and_its_public_line_behind_the_first(tmp_path: Path) -> None:
    keys = open_ledger_keys(tmp_path, origin=ORIGIN)
    first, second = (tmp_path / "log.pub").read_text().splitlines()
    assert (first, second) == keys.vkeys
    (tmp_path / "log-ml-dsa.key").unlink()
    (tmp_path / "log.pub").write_text(first + "\n")  # a house from before there was one
    assert read_ledger_keys(tmp_path, origin=ORIGIN).vkeys == (first,)
    again = open_ledger_keys(tmp_path, origin=ORIGIN)
    assert (tmp_path / "log.pub").read_text() == "".join(f"{each}\n" for each in again.vkeys)
    assert again.vkeys[0] == first
    assert again.vkeys[1] != second
    (tmp_path / "log.pub").write_text("mine\n")  # what somebody else wrote there stands
    open_ledger_keys(tmp_path, origin=ORIGIN)
    assert (tmp_path / "log.pub").read_text() == "mine\n"


def test_a_key_of_another_type_or_name_or_a_line_too_many_is_refused(tmp_path: Path) -> None:
    one, two = open_ledger_keys(tmp_path / "a", origin=ORIGIN).vkeys
    strange = open_ledger_keys(tmp_path / "b", origin="other.example/log").vkeys[1]
    for text in ("", two, f"{two}\n{one}", f"{one}\n{one}", f"{one}\n{strange}", f"{one}\n{two}\n{two}"):
        with pytest.raises(Unusable):
            log_keys(text)
    assert log_keys(f"\n{one}\n\n{two}\n").also is not None
    with pytest.raises(ValueError, match="type"):
        cosigner(one, (ED25519, ML_DSA_44))
    with pytest.raises(ValueError, match="belong together"):
        cosigner(_other_id(two), (ML_DSA_44,))


def _other_id(vkey: str) -> str:
    name, id_, key = vkey.split("+", 2)
    return f"{name}+{'0' if id_[0] != '0' else '1'}{id_[1:]}+{key}"


def test_a_head_has_one_second_line_however_often_it_is_shown(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    heads, sign = signing(tmp_path)
    first = sign.newest()
    _, later = signing(tmp_path, now=9000)
    assert later.newest() == first
    head = checkpoint(first.encode(), log_key(lines(tmp_path).splitlines()[0]))
    assert cosigned_at(head, witness_key(lines(tmp_path).splitlines()[1]), ORIGIN) == 5000
    newest = heads.newest()
    assert [*heads.cosignatures(newest)] == [OWN]
    other = Head(checkpoint=newest.checkpoint, note=newest.note + "x")
    assert heads.cosignatures(other) == {}
    with pytest.raises(LedgerUnavailable, match="another head"):
        heads.keep(other, {"w": (1, "x")})
    heads.close()


def test_a_line_that_cannot_be_kept_is_a_signature_all_the_same(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    heads, sign = signing(tmp_path)
    with closing(sqlite3.connect(tmp_path / "heads.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert sign.newest().count("\n— ") == 2
    assert heads.last_kept() is None
    heads.close()


def test_what_is_shown_to_all_is_signed_once_a_second_at_most(tmp_path: Path) -> None:
    recorded(tmp_path, calls=1).close()
    heads, sign = signing(tmp_path)
    now = 0.0
    shown = SignedTiles(LedgerTiles(tmp_path / "log.db"), sign, clock=lambda: now)
    size, note = shown.checkpoint()
    assert note.count("\n— ") == 2
    recorded(tmp_path, calls=1).close()
    now = 0.9
    assert shown.checkpoint() == (size, note)
    now = 1.0
    assert shown.checkpoint()[0] > size
    heads.close()


def test_a_bundle_has_the_second_signature_and_whoever_gives_the_key_demands_it(tmp_path: Path) -> None:
    reader = recorded(tmp_path)
    heads, sign = signing(tmp_path)
    out = tmp_path / "a.zip"
    export(reader, out, Asked(), keys={}, policies={}, sign=sign.line)
    export(reader, tmp_path / "b.zip", Asked(), keys={}, policies={})
    again = tmp_path / "c.zip"
    export(reader, again, Asked(), keys={}, policies={}, sign=sign.line)
    assert out.read_bytes() == again.read_bytes()
    reader.close()
    heads.close()
    key = lines(tmp_path)
    report = check(out, key=key)
    assert (report.verdict, report.own_signature, report.findings) == (Verdict.verified, True, [])
    assert "signed by the log too" in report.as_text()
    assert check(out, key=key.splitlines()[0]).verdict == Verdict.verified
    assert check(out).own_signature is True  # by the key that the bundle brings, which pins nothing
    without = check(tmp_path / "b.zip", key=key)
    assert (without.verdict, without.own_signature) == (Verdict.unpinned, False)
    assert "NOT SIGNED BY THE LOG" in without.as_text()
    with zipfile.ZipFile(out) as bundle:
        files = {name: bundle.read(name) for name in bundle.namelist()}
    head, _, line = files["checkpoint"].decode().rstrip("\n").rpartition("\n")
    name, data = line.split(" ")[1:]
    spoiled = bytearray(base64.b64decode(data))
    spoiled[900] ^= 1
    files["checkpoint"] = f"{head}\n— {name} {base64.b64encode(spoiled).decode()}\n".encode()
    report = check(packed(tmp_path / "x.zip", files, honest=True), key=key)
    assert [each.code for each in report.findings] == ["cosignature_invalid"]


def test_the_newest_head_is_signed_when_the_house_ends(tmp_path: Path) -> None:
    async def walk(config: Path) -> None:
        async with building(config):
            pass

    with company(tmp_path / "it") as around:
        asyncio.run(walk(around.config))
        data = around.directory / "data"
        assert not (data / "ledger.db-wal").exists()  # the writer was the last to close it: one whole file is left
        keys = read_ledger_keys(data / "keys", origin=f"{around.gateway.removeprefix('http://')}/ledger")
        heads = LedgerHeads(data / "ledger.db", data / "heads.db", verifier=keys.signer.verifier)
        newest, kept = heads.newest(), heads.last_kept()
        assert kept is not None
        assert kept.size == newest.size
        assert keys.heads is not None
        assert cosigned(newest.note + heads.cosignatures(newest)[OWN], keys.heads.cosigner, newest.checkpoint)
        heads.close()


def test_an_auditors_copy_is_read_with_both_lines_of_the_public_key(tmp_path: Path) -> None:
    recorded(tmp_path).close()
    copy = LedgerReader(tmp_path / "log.db", vkey=lines(tmp_path))
    assert copy.verify().ok
    copy.close()


def test_a_seed_that_is_too_short_makes_no_key() -> None:
    with pytest.raises((ValueError, ConfigInvalid)):
        HeadSigner(ORIGIN, b"short")


def test_the_second_line_chooses_no_sample_since_it_could_be_made_anew_until_one_pleases(tmp_path: Path) -> None:
    reader = recorded(tmp_path, calls=20)
    opened: set[tuple[int, ...]] = set()
    for number in range(4):
        (tmp_path / "heads.db").unlink(missing_ok=True)
        heads, sign = signing(tmp_path, now=5000 + number)
        out = tmp_path / f"{number}.zip"
        asked = Asked(everything=True, sample=3, words={"open": "all", "sample": "3"})
        export(reader, out, asked, keys={"receipts": {"desk": {"keys": [KEY.public]}}}, policies={}, sign=sign.line)
        heads.close()
        report = check(out, key=lines(tmp_path))
        assert (report.findings, report.sampled) == ([], (3, 21))
        with zipfile.ZipFile(out) as bundle:
            rows = [json.loads(line) for line in bundle.read("opened.jsonl").splitlines()]
        opened.add(tuple(sorted({row["index"] for row in rows})))
    reader.close()
    assert len(opened) == 1
