"""Opaque tokens from end to end: a real authorization server gives them out, a served gateway asks it about them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from joserfc.jwk import RSAKey

from company import Company, company, said
from oidc_tokens import GATEWAY, GATEWAY_SECRET, TokenServer, token_server

ALICE = "alice-at-login"


@contextmanager
def opaque_house(
    directory: Path, *, signed: bool = False, more: str = "", key: RSAKey | None = None
) -> Iterator[tuple[Company, TokenServer]]:
    """A gateway, not served yet, whose one issuer gives out opaque tokens, and knows it by its secret or by `key`."""
    with company(directory) as made, token_server(signed=signed, gateway_key=key) as server:
        said_so = f"signed: {str(signed).lower()}"
        asked = (
            f"endpoint: '{server.issuer}/token/introspection', client_id: '{GATEWAY}', client_secret: file:own.secret"
        )
        made.edit(
            "tenant: acme, algorithms: [ES256]}",
            f"tenant: acme, algorithms: [RS256], introspection: {{{asked}, {said_so}{more}}}}}",
        )
        for name in ("onbehalf.yaml", "people.yaml"):
            made.edit(made.issuer.url, server.issuer, name=name)
        (directory / "own.secret").write_text(GATEWAY_SECRET)
        if key is not None:
            made.edit("client_secret: file:own.secret", "client_key: file:own.jwk")
            (directory / "own.jwk").write_text(json.dumps(key.as_dict(private=True)))
        yield made, server


def token(server: TokenServer, made: Company, account: str = ALICE, **asked: str) -> str:
    good = {"resource": f"{made.gateway}/mcp", "scope": "notes.read desk.write"}
    return str(server.person(account, **{**good, **asked})["access_token"])


@pytest.mark.parametrize("signed", [False, True])
def test_a_real_opaque_token_lets_its_person_do_what_they_may(tmp_path: Path, signed: bool) -> None:
    with opaque_house(tmp_path / "it", signed=signed) as (made, server):
        findings = json.loads(said("check", "-c", made.config, "--json").out)["findings"]
        told = {each["what"]: each["level"] for each in findings}
        assert told[f"introspection {server.issuer}"] == "ok"
        with made.serving():
            alice = token(server, made)
            assert "." not in alice
            rows = made.call("notes_list", token=alice)["structuredContent"]
            assert [row["id"] for row in rows["rows"]] == [1]
            assert made.tools(token=alice) == {"notes_list", "desk_read", "desk_write"}
            assert made.post("tools/list", token="made-up").status_code == 401
            elsewhere = token(server, made, resource="https://other.example/mcp")
            answer = made.post("tools/list", token=elsewhere)
            assert answer.status_code == 401
            assert "wrong_audience" in answer.text
            assert alice not in made.served_log()
        story = said("explain", "last", "-c", made.config).out
        asked = "it signed its answer" if signed else "it said so"
        assert "asked about the token" in " ".join(story.split())
        assert asked in " ".join(story.split())
        assert alice not in made.ledger.read_bytes().decode("latin-1")


@pytest.mark.parametrize("algorithm", ["PS256", "RS256"])
def test_the_gateway_may_prove_itself_by_a_key_when_it_asks(tmp_path: Path, algorithm: str) -> None:
    key = RSAKey.generate_key(2048, {"kid": "gateway-1", "alg": algorithm})
    with opaque_house(tmp_path / "it", key=key) as (made, server), made.serving():
        alice = token(server, made)
        assert made.tools(token=alice) == {"notes_list", "desk_read", "desk_write"}
        assert made.post("tools/list", token="made-up").status_code == 401


def test_check_says_where_the_gateways_own_key_is_not_taken(tmp_path: Path) -> None:
    key = RSAKey.generate_key(2048, {"kid": "gateway-1", "alg": "PS256"})
    with opaque_house(tmp_path / "it", key=key) as (made, server):
        findings = json.loads(said("check", "-c", made.config, "--json").out)["findings"]
        told = {each["what"]: each["level"] for each in findings}
        assert told[f"introspection {server.issuer}"] == "ok"
        another = RSAKey.generate_key(2048, {"kid": "gateway-1", "alg": "PS256"})
        (made.directory / "own.jwk").write_text(json.dumps(another.as_dict(private=True)))
        found = json.loads(said("check", "-c", made.config, "--json").out)["findings"]
        (wrong,) = [each for each in found if each["level"] == "problem"]
        assert wrong["what"] == f"introspection {server.issuer}"
        assert "401" in wrong["text"]
        assert "client_key" in wrong["hint"]


def test_a_token_that_was_ended_there_lets_in_no_longer_than_an_answer_is_kept(tmp_path: Path) -> None:
    with opaque_house(tmp_path / "it", more=", kept_seconds: 1") as (made, server), made.serving():
        alice = token(server, made)
        assert made.call("desk_read", token=alice)["content"]
        server.revoked(alice)
        time.sleep(1.1)
        answer = made.post("tools/list", token=alice)
        assert answer.status_code == 401
        assert "token_inactive" in answer.text
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_the_refresh_token_of_a_person_is_no_access_token(tmp_path: Path) -> None:
    with opaque_house(tmp_path / "it") as (made, server), made.serving():
        both = server.person(ALICE, resource=f"{made.gateway}/mcp", scope="notes.read offline_access openid")
        assert made.post("tools/list", token=both["access_token"]).status_code == 200
        assert made.post("tools/list", token=both["refresh_token"]).status_code == 401


def test_while_the_server_cannot_be_asked_nobody_gets_in_and_it_is_said(tmp_path: Path) -> None:
    with opaque_house(tmp_path / "it") as (made, server):
        alice = token(server, made)
        made.edit(f"{server.issuer}/token/introspection", f"{server.issuer}/gone")
        with made.serving():
            answer = made.post("tools/list", token=alice)
            assert answer.status_code == 503
            assert "issuer_unavailable" in answer.text


def test_check_says_where_the_gateways_own_secret_is_not_taken(tmp_path: Path) -> None:
    with opaque_house(tmp_path / "it") as (made, server):
        (made.directory / "own.secret").write_text("another")
        found = json.loads(said("check", "-c", made.config, "--json").out)["findings"]
        (wrong,) = [each for each in found if each["level"] == "problem"]
        assert wrong["what"] == f"introspection {server.issuer}"
        assert "401" in wrong["text"]
        assert "client_secret" in wrong["hint"]
