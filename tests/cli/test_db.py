"""`db wall` as somebody uses it who puts a database behind the gateway, along docs/your-database.md."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from company import Company, company, said
from doors.postgres_house import FOREIGN, OWN, PASSWORD, TABLES, drop_roles, logged_in
from postgres import PROGRAMS, run

DOCUMENT = (Path(__file__).parents[2] / "docs" / "your-database.md").read_text(encoding="utf-8")
POLICIES = """
@id("reviews") @doc("Staff read and note reviews.") @remedy("Ask for the group staff.")
permit (principal in Group::"acme/staff", action in [Action::"readReview", Action::"noteReview"], resource is Review);
"""
SCHEMA = """
entity Review { tenant: Tenant, subject: User, score: Long };
action readReview, noteReview appliesTo { principal: User, resource: [Tool, Review], context: Context };
"""


@pytest.fixture
def base(database: str) -> str:
    drop_roles(database)
    run(database, TABLES)
    return database


@pytest.fixture
def around(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    """A company whose configuration has what the document says, and both DSNs in the environment."""
    with company(tmp_path / "it") as made:
        reading, writing, *_ = re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)
        assert 'reader: "env:HR_READER"' in reading
        reading = reading.replace('  reader: "env:HR_READER"', '  reader: "env:HR_READER"\n  writer: "env:HR_WRITER"')
        made.edit("upstreams:\n", "upstreams:\n" + indent(reading + writing, "  "))
        for name, text in (("reviews.cedar", POLICIES), ("reviews.cedarschema", SCHEMA)):
            (made.directory / "policies" / name).write_text(text, encoding="utf-8")
        (made.directory / "secrets").mkdir()
        (made.directory / "secrets" / "wall.key").write_text("0123456789abcdef" * 4 + "\n")
        monkeypatch.setenv("HR_READER", logged_in(base, "gw_ro"))
        monkeypatch.setenv("HR_WRITER", logged_in(base, "gw_rw"))
        yield made


def psql(dsn: str, text: str) -> str:
    """The text as somebody feeds it to psql; what that says."""
    assert PROGRAMS is not None
    done = subprocess.run(
        (PROGRAMS / "psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", dsn), input=text, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(around: Company, base: str) -> None:
    wall = said("db", "wall", "-c", around.config)
    assert (wall.code, wall.err) == (0, "")
    for _ in range(2):  # it can be run again
        psql(base, wall.out)
    key = said("db", "wall", "--key", "-c", around.config)
    assert (key.code, key.err) == (0, "")
    psql(base, key.out)
    for role in ("gw_ro", "gw_rw"):
        run(base, f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")


def findings(around: Company) -> dict[str, str]:
    told = said("check", "-c", around.config)
    return dict(re.findall(r"^problem  ([^:]+): (.*)$", told.out, flags=re.MULTILINE))


def rows_of(result: Any) -> Any:
    return result["structuredContent"]["rows"]


def test_somebody_who_follows_the_document_has_a_wall_that_stands(around: Company, base: str) -> None:
    assert "cannot be read" in findings(around)["upstream hr"]  # the role is not there yet
    built(around, base)
    told = said("check", "-c", around.config)
    assert "upstream hr: its wall stands" in told.out
    assert findings(around) == {}
    with around.serving():
        (one, *_) = rows = rows_of(around.call("reviews_list", subject="bob"))
        assert len(rows) == OWN
        assert one == {"tenant": "acme", "id": 1, "subject_id": "bob", "score": 1, "note": "ours 1"}
        assert rows_of(around.call("reviews_list", subject="eve")) == []
        assert rows_of(around.call("reviews_note", id=1, note="new"))[0] == {"id": 1}
        assert "denied" in str(around.call("reviews_note", id=1001, note="new")).lower()
    assert run(base, "SELECT id FROM reviews WHERE note = 'new'") == [(1,)]


def test_a_statement_that_forgets_the_tenant_fetches_no_row_of_another(around: Company, base: str) -> None:
    built(around, base)
    around.edit("WHERE tenant_id = :tenant AND subject_id = :subject", "WHERE :tenant <> '' AND :subject <> ''")
    with around.serving():
        assert len(rows_of(around.call("reviews_list", subject="eve"))) == OWN
    assert run(base, "SELECT count(*) FROM reviews") == [(OWN + FOREIGN,)]
    text = (around.directory / "gateway.log").read_text(encoding="utf-8")
    assert "0123456789abcdef" not in text
    assert PASSWORD not in text


def test_without_the_wall_the_gateway_does_not_serve(around: Company, base: str) -> None:
    built(around, base)
    run(base, "ALTER TABLE reviews NO FORCE ROW LEVEL SECURITY")
    assert "row level security of public.reviews is not forced" in findings(around)["upstream hr"]
    told = said("serve", "-c", around.config)
    assert told.code == 2
    assert "is not forced" in told.err
    assert "onbehalf db wall" in told.err


def test_the_wall_is_off_only_by_a_key_named_for_its_danger(around: Company, base: str) -> None:
    built(around, base)
    around.edit('    wall_key: "file:secrets/wall.key"  # see 2\n', "")
    assert "has no `wall_key`" in findings(around)["upstream hr"]
    around.edit("    kind: postgres\n", "    kind: postgres\n    insecure_without_wall: true\n")
    assert findings(around) == {}
    assert "`insecure_without_wall` is on" in said("check", "-c", around.config).out


def test_a_bad_or_missing_secret_is_named_and_never_shown(around: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HR_READER", "hunter2 is no DSN")
    told = findings(around)["upstream hr"]
    assert "`reader` refers to no DSN" in told
    assert "hunter2" not in told
    monkeypatch.delenv("HR_READER")
    assert "has no `HR_READER`" in findings(around)["upstream hr"]
    (around.directory / "secrets" / "wall.key").write_text("short")
    assert "has 5 bytes" in findings(around)["upstream hr"]


def test_the_statement_with_the_key_and_an_unknown_upstream(around: Company) -> None:
    assert said("db", "wall", "hr", "--key", "-c", around.config).out.startswith("INSERT INTO onbehalf.keys")
    told = said("db", "wall", "notes", "-c", around.config)
    assert told.code == 2
    assert "name one of `hr`" in told.err


def test_a_gateway_without_such_a_database_is_told_so(tmp_path: Path) -> None:
    with company(tmp_path / "it") as made:
        told = said("db", "wall", "-c", made.config)
    assert told.code == 2
    assert "no upstream is of kind `postgres`" in told.err
