"""Two gateways of one resource, each a process with data of its own, that remember together in one database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from company import Company, company, onbehalf, wait_for
from postgres import run
from proving_client import Prover
from replica_house import remembering, served_twice
from state_house import state_database

ONCE = ("scopes: [desk.write], once_seconds: 0", "scopes: [desk.write], once_seconds: 600")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both gateways, and the database's DSNs: of its superuser, and of the gateways' role."""

    here: Company
    there: Company
    postgres: str
    dsn: str

    @property
    def role(self) -> str:
        return str(conninfo_to_dict(self.dsn)["user"])


@pytest.fixture(scope="module")
def pair(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with state_database(postgres) as dsn, company(tmp_path_factory.mktemp("replicas") / "here") as here:
        here.edit(*ONCE)
        with served_twice(here, dsn) as there:
            yield Pair(here=here, there=there, postgres=postgres, dsn=dsn)


def call(pair: Pair, at: Company, tool: str = "desk_write", **arguments: Any) -> Any:
    """Alice's call, which comes to one of them."""
    return at.call(tool, token=pair.here.token(), **arguments)


def code_of(result: Any) -> str:
    """The code of a refusal, "" for what was done."""
    denial = result.get("_meta", result.get("data", {})).get("onbehalf/denial")
    return str(denial["code"]) if denial else ""


def test_a_nonce_of_one_gateway_is_taken_by_the_other_and_a_proof_by_one_of_them_only(pair: Pair) -> None:
    here, there = Prover(at=pair.here), Prover(at=pair.there)
    token = here.token()
    here.post(token)
    assert here.nonce
    for first, second in ((here, there), (there, here)):
        used = here.proof(token)
        assert first.post(token, text=used).status_code == 200
        again = second.post(token, text=used)
        assert again.status_code == 401
        assert again.json()["error"]["data"]["onbehalf/denial"]["code"] == "dpop_refused"


def test_of_requests_with_one_proof_that_come_to_both_at_once_one_is_taken(pair: Pair) -> None:
    here, there = Prover(at=pair.here), Prover(at=pair.there)
    token = here.token()
    here.post(token)
    for _ in range(5):
        used = here.proof(token)
        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(lambda at: at.post(token, text=used).status_code, (here, there) * 3))  # noqa: B023
        assert sorted(answers) == [200] + [401] * 5


def test_a_writing_call_that_comes_to_both_at_once_is_done_once(pair: Pair) -> None:
    seen = len(pair.here.desk.seen)
    for number in range(5):
        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(lambda at: call(pair, at, word=f"w{number}"), (pair.here, pair.there) * 2))  # noqa: B023
        assert sorted(code_of(result) for result in results)[0] == ""
        assert sum(code_of(result) == "" for result in results) == 1, results
    assert len(pair.here.desk.seen) == seen + 5


def test_who_is_revoked_by_a_command_is_refused_by_both_and_let_in_again_by_both(pair: Pair) -> None:
    token = pair.here.token("bob-at-login")

    def bob(at: Company) -> str:
        return code_of(at.call("notes_list", token=token))

    both = (pair.here, pair.there)
    assert [bob(at) for at in both] == ["not_permitted"] * 2
    said = onbehalf("revoke", "person", "bob", "--reason", "laptop lost", "--config", pair.there.config)
    assert said.returncode == 0, said.stderr
    for at in both:
        wait_for(lambda: bob(at) == "blocked", what="blocked")  # noqa: B023
        assert not code_of(call(pair, at, "notes_list"))
    assert "person bob of acme  stopped" in onbehalf("revoke", "list", "--config", pair.here.config).stdout
    checked = onbehalf("check", "--as", "acme/bob", "--config", pair.here.config)
    told = " ".join(checked.stdout.split())
    assert "this person is stopped" in told
    assert "remember together is there" in told
    assert "`fsync` off" in told, "as the server of the tests has it"
    assert onbehalf("revoke", "lift", "1", "--config", pair.here.config).returncode == 0
    for at in both:  # a token from before it stays worth nothing
        wait_for(lambda: bob(at) == "token_revoked", what="lifted")  # noqa: B023


def test_while_the_database_is_away_every_call_is_refused_and_goes_on_when_it_is_back(pair: Pair) -> None:
    run(pair.postgres, f"ALTER ROLE {pair.role} NOLOGIN")
    try:
        cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{pair.role}'"
        run(pair.postgres, cut)
        for at in (pair.here, pair.there):
            wait_for(lambda: code_of(call(pair, at, "notes_list")) == "directory_unavailable", what="refused")  # noqa: B023
            seen = len(at.desk.seen)
            assert code_of(call(pair, at, word="away")) in ("directory_unavailable", "once_unavailable")
            assert len(at.desk.seen) == seen
        checked = onbehalf("check", "--config", pair.here.config)
        assert "the database of `gateway.state` cannot be reached" in " ".join(checked.stdout.split())
        refused = onbehalf("revoke", "list", "--config", pair.here.config)
        assert refused.returncode != 0
        assert "cannot be used" in refused.stderr + refused.stdout
    finally:
        run(pair.postgres, f"ALTER ROLE {pair.role} LOGIN")
    for at in (pair.here, pair.there):
        wait_for(lambda: code_of(call(pair, at, "notes_list")) == "", what="back", seconds=60)  # noqa: B023
        assert code_of(call(pair, at, word=f"back at {at.gateway}")) == ""


def test_a_gateway_that_could_change_the_tables_does_not_start_and_says_what_to_do(
    tmp_path: Path, postgres: str
) -> None:
    with company(tmp_path / "it", desk=False) as made, state_database(postgres) as dsn:
        role = conninfo_to_dict(dsn)["user"]
        remembering(made, dsn)
        run(postgres, f"ALTER ROLE {role} SUPERUSER")
        said = onbehalf("serve", "--config", made.config)
        assert said.returncode != 0
        assert "its role may change the tables" in said.stderr
        assert "onbehalf db state" in said.stderr
        run(postgres, f"ALTER ROLE {role} NOSUPERUSER")
