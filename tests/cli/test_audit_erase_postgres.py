"""`audit erase` and `audit hold` where the record is in PostgreSQL: by a login of their own, beside the gateways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from company import Company, company, said
from onbehalf.errors import LedgerCorrupt
from onbehalf.verifier.check import check
from onbehalf.verifier.report import Verdict

SETTINGS = """gateway:
  ledger:
    postgres:
      dsn: "env:LEDGER_DSN"
      eraser: "env:ERASER_DSN"
      insecure_durability_for_tests: true
"""
BASIS = ("--basis", "GDPR art. 17(1)(a)")


@pytest.fixture
def recorded(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    """Alice and Bob list notes, and somebody strange is refused."""
    name = conninfo_to_dict(database)["dbname"]
    monkeypatch.setenv("LEDGER_OWNER", database)
    with company(tmp_path / "it") as made:
        made.edit("gateway:\n", SETTINGS)
        for variable, role in (("LEDGER_DSN", "writer"), ("ERASER_DSN", "eraser")):
            monkeypatch.setenv(variable, make_conninfo(database, user=f"{role}_{name}", password="x"))
        applied = said("db", "ledger", "-c", made.config, "--apply", "env:LEDGER_OWNER")
        assert applied.code == 0, applied
        with psycopg.connect(database, autocommit=True) as connection:
            for role in ("writer", "eraser"):
                made_role = f"CREATE ROLE {role}_{name} LOGIN PASSWORD 'x' IN ROLE onbehalf_log_{role}"
                connection.execute(made_role.encode())
        made.notes_listed("alice-at-login", "bob-at-login", "nobody-at-login")
        yield made


def people(made: Company) -> list[str]:
    """Who is told of on record, each once."""
    return sorted({each["person"] for each in made.audit("list", "-n", "1000")["records"] if each["person"]})


def test_erasure_and_holds_are_said_and_done_as_with_a_file(recorded: Company, tmp_path: Path) -> None:
    erase = ("audit", "erase", "-c", recorded.config, "--subject", "acme/alice", *BASIS, "--yes")
    assert people(recorded) == ["acme/alice", "acme/bob", "nobody-at-login"]
    made = said("audit", "hold", "add", "acme/alice", "-c", recorded.config, "--reason", "case 4711")
    assert (made.code, made.out.startswith("Hold 1 on acme/alice stands. Record ")) == (0, True), made
    answer = said(*erase)
    assert (answer.code, "a legal hold stands" in answer.err) == (2, True)
    assert said("audit", "hold", "lift", "1", "-c", recorded.config, "--reason", "closed").code == 0
    assert said("audit", "hold", "list", "-c", recorded.config).out == "No legal hold stands.\n"
    answer = said(*erase)
    assert answer.code == 0, answer.err
    assert "4 payloads of acme/alice" in answer.out  # the hold's records are about her as well
    assert people(recorded) == ["acme/bob", "nobody-at-login"]
    login = f"{recorded.issuer.url} nobody-at-login"
    found = recorded.audit("erase", "--login", login, *BASIS, "--yes")["erased"]
    assert found["count"] == 1
    assert people(recorded) == ["acme/bob"]
    report = recorded.audit("verify")
    assert (report["ok"], report["erased"], report["findings"]) == (True, 5, [])
    assert said("audit", "export", "-c", recorded.config, "--open", "all", tmp_path / "all.zip").code == 0
    key = (recorded.directory / "data" / "keys" / "log.pub").read_text().split()[0]
    assert check(tmp_path / "all.zip", key=key).verdict is Verdict.erased
    recorded.notes_listed("alice-at-login")
    assert people(recorded) == ["acme/alice", "acme/bob"]


def test_keys_that_came_back_stop_a_gateway_until_what_is_pending_is_carried_out(
    recorded: Company, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        keys = owner.execute("SELECT id, label, wrapped FROM onbehalf_keys.key").fetchall()
        assert said("audit", "erase", "-c", recorded.config, "--subject", "acme/bob", *BASIS, "--yes").code == 0
        owner.execute("TRUNCATE onbehalf_keys.key, onbehalf_keys.request")
        for each in keys:
            owner.execute("INSERT INTO onbehalf_keys.key VALUES (%s, %s, %s)", each)
    with pytest.raises(LedgerCorrupt, match="an older copy of it was put back") as refused:
        recorded.notes_listed("alice-at-login")
    assert "audit erase --pending" in refused.value.hint
    answer = said("audit", "erase", "--pending", "-c", recorded.config)
    assert (answer.code, answer.out) == (0, "Nothing is left to be carried out.\n"), answer
    recorded.notes_listed("alice-at-login")
    assert "acme/bob" not in people(recorded)


def test_without_a_login_that_erases_nothing_is_asked(recorded: Company) -> None:
    recorded.edit('      eraser: "env:ERASER_DSN"\n', "")
    for arguments in (("erase", "--subject", "acme/alice", *BASIS), ("hold", "add", "acme/alice", "--reason", "x")):
        answer = said("audit", *arguments, "-c", recorded.config)
        assert answer.code == 2
        assert "`gateway.ledger.postgres.eraser` is missing" in answer.err
        assert "what to do" in answer.err
