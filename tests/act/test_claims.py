"""What a call token says, by the names of the Transaction Token draft."""

from __future__ import annotations

from act.granted import ARGUMENTS, AUDIENCE, CALL, ISSUER, NOW, granted
from onbehalf.act import KIND, claims
from onbehalf.model import canonical, digest


def test_claims_are_exactly_these() -> None:
    assert KIND == "txntoken+jwt"
    assert claims(granted(), issuer=ISSUER) == {
        "iss": ISSUER,
        "iat": NOW,
        "exp": NOW + 30,
        "aud": AUDIENCE,
        "txn": CALL,
        "jti": f"{CALL}.41",
        "sub": "acme/alice",
        "scope": "tickets.update",
        "req_wl": ISSUER,
        "tctx": {
            "tenant": "acme",
            "tool": "update_ticket",
            "action": "tickets.update",
            "arguments": digest(canonical(ARGUMENTS)),
            "resource": {"type": "Ticket", "id": "acme/T-1001"},
            "record": {"index": 41, "leaf": digest(b"41"), "channel": "c0ffee0123456789", "n": 42},
        },
        "rctx": {"issuer": "https://login.test", "subject": "sub-1", "client": "chat", "agent": "assistant/1.0"},
    }


def test_two_sendings_of_one_call_have_ids_of_their_own() -> None:
    first, second = (claims(granted(index=index), issuer=ISSUER) for index in (41, 42))
    assert first["txn"] == second["txn"]
    assert first["jti"] != second["jti"]


def test_claims_hold_neither_the_arguments_nor_the_callers_token() -> None:
    said = repr(claims(granted(), issuer=ISSUER))
    assert "T-1001'" not in said.replace("acme/T-1001'", "")
    assert "closed" not in said
    assert digest(b"token") not in said
