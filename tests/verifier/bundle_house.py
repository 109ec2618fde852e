"""A small bundle with everything in it, made by the real exporter, and ways to spoil it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onbehalf.backend.receipt import make_receipt, receipt_key
from onbehalf.backend.verify import VerifiedCall
from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.model import AuditEntry, Json, Receipt, UnixTime, canonical, digest

ORIGIN = "gateway.example/log"
POLICY = canonical({"core": "", "policies": [["a.cedar", "permit (principal, action, resource);"]], "schemas": []})
KEY = receipt_key(b"r" * 32)
ARGUMENTS: dict[str, Json] = {
    "word": "é\u2028\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "n": 1e30,
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of a bundle, and what an auditor knows beside it."""

    path: Path
    vkey: str
    files: dict[str, bytes]


def intent(number: int) -> AuditEntry:
    facts: dict[str, Json] = {
        "tool": {"name": "desk", "remote": "desk_write"}, "arguments": ARGUMENTS,
        "arguments_digest": digest(canonical(ARGUMENTS)), "decision": {"effect": "allow", "policy": digest(POLICY)},
    }  # fmt: skip
    return AuditEntry(kind="intent", call=f"call_{number:032x}", at=UnixTime(1000 + number), facts=facts)


def outcome(number: int, receipt: Receipt) -> AuditEntry:
    call: Any = _Call(f"call_{number:032x}", f"call_{number:032x}.{receipt.index}")
    signed = make_receipt(
        call,
        key=KEY,
        backend="desk",
        gateway="https://gateway.example",
        answer=b"{}",
        status=200,
        now=UnixTime(1000 + number),
    )
    facts: dict[str, Json] = {
        "intent": {"index": receipt.index, "leaf": receipt.leaf}, "outcome": {"status": "done"},
        "backend_receipt": signed,
    }  # fmt: skip
    return AuditEntry(kind="outcome", call=f"call_{number:032x}", at=UnixTime(1001 + number), facts=facts)


@dataclass(frozen=True, slots=True)
class _Call:
    """What a receipt takes of a VerifiedCall."""

    call: str
    token_id: str
    tool: str = "desk_write"
    arguments: str = digest(canonical(ARGUMENTS))


assert {"call", "token_id", "tool", "arguments"} <= set(VerifiedCall.__slots__)  # type: ignore[attr-defined]  # of a slotted dataclass


def recorded(place: Path, calls: int = 6, then: Callable[[SqliteLedger], Any] | None = None) -> LedgerReader:
    """A ledger of some calls: a `start`, then intent and outcome of each, and a denial."""
    keys = open_ledger_keys(place / "keys", origin=ORIGIN)
    ledger = SqliteLedger.open(place / "log.db", keys=keys, origin=ORIGIN, now=lambda: UnixTime(5000))

    async def fill() -> None:
        await ledger.append(AuditEntry(kind="start", call="", at=UnixTime(999), facts={"version": "1"}))
        for number in range(calls):
            await ledger.append(outcome(number, await ledger.append(intent(number))))
        await ledger.append(AuditEntry(kind="denial", call="call_" + "e" * 32, at=UnixTime(2000), facts={"tool": {}}))
        if then is not None:
            await then(ledger)

    asyncio.run(fill())
    ledger.close()
    return LedgerReader(place / "log.db", keys=read_ledger_keys(place / "keys", origin=ORIGIN))


def bundled(place: Path, **asked: Any) -> Bundle:
    """A bundle of leaves 1 to 12 of 14, all opened, with an earlier head."""
    reader = recorded(place)
    return bundled_from(reader, place / "bundle.zip", **asked)


def bundled_from(reader: LedgerReader, out: Path, **asked: Any) -> Bundle:
    asked = {"start": ("index", 1), "end": ("index", 12), "everything": True, **asked}
    keys: dict[str, Json] = {"receipts": {"desk": {"keys": [KEY.public]}}}
    export(reader, out, Asked(**asked), keys=keys, policies={digest(POLICY): POLICY})
    vkey = reader.verifier.vkey
    reader.close()
    with zipfile.ZipFile(out) as packed:
        return Bundle(path=out, vkey=vkey, files={name: packed.read(name) for name in packed.namelist()})


def packed(place: Path, files: dict[str, bytes], *, honest: bool = False) -> Path:
    """A bundle of these files; with `honest` the manifest's hashes are made to fit, as a forger would."""
    if honest:
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items() if name != "manifest.json"
        }  # fmt: skip
        files = {**files, "manifest.json": json.dumps(manifest).encode()}
    with zipfile.ZipFile(place, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    return place
