"""`connect` says what to paste, and what the client will make of what it is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from company import said
from doors.issuer_house import issuing
from house_process import Running, running_demo
from onbehalf.cli.connect_clients import CLIENTS
from onbehalf.cli.connect_judge import Line, Seen, challenged, judge
from onbehalf.demo.data import world
from onbehalf.doors.outbound_look import Answer, followable

URL = "https://gateway.example.com/mcp"
ORIGIN = "https://gateway.example.com"
ISSUER = "https://login.example.com/tenant"
METADATA: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "registration_endpoint": f"{ISSUER}/register",
    "client_id_metadata_document_supported": True,
    "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
    "code_challenge_methods_supported": ["S256"],
    "authorization_response_iss_parameter_supported": True,
    "scopes_supported": ["notes.read"],
}
HINTS = {"readOnlyHint": True, "destructiveHint": False, "openWorldHint": False}
PRM: dict[str, Any] = {"resource": URL, "authorization_servers": [ISSUER], "scopes_supported": ["notes.read"]}


def answer(body: dict[str, Any], **changes: Any) -> Answer:
    return Answer(**{"url": "https://asked.example", "status": 200, "body": body, "seconds": 0.1, **changes})


def tools(*listed: dict[str, Any]) -> Answer:
    return answer({"result": {"tools": [*listed]}})


def good(**changes: Any) -> Seen:
    header = f'Bearer resource_metadata="{ORIGIN}/.well-known/oauth-protected-resource/mcp", scope="notes.read"'
    made = Seen(
        resource=URL, public=True, issuer_public=True,
        challenge=answer({}, status=401, headers={"www-authenticate": header}),
        metadata={"header": answer(PRM), "path form": answer(PRM), "root form": answer(PRM)},
        issuers=[answer(METADATA)], mirrors=[answer(METADATA), answer(METADATA)],
        tools=tools({"name": "notes_list", "annotations": HINTS}),
    )  # fmt: skip
    return replace(made, **changes)


def issuing_with(**changes: Any) -> Seen:
    body = {name: value for name, value in {**METADATA, **changes}.items() if value is not None}
    return good(issuers=[answer(body)], mirrors=[answer(body)] * 2)


def levels(client: str, seen: Seen, what: str) -> set[str]:
    return {each.level for each in judge(CLIENTS[client], seen) if each.what == what}


def wrong(client: str, seen: Seen) -> set[str]:
    """What is a problem. Each says what to do."""
    found: list[Line] = [each for each in judge(CLIENTS[client], seen) if each.level == "problem"]
    assert all(each.hint for each in found)
    return {each.what for each in found}


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_a_gateway_that_does_everything_has_only_good_lines(client: str) -> None:
    assert {each.level for each in judge(CLIENTS[client], good())} == {"ok"}


@pytest.mark.parametrize("client", sorted(CLIENTS))
@pytest.mark.parametrize(
    ("seen", "what"),
    [
        (good(resource="http://gateway.example.com/mcp"), "address"),
        (good(public=None), "address"),
        (good(challenge=Answer(url=URL, problem="it did not answer within 10 s")), "challenge"),
        (good(challenge=answer({}, status=200)), "challenge"),
        (good(challenge=answer({}, status=302)), "challenge"),
        (good(challenge=answer({}, status=401)), "challenge"),
        (good(challenge=answer({}, status=401, headers={"www-authenticate": 'Basic realm="x"'})), "challenge"),
        (good(metadata={"root form": answer({}, status=404)}), "resource metadata (root form)"),
        (good(metadata={"path form": answer({**PRM, "resource": f"{URL}/"})}), "resource metadata (path form)"),
        (good(metadata={"header": answer({**PRM, "authorization_servers": []})}), "resource metadata (header)"),
        (good(issuers=[]), "issuer"),
        (good(issuers=[answer({}, status=500)]), "issuer"),
        (good(issuers=[answer({**METADATA, "issuer": f"{ISSUER}/"})]), "issuer"),
        (good(issuers=[answer(METADATA, seconds=11.0)]), "issuer"),
        (issuing_with(token_endpoint=None), "issuer"),
        (issuing_with(code_challenge_methods_supported=None), "PKCE"),
        (issuing_with(code_challenge_methods_supported=["plain"]), "PKCE"),
        (good(mirrors=[answer({**METADATA, "issuer": "https://evil.example"})] * 2), "copy of issuer metadata"),
        (good(tools=tools()), "tools"),
        (good(tools=answer({}, status=401)), "tools"),
    ],
)  # fmt: skip
def test_what_no_client_can_do_without_is_a_problem_with_what_to_do(client: str, seen: Seen, what: str) -> None:
    assert what in wrong(client, seen)


def test_only_the_client_that_looks_there_minds_a_missing_copy() -> None:
    seen = good(mirrors=[answer({}, status=404)] * 2)
    assert wrong("chatgpt", seen) == {"copy of issuer metadata"}
    assert wrong("claude", seen) == wrong("cursor", seen) == set()


def test_only_chatgpt_minds_a_missing_iss_and_missing_annotations() -> None:
    seen = issuing_with(authorization_response_iss_parameter_supported=None)
    assert levels("chatgpt", seen, "RFC 9207") == {"warning"}
    assert levels("claude", seen, "RFC 9207") == {"note"}
    partly = {name: HINTS[name] for name in ("readOnlyHint", "openWorldHint")}
    bare = good(tools=tools({"name": "bare", "annotations": partly}))
    assert wrong("chatgpt", bare) == {"tools"}
    assert wrong("vscode", bare) == set()


def test_how_a_client_is_registered_is_said_and_claude_needs_the_method_none() -> None:
    def said_of(client: str, **changes: Any) -> str:
        return " ".join(
            each.text for each in judge(CLIENTS[client], issuing_with(**changes)) if each.what == "registration"
        )

    without_none = {"token_endpoint_auth_methods_supported": ["client_secret_basic"]}
    assert "CIMD" in said_of("claude")
    assert "registers itself" not in said_of("claude")
    assert "not used" in said_of("claude", **without_none)
    assert "registers itself" in said_of("claude", **without_none)
    assert "registers itself" in said_of("cursor", client_id_metadata_document_supported=None)
    by_hand = issuing_with(client_id_metadata_document_supported=None, registration_endpoint=None)
    [line] = [each for each in judge(CLIENTS["claude"], by_hand) if each.what == "registration"]
    assert line.level == "warning"
    assert "https://claude.ai/api/mcp/auth_callback" in line.hint


def test_a_cloud_client_is_warned_of_private_addresses_and_one_of_this_machine_is_not() -> None:
    for seen in (good(public=False), good(resource="http://127.0.0.1:8100/mcp")):
        assert levels("chatgpt", seen, "address") == {"warning"}
        assert levels("vscode", seen, "address") == {"ok"}


def test_a_document_from_elsewhere_leads_neither_to_this_machine_nor_to_an_address_nor_from_tls() -> None:
    for url in (
        "http://127.0.0.1:9/x", "http://localhost/x", "https://localhost/x", "https://[::1]/x", "https://127.9.9.9/x",
        "https://10.0.0.1/x", "https://169.254.169.254/latest", "http://login.example.com/x", "file:///etc/passwd",
        "https://a@b.example/x", "https://b.example/x#y", "https://b.example\\@c.example/", "https://b.example:99999/",
        "https://b.exa mple/", "https://" + "a" * 3000, "", None, 7,
    ):  # fmt: skip
        assert not followable(url, seen_at=URL), url
    assert followable("https://login.example.com/x", seen_at=URL)
    assert followable("http://127.0.0.1:8110/x", seen_at="http://127.0.0.1:8100/mcp")


@given(st.text(max_size=200) | st.text(alphabet='Bearer ="\\,x', max_size=200))
def test_no_header_breaks_the_reading_of_a_challenge(header: str) -> None:
    assert all(isinstance(value, str) for value in challenged(header).values())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*METADATA, *PRM, "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from([*METADATA, *PRM, "result"]), json_values, max_size=6),
    st.dictionaries(st.sampled_from([*METADATA, "result"]), json_values, max_size=6),
    st.sampled_from(sorted(CLIENTS)),
)
def test_whatever_is_answered_is_judged_and_never_as_good(
    prm: dict[str, Any], metadata: dict[str, Any], client: str
) -> None:
    one = answer(metadata)
    seen = good(metadata={"header": answer(prm)}, issuers=[one], mirrors=[one], tools=one)
    assert wrong(client, seen)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_the_demo_is_fit_for_each_client_of_this_machine(
    house: Running, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", house.token(world().person("acme", "alice").subject))
    told = said("connect", client, "-c", house.config, "--token", "env:A_TOKEN", "--json")
    found = json.loads(told.out)
    assert told.code == 0, found
    assert found["ok"] is True
    assert any(house.places.resource in line for line in found["steps"])
    by_what = {each["what"]: each for each in found["findings"]}
    assert by_what["tools"]["text"].startswith("8 shown")
    good_ones = {each["what"] for each in found["findings"] if each["level"] == "ok"}
    assert good_ones >= {
        "challenge", "resource metadata (header)", "resource metadata (path form)", "resource metadata (root form)",
        "issuer", "PKCE", "RFC 9207", "copy of issuer metadata", "registration", "scopes", "tools",
    }  # fmt: skip
    spoken = said("connect", client, "-c", house.config)
    assert spoken.code == 0
    assert house.places.resource in spoken.out
    assert "No problems found." in spoken.out


def test_a_server_that_is_no_gateway_fails(house: Running) -> None:
    with issuing() as other:
        told = said("connect", "cursor", "-c", house.config, "--url", f"{other.url}/mcp", "--json")
    assert told.code == 1
    assert {each["what"] for each in json.loads(told.out)["findings"] if each["level"] == "problem"} >= {"challenge"}


def test_a_token_is_not_sent_in_the_clear(house: Running, tmp_path: Path) -> None:
    told = said(
        "connect", "cursor", "-c", house.config, "--url", "http://gateway.example.com/mcp", "--token", "env:HOME"
    )
    assert told.code == 2
    assert "not https" in told.err
