"""A backend's receipt is of one sending of one call and its answer, and nothing else is taken for it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from act.granted import ARGUMENTS, AUDIENCE, ISSUER, NOW
from backend.forging import KEY, KID, encoded, forged
from onbehalf.backend import MemoryReplay, verify_call
from onbehalf.backend.keys import read_keys
from onbehalf.backend.receipt import make_receipt, receipt_key
from onbehalf.errors import ConfigInvalid, ReceiptRefused
from onbehalf.explain.backend_receipt import BackendReceipt, Expected, read_receipt
from onbehalf.model import UnixTime, digest

CALL = verify_call(
    forged(), keys={KID: bytes(KEY.verify_key)}, issuer=ISSUER, audience=AUDIENCE, tool="update_ticket",
    arguments=ARGUMENTS, now=NOW, replay=MemoryReplay(),
)  # fmt: skip
OWN = receipt_key(b"\x21" * 32)
OTHER = receipt_key(b"\x22" * 32)
KEYS = read_keys({"keys": [OWN.public]}, issuer=AUDIENCE)
ANSWER = b'{"done":true}'
EXPECTED = Expected(
    backend=AUDIENCE, gateway=ISSUER, call=CALL.call, call_token=CALL.token_id, tool=CALL.tool,
    arguments=CALL.arguments, answer=digest(ANSWER), status=200,
)  # fmt: skip


def made(**changes: Any) -> str:
    told = {"key": OWN, "backend": AUDIENCE, "gateway": ISSUER, "answer": ANSWER, "status": 200, "now": NOW}
    return make_receipt(changes.pop("call", CALL), **{**told, **changes})


def read(compact: str, *, since: int = NOW, until: int = NOW, **changes: Any) -> BackendReceipt:
    expected = replace(EXPECTED, **changes)
    return read_receipt(compact, keys=KEYS, expected=expected, since=UnixTime(since), until=UnixTime(until))


def resigned(header: dict[str, Any] | None = None, **changes: Any) -> str:
    """The good receipt with other members, well signed; what is `...` is left out."""
    first, second, _ = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in (*made().split(".")[:2], "e30"))
    members = {name: value for name, value in (second | changes).items() if value is not ...}
    top = {name: value for name, value in (first | (header or {})).items() if value is not ...}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (top, members))
    return f"{signed}.{encoded(OWN.secret.sign(signed.encode()).signature)}"


def test_a_receipt_that_a_backend_made_is_read() -> None:
    assert read(made()) == BackendReceipt(key_id=OWN.id, at=NOW, rows=None)
    assert read(made(rows=3)).rows == 3
    assert read(made(rows=0)).rows == 0
    assert read(resigned()).at == NOW
    assert len(made(rows=3)) < 1000


@pytest.mark.parametrize(
    "other",
    [
        {"call": replace(CALL, call="call_2")}, {"call": replace(CALL, token_id="call_1.2")},
        {"call": replace(CALL, tool="delete_ticket")}, {"call": replace(CALL, arguments=digest(b"other"))},
        {"backend": "https://hr.test"}, {"gateway": "https://gateway.other"}, {"answer": b'{"done":false}'},
        {"status": 500}, {"key": OTHER}, {"now": NOW - 6}, {"now": NOW + 6},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_a_receipt_of_something_else_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ReceiptRefused):
        read(made(**other))


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"}, {"typ": "txntoken+jwt"}, {"typ": ...}, {"alg": "none"}, {"alg": "HS256"}, {"kid": ...},
        {"kid": OTHER.id}, {"kid": [OWN.id]}, {"crit": ["x"]}, {"jwk": OWN.public}, {"b64": False},
    ],
)  # fmt: skip
def test_a_header_that_is_not_exactly_a_receipts_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(ReceiptRefused):
        read(resigned(header))


@pytest.mark.parametrize(
    "members",
    [
        {"iat": ...}, {"iat": str(NOW)}, {"iat": True}, {"iat": float(NOW) + 0.5}, {"iss": [AUDIENCE]},
        {"aud": [ISSUER]}, {"outcome": ...}, {"outcome": {}}, {"outcome": []},
        {"outcome": {"digest": digest(ANSWER), "status": "200"}}, {"outcome": {"digest": digest(ANSWER)}},
        {"outcome": {"digest": digest(ANSWER), "status": 200, "rows": -1}},
        {"outcome": {"digest": digest(ANSWER), "status": 200, "rows": True}}, {"txn": ...}, {"tool": None},
    ],
)  # fmt: skip
def test_claims_that_have_not_their_shape_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ReceiptRefused):
        read(resigned(**members))


def test_other_spellings_and_other_tokens_are_refused() -> None:
    good = made()
    head, body, signature = good.split(".")
    last = signature[:-1] + chr(ord(signature[-1]) + 1)
    for text in (
        "", " " + good, good + "=", f"{head}.{body}", f"{head}.{body}.", f"{good}.{signature}", f"{head}.{body}.{last}",
        f"{head}.{made(status=201).split('.')[1]}.{signature}", forged(), good + "\n", good.replace(".", ".é", 1),
        f"{encoded(b'[]')}.{body}.{signature}", f"{encoded(b'{')}.{body}.{signature}", "a" * 5000,
    ):  # fmt: skip
        with pytest.raises(ReceiptRefused):
            read(text)


@effort(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.characters(codec="ascii"))
def test_no_single_character_can_be_changed(place: int, to: str) -> None:
    good = made()
    at = place % len(good)
    changed = good[:at] + to + good[at + 1 :]
    if changed == good:
        assert read(changed)
        return
    with pytest.raises(ReceiptRefused):
        read(changed)


def test_a_receipt_key_of_another_length_is_refused_and_its_secret_is_not_shown() -> None:
    with pytest.raises(ConfigInvalid):
        receipt_key(b"short")
    assert "secret" not in repr(OWN)
    assert "d" not in OWN.public
