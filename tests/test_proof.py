"""Bound access tokens through the public door of a served gateway: DPoP (RFC 9449), certificates (RFC 8705)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from company import Company, company, said
from identify.minting import key_for
from identify.proving import certificate, certificate_hash, escaped_pem, proof, rfc9440
from proving_client import Prover, body_of

SECRET = "a-secret-that-the-proxy-and-the-gateway-share"
BOUND_ONLY = """
@id("bound") @doc("The desk is changed with a bound token only.") @remedy("Use a client that holds its key.")
permit (principal in Group::"acme/staff", action == Action::"writeDesk", resource is Tool)
when { context has proof && context.proof == "dpop" };
"""


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with company(tmp_path_factory.mktemp("proof")) as made:
        made.edit(
            "  limits: {call_seconds: 8}",
            "  limits: {call_seconds: 8}\n  certificates: {header: X-Client-Cert, spelling: pem,"
            ' secret: "file:proxy.secret", secret_header: X-Client-Cert-Secret}',
        )
        (made.directory / "proxy.secret").write_text(f"{SECRET}\n", encoding="utf-8")
        path = made.directory / "policies" / "own.cedar"
        text = path.read_text(encoding="utf-8")
        staff = 'action in [Action::"readDesk", Action::"readNote"], resource is Tool);'
        path.write_text(text.replace("action, resource is Tool);", staff) + BOUND_ONLY, encoding="utf-8")
        with made.serving():
            yield made


@pytest.fixture
def client(at: Company) -> Prover:
    return Prover(at=at)


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["data"]["onbehalf/denial"]["code"])


def challenge(answer: httpx2.Response) -> str:
    [one] = answer.headers.get_list("www-authenticate")
    return str(one)


def tools(answer: httpx2.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {tool["name"] for tool in answer.json()["result"]["tools"]}


# --- DPoP ----------------------------------------------------------------------------------


def test_a_client_that_holds_the_key_is_let_in_once_it_has_a_nonce(client: Prover) -> None:
    token = client.token()
    first = client.send(("Authorization", f"DPoP {token}"), ("DPoP", client.proof(token)))
    assert (first.status_code, code(first)) == (401, "dpop_nonce_needed")
    assert challenge(first).startswith("DPoP resource_metadata=")
    assert 'error="use_dpop_nonce"' in challenge(first)
    assert 'algs="ES256 EdDSA Ed25519 PS256 RS256"' in challenge(first)
    client.nonce = first.headers["dpop-nonce"]
    second = client.send(("authorization", f"dpop {token}"), ("dpop", client.proof(token)))
    assert tools(second) == {"notes_list", "desk_read", "desk_write"}
    assert "dpop-nonce" not in second.headers, "the client's nonce is young"


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_keys_of_each_kind_prove_a_token_many_times(at: Company, algorithm: str) -> None:
    client = Prover(at=at, key=key_for(algorithm, "another"))
    token = client.token()
    for _ in range(3):
        made = proof(token=token, key=client.key, algorithm=algorithm, htu=f"{at.gateway}/mcp", iat=int(time.time()))
        asked = client.post(token, text=made)
        assert code(asked) == "dpop_nonce_needed"
        again = proof(
            token=token,
            key=client.key,
            algorithm=algorithm,
            htu=f"{at.gateway}/mcp",
            iat=int(time.time()),
            nonce=client.nonce,
        )
        assert tools(client.post(token, text=again))


def test_a_call_says_in_record_and_story_what_was_proven(client: Prover) -> None:
    result = client.call(client.token(), "desk_write", word="x")["result"]
    assert not result.get("isError"), result
    told = said("explain", result["_meta"]["onbehalf/call"], "--config", client.at.config)
    assert f"The client proved that it holds the key {client.key.thumbprint()}." in " ".join(told.out.split())


def test_a_policy_can_ask_for_a_bound_token(client: Prover) -> None:
    assert not client.call(client.token(), "desk_write", word="x")["result"].get("isError")
    bearer = client.at.call("desk_write", word="x")
    assert bearer["_meta"]["onbehalf/denial"]["code"] == "not_permitted"
    assert not client.at.call("desk_read").get("isError")


def test_the_metadata_says_which_proofs_are_taken(at: Company) -> None:
    metadata = at.get("/.well-known/oauth-protected-resource", public=True).json()
    assert metadata["dpop_signing_alg_values_supported"] == ["ES256", "EdDSA", "Ed25519", "PS256", "RS256"]
    assert metadata["dpop_bound_access_tokens_required"] is False
    assert metadata["tls_client_certificate_bound_access_tokens"] is True


# --- RFC 9449 section 11 -------------------------------------------------------------------


def test_11_1_a_proof_is_taken_once_and_a_replay_is_refused(client: Prover) -> None:
    token = client.token()
    client.post(token)
    used = client.proof(token)
    assert tools(client.post(token, text=used))
    again = client.post(token, text=used)
    assert (again.status_code, code(again)) == (401, "dpop_refused")
    assert 'error="invalid_dpop_proof"' in challenge(again)


def test_11_1_of_many_that_come_at_once_with_one_proof_one_is_taken(client: Prover) -> None:
    token = client.token()
    client.post(token)
    used = client.proof(token)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.post(token, text=used).status_code, range(16)))
    assert sorted(answers) == [200] + [401] * 15


def test_11_1_a_proof_with_a_used_id_and_all_else_new_is_a_replay_but_not_of_another_key(client: Prover) -> None:
    token = client.token()
    client.post(token)
    assert tools(client.post(token, jti="the-same"))
    assert code(client.post(token, jti="the-same")) == "dpop_refused"
    other = Prover(at=client.at, key=key_for("ES256", "other"), nonce=client.nonce)
    assert tools(other.post(other.token(), jti="the-same"))


def test_11_1_one_request_whose_caller_is_asked_for_twice_is_no_replay_of_itself(client: Prover) -> None:
    token = client.token()
    client.post(token)
    large = body_of("tools/call", name="desk_read", arguments={"word": "x" * 300_000})  # proven before it is read
    assert client.post(token, body=large).status_code == 200
    wrong = body_of("tools/none")  # proven before it is told what is wrong
    assert client.post(token, body=wrong).json()["error"]["code"] == -32601


def test_11_2_a_proof_made_in_advance_lacks_the_nonce_of_its_time(client: Prover) -> None:
    token = client.token()
    ahead = client.proof(token, nonce=None, iat=int(time.time()) + 30)
    assert code(client.post(token, text=ahead)) == "dpop_nonce_needed"
    assert code(client.post(token, iat=int(time.time()) + 90)) == "dpop_refused"
    assert code(client.post(token, iat=int(time.time()) - 90)) == "dpop_refused"


@pytest.mark.parametrize("nonce", ["", "x", "A" * 30, "\N{SNOWMAN}", 1])
def test_11_3_a_nonce_cannot_be_left_out_or_made_up(client: Prover, nonce: Any) -> None:
    token = client.token()
    client.post(token)
    assert client.nonce
    answer = client.post(token, nonce=nonce)
    assert code(answer) in ("dpop_nonce_needed", "dpop_refused")
    assert answer.status_code == 401
    altered = client.nonce[:-1] + ("A" if client.nonce[-1] != "A" else "B")
    assert code(client.post(token, nonce=altered)) == "dpop_nonce_needed"


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": "HS256"}, {"typ": "jwt"}, {"jwk": None}, {"crit": ["exp"]}]
)
def test_11_5_and_11_6_another_kind_of_jwt_or_algorithm_is_no_proof(client: Prover, header: dict[str, Any]) -> None:
    token = client.token()
    client.post(token)
    assert code(client.post(token, header=header)) == "dpop_refused"


@pytest.mark.parametrize(
    "changes",
    [
        {"htm": "GET"},
        {"htu": "https://elsewhere.example/mcp"},
        {"htu": None},
        {"ath": "x"},
        {"ath": None},
        {"jti": None},
    ],
)
def test_11_7_a_proof_of_another_request_or_token_is_refused(client: Prover, changes: dict[str, Any]) -> None:
    token = client.token()
    client.post(token)
    assert code(client.post(token, **changes)) == "dpop_refused"


def test_11_8_a_stolen_token_is_worth_nothing_without_its_key(client: Prover) -> None:
    stolen = client.token()
    client.post(stolen)
    thief = Prover(at=client.at, key=key_for("ES256", "thief"), nonce=client.nonce)
    assert code(thief.post(stolen)) == "dpop_refused"
    assert tools(client.post(stolen)), "the owner is not locked out"


def test_the_host_that_a_client_names_does_not_change_what_a_proof_is_for(client: Prover) -> None:
    token = client.token()
    client.post(token)
    port = client.at.gateway.rpartition(":")[2]
    elsewhere = client.post(token, htu=f"http://elsewhere.example:{port}/mcp", more={"Host": "elsewhere.example"})
    assert elsewhere.status_code == 421
    forwarded = {"X-Forwarded-Host": "elsewhere.example", "Forwarded": "host=elsewhere.example"}
    assert code(client.post(token, htu="http://elsewhere.example/mcp", more=forwarded)) == "dpop_refused"


# --- which scheme --------------------------------------------------------------------------


def test_a_bound_token_sent_as_a_bearer_is_refused_with_its_proof_and_without(client: Prover) -> None:
    token = client.token()
    assert tools(client.post(token)), "it is known and kept"
    for more in ({}, {"DPoP": client.proof(token)}):
        answer = client.send(("Authorization", f"Bearer {token}"), *more.items())
        assert (answer.status_code, code(answer)) == (401, "dpop_missing")
        assert challenge(answer).startswith("DPoP ")
        assert 'error="invalid_token"' in challenge(answer)


def test_a_bearer_token_sent_under_dpop_is_refused_whether_it_is_known_or_not(client: Prover) -> None:
    for token in (client.at.token(), client.at.token(jti="known")):
        if "known" in token or client.send(("Authorization", f"Bearer {token}")).status_code == 200:
            assert code(client.post(token)) == "token_malformed"
    fresh = client.at.token(jti="fresh")
    assert code(client.post(fresh)) == "token_malformed"
    assert tools(client.send(("Authorization", f"Bearer {fresh}")))


def test_a_bearer_token_with_a_proof_beside_it_is_a_bearer_token(client: Prover) -> None:
    token = client.at.token()
    assert tools(client.send(("Authorization", f"Bearer {token}"), ("DPoP", "nonsense")))


def test_two_proofs_no_proof_and_two_schemes_are_refused(client: Prover) -> None:
    token = client.token()
    client.post(token)
    dpop = ("Authorization", f"DPoP {token}")
    twice = client.send(dpop, ("DPoP", client.proof(token)), ("DPoP", client.proof(token)))
    assert (twice.status_code, code(twice)) == (400, "credentials_refused")
    joined = client.send(dpop, ("DPoP", f"{client.proof(token)}, {client.proof(token)}"))
    assert code(joined) == "dpop_refused"
    assert code(client.send(dpop)) == "dpop_missing"
    both = client.send(dpop, ("Authorization", f"Bearer {token}"), ("DPoP", client.proof(token)))
    assert (both.status_code, code(both)) == (400, "credentials_refused")
    assert code(client.send(dpop, ("DPoP", "x" * 5000))) == "dpop_refused"
    assert code(client.send(dpop, ("DPoP", ""))) == "dpop_refused"


def test_who_shows_no_token_is_asked_for_a_bearer_token_and_never_given_a_nonce(client: Prover) -> None:
    answer = client.send()
    assert challenge(answer).startswith("Bearer ")
    forged = client.token()[:-8] + "AAAAAAAA"
    answer = client.send(("Authorization", f"DPoP {forged}"), ("DPoP", client.proof(forged)))
    assert (answer.status_code, code(answer)) == (401, "signature_mismatch")
    assert "dpop-nonce" not in answer.headers
    assert challenge(answer).startswith("DPoP "), "of the scheme that it came under"


def test_a_lack_of_scope_is_challenged_under_the_scheme_of_the_client(client: Prover) -> None:
    token = client.token(scope="nothing")
    answer = client.post(token, body=body_of("tools/call", name="notes_list", arguments={}))
    assert answer.status_code == 403
    assert challenge(answer).startswith("DPoP ")
    assert 'error="insufficient_scope"' in challenge(answer)


# --- the older era -------------------------------------------------------------------------

OLD = {"MCP-Protocol-Version": "2025-11-25"}


def old(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def test_each_request_of_an_older_session_is_proven_and_ending_it_too(client: Prover) -> None:
    token = client.token()
    client.post(token)

    def lines(method: str = "POST") -> list[tuple[str, str]]:
        return [("Authorization", f"DPoP {token}"), ("DPoP", client.proof(token, htm=method))]

    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    opened = client.send(*lines(), body=old("initialize", **hello), more=OLD)
    assert opened.status_code == 200, opened.text
    session = {**OLD, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}}
    assert client.send(*lines(), body=ready, more=session).status_code == 202
    asked = old("tools/call", name="desk_read", arguments={})
    used = lines()
    assert client.send(*used, body=asked, more=session).status_code == 200
    assert code(client.send(*used, body=asked, more=session)) == "dpop_refused"
    assert code(client.send(("Authorization", f"Bearer {token}"), body=asked, more=session)) == "dpop_missing"
    assert code(client.send(*lines("POST"), method="DELETE", more=session)) == "dpop_refused"
    assert code(client.send(*lines("POST"), method="GET", more=session)) == "dpop_refused"
    assert code(client.send(*lines("GET"), method="GET", more=session)) == "method_refused"
    assert client.send(*lines("DELETE"), method="DELETE", more=session).status_code == 200
    assert code(client.send(*lines(), body=asked, more=session)) == "session_foreign"


# --- certificates --------------------------------------------------------------------------


def by_proxy(der: bytes, secret: str = SECRET) -> list[tuple[str, str]]:
    return [("X-Client-Cert", escaped_pem(der)), ("X-Client-Cert-Secret", secret)]


@pytest.fixture
def held(at: Company) -> tuple[str, str]:
    return "Authorization", f"Bearer {at.token(cnf={'x5t#S256': certificate_hash(certificate())})}"


def test_a_token_bound_to_a_certificate_is_taken_on_its_connection_only(client: Prover, held: tuple[str, str]) -> None:
    for _ in range(2):  # the second time from what is kept
        assert tools(client.send(held, *by_proxy(certificate())))
        for refused in (client.send(held), client.send(held, *by_proxy(certificate("another")))):
            assert (refused.status_code, code(refused)) == (401, "proof_missing")
            assert challenge(refused).startswith("Bearer ")


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1], SECRET + "x", SECRET.upper()])
def test_a_certificate_that_the_proxy_did_not_write_is_refused_whatever_the_token(
    client: Prover, held: tuple[str, str], secret: str
) -> None:
    for token in (held, ("Authorization", f"Bearer {client.at.token()}")):
        answer = client.send(token, *by_proxy(certificate(), secret))
        assert (answer.status_code, code(answer)) == (400, "credentials_refused")
    without = client.send(held, by_proxy(certificate())[0])
    assert (without.status_code, code(without)) == (400, "credentials_refused")


def test_two_certificates_or_two_secrets_are_refused(client: Prover, held: tuple[str, str]) -> None:
    cert, secret = by_proxy(certificate())
    for lines in ((cert, cert, secret), (cert, secret, secret), (by_proxy(certificate("another"))[0], cert, secret)):
        answer = client.send(held, *lines)
        assert (answer.status_code, code(answer)) == (400, "credentials_refused")


def test_another_spelling_or_header_than_the_configured_one_is_no_certificate(
    client: Prover, held: tuple[str, str]
) -> None:
    cert, secret = by_proxy(certificate())
    assert code(client.send(held, ("X-Client-Cert", rfc9440(certificate())), secret)) == "proof_missing"
    assert code(client.send(held, ("Client-Cert", rfc9440(certificate())), secret)) == "proof_missing"
    assert code(client.send(held, ("X-Client-Cert", cert[1] * 2), secret)) == "proof_missing"
    assert code(client.send(held, ("X-Client-Cert", "%00" * 3000), secret)) == "credentials_refused"


def test_a_bearer_token_beside_a_certificate_is_a_bearer_token(client: Prover) -> None:
    bearer = ("Authorization", f"Bearer {client.at.token()}")
    assert tools(client.send(bearer, *by_proxy(certificate())))


def test_a_token_bound_to_a_certificate_is_refused_under_dpop(client: Prover, held: tuple[str, str]) -> None:
    token = held[1].removeprefix("Bearer ")
    answer = client.send(("Authorization", f"DPoP {token}"), ("DPoP", client.proof(token)), *by_proxy(certificate()))
    assert code(answer) == "token_malformed"


def test_the_record_says_which_certificate_it_was(client: Prover, held: tuple[str, str]) -> None:
    answer = client.send(held, *by_proxy(certificate()), body=body_of("tools/call", name="desk_read", arguments={}))
    call = answer.json()["result"]["_meta"]["onbehalf/call"]
    told = " ".join(said("explain", call, "--config", client.at.config).out.split())
    assert f"it holds the certificate {certificate_hash(certificate())}." in told


def test_no_proof_nonce_secret_or_certificate_is_in_the_log_or_the_data(client: Prover, held: tuple[str, str]) -> None:
    token = client.token()
    client.post(token)
    used = client.proof(token)
    client.post(token, text=used)
    client.post(token, text=used)
    client.send(held, *by_proxy(certificate()))
    client.send(held, *by_proxy(certificate(), "wrong-secret-of-a-client"))
    kept = client.at.served_log().encode() + b"".join(
        path.read_bytes() for path in (client.at.directory / "data").glob("*.db*")
    )
    for secret in (used, token, SECRET, "wrong-secret-of-a-client", escaped_pem(certificate()), str(client.nonce)):
        assert secret.encode() not in kept


# --- settings, and a restart ---------------------------------------------------------------


def test_an_issuer_can_demand_proofs_and_a_used_one_stays_used_over_a_restart(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with company(tmp_path_factory.mktemp("demanded")) as made:
        made.edit("algorithms: [ES256]}", "algorithms: [ES256], proof: dpop}")
        made.edit(
            "  limits: {call_seconds: 8}", "  limits: {call_seconds: 8}\n  dpop: {nonce: none, window_seconds: 300}"
        )
        client = Prover(at=made)
        token = client.token()
        used = client.proof(token)
        with made.serving():
            assert tools(client.post(token, text=used))
            assert client.nonce is None, "no nonce is asked for or offered"
            bearer = client.send(("Authorization", f"Bearer {made.token()}"))
            assert (bearer.status_code, code(bearer)) == (401, "dpop_missing")
            assert challenge(bearer).startswith("DPoP ")
            assert challenge(client.send()).startswith("DPoP "), "there is no other way in"
            metadata = made.get("/.well-known/oauth-protected-resource", public=True).json()
            assert metadata["dpop_bound_access_tokens_required"] is True
            assert metadata["tls_client_certificate_bound_access_tokens"] is False
            cert = made.token(cnf={"x5t#S256": certificate_hash(certificate())})
            answer = client.send(("Authorization", f"Bearer {cert}"), *by_proxy(certificate()))
            assert code(answer) == "dpop_missing"
        with made.serving():
            assert code(client.post(token, text=used)) == "dpop_refused"
            assert tools(client.post(token))
