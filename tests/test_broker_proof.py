"""The broker as authorization server of bound tokens (RFC 9449 sections 5 and 10), and what they are worth."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest

from broker_house import Asking, BrokerHouse, Browser, broker_house
from identify.minting import Key, key_for
from identify.proving import proof
from onbehalf.doors.broker_sqlite import SqliteBroker
from proving_client import Prover

SERVER = """  clients:
    - {id: server, name: A Server, redirect_uris: ["http://127.0.0.1/back"], client_secret: "file:server.secret"}"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHouse]:
    directory = tmp_path_factory.mktemp("broker-proof")
    with broker_house(directory, **{"  clients:": SERVER}) as made:
        (directory / "server.secret").write_text("the secret of a server's client")
        with made.company.serving():
            yield made


class Holder:
    """A client's key at the token endpoint. `nonce` is the last one given."""

    def __init__(self, house: BrokerHouse, name: str = "client") -> None:
        self.house, self.key = house, key_for("ES256", name)
        self.nonce: str | None = None

    def proof(self, **changes: Any) -> str:
        here = {"htu": f"{self.house.at}/oauth/token", "iat": int(time.time()), "nonce": self.nonce}
        return proof(token=None, key=self.key, **{**here, **changes})

    def post(self, form: dict[str, str], *proofs: str) -> httpx2.Response:
        lines = [("DPoP", each) for each in proofs]
        answer = httpx2.post(f"{self.house.at}/oauth/token", data=form, headers=lines, timeout=20, trust_env=False)
        self.nonce = answer.headers.get("dpop-nonce", self.nonce)
        return answer

    def token(self, form: dict[str, str], **changes: Any) -> httpx2.Response:
        """Ask, and once more with the nonce that is asked for."""
        answer = self.post(form, self.proof(**changes))
        again = answer.status_code == 400 and answer.json()["error"] == "use_dpop_nonce"
        return self.post(form, self.proof(**changes)) if again else answer

    def code(self, **changes: Any) -> dict[str, str]:
        """A code that a person gave, as the form that redeems it."""
        client = str(changes.pop("client_id", "desktop"))
        asking = Asking(client_id=client, changes=changes)
        return {
            "grant_type": "authorization_code", "client_id": client, "code": self.house.code(asking),
            "redirect_uri": asking.redirect_uri, "code_verifier": asking.verifier,
        }  # fmt: skip

    def refresh(self, token: str, **more: str) -> dict[str, str]:
        return {"grant_type": "refresh_token", "client_id": "desktop", "refresh_token": token, **more}


def refused(answer: httpx2.Response) -> str:
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"])


def prover(house: BrokerHouse, key: Key) -> Prover:
    return Prover(at=house.company, key=key)


def test_a_token_got_with_a_proof_is_bound_to_its_key_and_works_with_it_only(house: BrokerHouse) -> None:
    holder = Holder(house)
    answer = holder.token(holder.code())
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "DPoP"
    token = answer.json()["access_token"]
    rows = prover(house, holder.key).call(token, "notes_list")["result"]["structuredContent"]["rows"]
    assert [row["text"] for row in rows] == ["mine"]
    stolen = prover(house, key_for("ES256", "thief")).post(token)
    assert stolen.status_code == 401
    assert house.company.post("tools/list", token=token).status_code == 401


def test_without_a_proof_tokens_are_bearer_tokens_as_before(house: BrokerHouse) -> None:
    tokens = house.tokens()
    assert tokens["token_type"] == "Bearer"
    assert house.company.post("tools/list", token=tokens["access_token"]).status_code == 200
    assert house.refreshed(tokens["refresh_token"]).json()["token_type"] == "Bearer"


def test_a_nonce_is_asked_for_before_the_code_is_spent(house: BrokerHouse) -> None:
    holder = Holder(house)
    form = holder.code()
    first = holder.post(form, holder.proof())
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    assert first.headers["dpop-nonce"]
    assert holder.post(form, holder.proof()).status_code == 200


def test_a_proof_that_is_not_of_this_request_or_used_gives_nothing(house: BrokerHouse) -> None:
    holder = Holder(house)
    holder.post({"client_id": "desktop"}, holder.proof())
    form = holder.code()
    for changes in (
        {"htu": f"{house.at}/mcp"}, {"htm": "GET"}, {"iat": int(time.time()) - 90}, {"jti": None},
        {"header": {"typ": "jwt"}}, {"header": {"alg": "none"}}, {"header": {"jwk": holder.key.as_dict(private=True)}},
    ):  # fmt: skip
        assert refused(holder.post(form, holder.proof(**changes))) == "invalid_dpop_proof", changes
    assert holder.post(form, holder.proof(), holder.proof()).status_code == 400
    used = holder.proof()
    refresh = holder.post(form, used).json()["refresh_token"]
    assert refused(holder.post(holder.refresh(refresh), used)) == "invalid_dpop_proof"


def test_11_9_a_code_that_was_asked_for_with_a_key_is_worth_nothing_without_it(house: BrokerHouse) -> None:
    holder, thief = Holder(house), Holder(house, "thief")
    form = holder.code(dpop_jkt=holder.key.thumbprint())
    assert refused(thief.token(form)) == "invalid_grant"
    assert refused(house.token(**holder.code(dpop_jkt=holder.key.thumbprint()))) == "invalid_grant"
    assert holder.token(holder.code(dpop_jkt=holder.key.thumbprint())).status_code == 200


@pytest.mark.parametrize("jkt", ["", "x", "a" * 44])
def test_a_thumbprint_that_is_none_is_shown_as_a_fault(house: BrokerHouse, jkt: str) -> None:
    page = Browser().get(house.authorize(Asking(changes={"dpop_jkt": jkt})))
    assert page.status == 400
    assert "dpop_jkt" in page.text


def test_a_public_clients_refresh_token_is_bound_to_its_key_and_who_found_it_cannot_end_the_login(
    house: BrokerHouse,
) -> None:
    holder, thief = Holder(house), Holder(house, "thief")
    first = holder.token(holder.code()).json()
    assert refused(thief.token(thief.refresh(first["refresh_token"]))) == "invalid_grant"
    assert refused(house.token(**holder.refresh(first["refresh_token"]))) == "invalid_grant"
    second = holder.token(holder.refresh(first["refresh_token"]))
    assert second.status_code == 200, second.text
    assert second.json()["token_type"] == "DPoP"
    assert prover(house, holder.key).post(second.json()["access_token"]).status_code == 200
    assert refused(holder.token(holder.refresh(first["refresh_token"]))) == "invalid_grant", "rotated"


def test_a_refresh_with_a_proof_binds_what_follows(house: BrokerHouse) -> None:
    holder, thief = Holder(house), Holder(house, "thief")
    bound = holder.token(holder.refresh(house.tokens()["refresh_token"])).json()
    assert bound["token_type"] == "DPoP"
    assert refused(thief.token(thief.refresh(bound["refresh_token"]))) == "invalid_grant"
    assert holder.token(holder.refresh(bound["refresh_token"])).status_code == 200


def test_a_client_with_a_secret_may_change_its_key(house: BrokerHouse) -> None:
    holder, other = Holder(house), Holder(house, "other")
    own = {"client_id": "server", "client_secret": "the secret of a server's client"}
    first = holder.token({**holder.code(client_id="server"), **own}).json()
    second = other.token(other.refresh(first["refresh_token"], **own))
    assert second.status_code == 200, second.text
    assert prover(house, other.key).post(second.json()["access_token"]).status_code == 200
    assert prover(house, holder.key).post(second.json()["access_token"]).status_code == 401


def test_a_client_that_says_it_always_proves_a_key_gets_nothing_without(house: BrokerHouse) -> None:
    document = {"redirect_uris": ["http://127.0.0.1/back"], "dpop_bound_access_tokens": True}
    registered = httpx2.post(f"{house.at}/oauth/register", json=document, timeout=20, trust_env=False).json()
    assert registered["dpop_bound_access_tokens"] is True
    holder = Holder(house)
    form = holder.code(client_id=registered["client_id"])
    assert refused(house.token(**form)) == "invalid_dpop_proof"
    assert holder.token(form).json()["token_type"] == "DPoP"
    wrong = {**document, "dpop_bound_access_tokens": "yes"}
    answer = httpx2.post(f"{house.at}/oauth/register", json=wrong, timeout=20, trust_env=False)
    assert answer.json()["error"] == "invalid_client_metadata"


def test_a_bound_token_is_revoked_like_any(house: BrokerHouse) -> None:
    holder = Holder(house)
    token = holder.token(holder.code()).json()["access_token"]
    client = prover(house, holder.key)
    assert client.post(token).status_code == 200
    form = {"client_id": "desktop", "token": token}
    assert httpx2.post(f"{house.at}/oauth/revoke", data=form, timeout=20, trust_env=False).status_code == 200
    assert client.post(token).status_code == 401


def test_the_metadata_names_the_algorithms_of_proofs(house: BrokerHouse) -> None:
    found = house.company.get("/.well-known/oauth-authorization-server", public=True).json()
    assert found["dpop_signing_alg_values_supported"] == ["ES256", "EdDSA", "Ed25519", "PS256", "RS256"]


def test_proofs_of_who_has_no_grant_are_not_remembered(house: BrokerHouse) -> None:
    holder = Holder(house, "nobody")
    holder.post({"client_id": "desktop"}, holder.proof())
    form = holder.refresh("nothing")
    for _ in range(3):
        assert refused(holder.post(form, holder.proof())) == "invalid_grant"
    with closing(sqlite3.connect(house.company.directory / "data" / "proofs.db")) as file:
        kept = file.execute("SELECT count(*) FROM proof WHERE key = ?", (holder.key.thumbprint(),)).fetchone()
    assert kept == (0,)


def test_grants_from_before_keys_are_taken_over(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("old") / "broker.db"
    store = SqliteBroker.open(path)
    store.close()
    with closing(sqlite3.connect(path)) as file:
        file.executescript("ALTER TABLE granted DROP COLUMN key; ALTER TABLE code DROP COLUMN key;")
        file.execute("INSERT INTO granted VALUES ('f', 'c', 's', '', 'r', 'a', 1, 99, X'7b7d', '')")
        file.commit()
    for _ in range(2):
        SqliteBroker.open(path).close()
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT family, key FROM granted").fetchall() == [("f", "")]
