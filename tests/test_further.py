"""A backend that calls further: the token service of a served gateway, and what a backend must not get there."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from company import Company, company, said
from onbehalf.backend import MemoryReplay, read_keys, verify_call
from onbehalf.errors import CallTokenRefused
from onbehalf.model import UnixTime, canonical, digest

SECRET = "a secret of the desk's own, for tests"
NEXT = "http://127.0.0.1:9/mcp"
TXN = "urn:ietf:params:oauth:token-type:txn_token"
ARGUMENTS = {"room": 7}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with company(tmp_path_factory.mktemp("further")) as made:
        made.edit(
            '    protocol: "2026-07-28"\n',
            '    protocol: "2026-07-28"\n    further: {secret: "file:desk.secret", to: [rooms]}\n',
        )
        text = made.config.read_text(encoding="utf-8")
        text += f'  rooms: {{kind: mcp, url: "{NEXT}", tools: {{room_read: {{action: readDesk}}}}}}\n'
        text += f'  other: {{kind: mcp, url: "{NEXT}/other", tools: {{other_read: {{action: readDesk}}}}}}\n'
        made.config.write_text(text, encoding="utf-8")
        (made.directory / "desk.secret").write_text(SECRET)
        with made.serving():
            yield made


def first(at: Company) -> str:
    """The call token that the desk gets for a call of a person's."""
    assert not at.call("desk_read", word="x").get("isError")
    return at.desk.tokens[-1]


def exchanged(at: Company, token: str, *, auth: tuple[str, str] = ("desk", SECRET), **changes: Any) -> httpx2.Response:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": token,
        "subject_token_type": TXN, "requested_token_type": TXN, "audience": NEXT,
        "request_details": json.dumps({"tool": "room_read", "arguments": digest(canonical(ARGUMENTS))}), **changes,
    }  # fmt: skip
    form = {name: value for name, value in form.items() if value is not None}
    return httpx2.post(f"{at.gateway}/txn/token", data=form, auth=auth, trust_env=False, timeout=20)


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def test_the_next_backend_learns_the_same_person_call_and_scope_and_no_more(at: Company) -> None:
    one = first(at)
    answer = exchanged(at, one)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["token_type"], body["issued_token_type"]) == ("N_A", TXN)
    assert answer.headers["cache-control"] == "no-store"
    before, after = claims(one), claims(body["access_token"])
    for kept in ("iss", "txn", "sub", "scope", "exp", "rctx"):
        assert after[kept] == before[kept]
    assert (after["aud"], after["req_wl"]) == (NEXT, at.desk.url + "/mcp")
    assert after["jti"] != before["jti"]
    assert 0 < body["expires_in"] <= 30
    keys = read_keys(at.get("/.well-known/jwks.json", public=True).content, issuer=at.gateway)
    call = verify_call(
        body["access_token"], keys=keys, issuer=at.gateway, audience=NEXT, tool="room_read", arguments=ARGUMENTS,
        now=UnixTime(int(time.time())), replay=MemoryReplay(),
    )  # fmt: skip
    assert (call.tenant, call.person, call.call) == ("acme", "alice", before["txn"])
    for changes in ({"tool": "room_write"}, {"arguments": {"room": 8}}, {"audience": at.desk.url}):
        with pytest.raises(CallTokenRefused):
            verify_call(
                body["access_token"], keys=keys, issuer=at.gateway, now=UnixTime(int(time.time())),
                replay=MemoryReplay(), **{"audience": NEXT, "tool": "room_read", "arguments": ARGUMENTS, **changes},
            )  # fmt: skip


def test_it_is_on_record_with_the_call(at: Company) -> None:
    one = first(at)
    assert exchanged(at, one).status_code == 200
    told = said("explain", claims(one)["txn"], "--config", at.config)
    assert told.code == 0, told.err
    assert "further" in told.out
    assert NEXT in " ".join(told.out.split())
    assert one not in told.out


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"audience": f"{NEXT}/other"}, 400, "invalid_target"),
        ({"audience": ""}, 400, "invalid_target"),
        ({"scope": "writeDesk"}, 400, "invalid_scope"),
        ({"scope": "readDesk writeDesk"}, 400, "invalid_scope"),
        ({"grant_type": "client_credentials"}, 400, "unsupported_grant_type"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"}, 400, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:access_token"}, 400, "invalid_request"),
        ({"actor_token": "x"}, 400, "invalid_request"),
        ({"subject_token": ""}, 400, "invalid_request"),
        ({"request_details": None}, 400, "invalid_request"),
        ({"request_details": '{"tool": "t", "arguments": "sha256:x"}'}, 400, "invalid_request"),
        ({"request_details": '{"tool": "t", "tool": "u", "arguments": "x"}'}, 400, "invalid_request"),
    ],
)
def test_what_a_backend_must_not_ask_for_it_does_not_get(
    at: Company, changes: dict[str, Any], status: int, error: str
) -> None:
    answer = exchanged(at, first(at), **changes)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_another_backends_token_an_access_token_and_a_forged_one_are_worth_nothing(at: Company) -> None:
    one = first(at)
    header, payload, signature = one.split(".")
    further = exchanged(at, one).json()["access_token"]
    for token in (at.token(), further, f"{header}.{payload}.{signature[:-4]}AAAA", "x.y.z"):
        assert exchanged(at, token).json()["error"] == "invalid_request"


@pytest.mark.parametrize("auth", [("desk", "wrong"), ("rooms", SECRET), ("nobody", ""), ("", "")])
def test_only_a_backend_that_may_and_proves_itself_is_answered(at: Company, auth: tuple[str, str]) -> None:
    answer = exchanged(at, first(at), auth=auth)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_one_call_token_is_good_for_so_many_calls_further(at: Company) -> None:
    one = first(at)
    codes = [exchanged(at, one).status_code for _ in range(17)]
    assert codes == [200] * 16 + [400]


def test_a_secret_that_is_short_or_a_target_that_takes_no_tokens_does_not_start(at: Company) -> None:
    config = at.config.read_text(encoding="utf-8")
    for old, new in (("to: [rooms]", "to: [notes]"), ("to: [rooms]", "to: [nothing]")):
        (at.directory / "broken.yaml").write_text(config.replace(old, new).replace("data", "data2"), encoding="utf-8")
        told = said("serve", "--config", at.directory / "broken.yaml")
        assert told.code != 0
        assert "further" in told.err
