# ruff: noqa: E501  # what is told reads best in one line
"""What security events did is kept once, as a whole, in order, and for good."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doors.directory_house import TEXT, caller
from onbehalf.doors import revocations_signalled
from onbehalf.doors.directory_named import named
from onbehalf.doors.directory_revoked import RevokedPeople
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.revocations_signalled import SignalStore, streams_told
from onbehalf.doors.revocations_sqlite import Revocations
from onbehalf.errors import Blocked, SignalsUnavailable, TokenRevoked
from onbehalf.model import UnixTime
from onbehalf.model_signals import Does, Effect, Target
from onbehalf.validate import people
from onbehalf.validate.signals import RISC, Wanted

NOW = UnixTime(10_000)
ALICE = Target(kind="person", tenant="acme", name="alice")
_BEFORE = """
CREATE TABLE revocation (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL CHECK (kind IN ('person', 'client', 'tenant')),
  tenant TEXT NOT NULL CHECK (tenant <> ''), name TEXT NOT NULL CHECK ((name = '') = (kind = 'tenant')),
  at INTEGER NOT NULL, blocks INTEGER NOT NULL CHECK (blocks IN (0, 1)), by TEXT NOT NULL, reason TEXT NOT NULL,
  lifted INTEGER, lifted_by TEXT NOT NULL DEFAULT '', noted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TRIGGER revocation_kept BEFORE DELETE ON revocation
BEGIN SELECT RAISE(ABORT, 'a revocation is lifted, never removed'); END;
INSERT INTO revocation VALUES (7, 'person', 'acme', 'bob', 5, 1, 'root', 'x', NULL, '', 1);
"""


def effect(does: Does = "end", at: int = NOW, target: Target = ALICE) -> Effect:
    names = {"block": "account-disabled", "let_go": "account-enabled", "end": "session-revoked", "nothing": "x"}
    return Effect(does=does, event=f"{RISC}{names[does]}", at=UnixTime(at), targets=(target,), why="")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "revocations.db"


@pytest.fixture
def store(path: Path) -> Iterator[SignalStore]:
    made = SignalStore.open(path)
    yield made
    made.close()


def take(store: SignalStore, id_: str, *effects: Effect, stream: str = "okta", until: int = NOW + 100) -> bool:
    facts: dict[str, Any] = {"id": id_}
    return asyncio.run(store.take(stream, id_, effects, facts=facts, now=NOW, until=UnixTime(until)))


def blocks(path: Path) -> list[tuple[str, str, bool]]:
    with closing(sqlite3.connect(path)) as file:
        return [
            (name, reason, lifted is None)
            for name, reason, lifted in file.execute("SELECT name, reason, lifted FROM revocation")
        ]


def test_an_event_counts_once_also_for_the_next_process(path: Path) -> None:
    for first in (True, False):
        store = SignalStore.open(path)
        assert take(store, "one", effect()) is first
        assert take(store, "one", effect("block")) is False
        assert take(store, "one", stream="other") is first
        store.close()
    assert blocks(path) == []


def test_an_event_and_all_that_comes_of_it_are_kept_or_none_of_it(store: SignalStore, path: Path) -> None:
    nobody = Target(kind="person", tenant="", name="x")  # the table refuses it
    with pytest.raises(SignalsUnavailable):
        take(store, "one", effect("block"), effect(target=nobody))
    assert blocks(path) == []
    assert asyncio.run(store.pending()) == []
    assert take(store, "one", effect("block")) is True  # it comes again


def test_what_is_not_on_record_is_known_until_it_is(store: SignalStore) -> None:
    take(store, "one")
    assert asyncio.run(store.pending()) == [("okta", "one", {"id": "one"})]
    asyncio.run(store.noted("okta", "one"))
    assert asyncio.run(store.pending()) == []
    assert take(store, "one") is False


def test_a_file_from_before_there_were_signals_keeps_what_it_has(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.executescript(_BEFORE)
    for _ in range(2):
        file_ = Revocations.open(path)
        [kept] = file_.all()
        assert (kept.id, kept.name, kept.noted, kept.stops) == (7, "bob", 1, True)
        file_.close()
    store = SignalStore.open(path)
    take(store, "one", effect("block", target=Target(kind="login", tenant="acme", name="https://x alice")))
    store.close()
    assert [name for name, _, _ in blocks(path)] == ["bob", "https://x alice"]
    with closing(sqlite3.connect(path)) as file, pytest.raises(sqlite3.IntegrityError, match="never removed"):
        file.execute("DELETE FROM revocation")


def test_an_account_is_let_go_by_its_own_stream_only_and_never_from_what_a_person_did(
    store: SignalStore, path: Path
) -> None:
    by_hand = Revocations.open(path)
    by_hand.add("person", "acme", "alice", at=UnixTime(1), blocks=True, by="root", reason="account-disabled x")
    take(store, "one", effect("block", 10))
    take(store, "two", effect("let_go", 20), stream="other")
    assert [stands for _, _, stands in blocks(path)] == [True, True]
    take(store, "three", effect("let_go", 20))
    assert [stands for _, _, stands in blocks(path)] == [True, False]
    by_hand.close()


def test_disabled_twice_is_one_block(store: SignalStore, path: Path) -> None:
    take(store, "one", effect("block", 10))
    take(store, "two", effect("block", 11))
    assert len(blocks(path)) == 1


@given(st.permutations([(does, at) for at in (10, 20, 30) for does in ("block", "let_go", "end")]))
@settings(max_examples=60, deadline=None)
def test_in_whatever_order_events_come_the_newest_word_on_an_account_counts(order: list[tuple[Does, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "revocations.db"
        store = SignalStore.open(path)
        for number, (does, at) in enumerate(order):
            take(store, str(number), effect(does, at))
        store.close()
        file = Revocations.open(path)
        ended = {each.name: each.at for each in file.ended(after=0)}
        stopped = any(each.stops for each in file.all())
        file.close()
    assert ended["alice"] == 30
    if not stopped:  # the last word of equally old ones is the one that came last
        assert order.index(("let_go", 30)) > order.index(("block", 30))
    else:
        assert order.index(("block", 30)) > order.index(("let_go", 30))


def test_so_many_events_are_known_again_and_no_more(
    store: SignalStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations_signalled, "_KEPT", 20)
    monkeypatch.setattr(revocations_signalled, "_TIDY_EVERY", 2)
    for number in range(60):
        take(store, str(number), until=NOW + number)
        asyncio.run(store.noted("okta", str(number)))
    with closing(sqlite3.connect(path)) as file:
        (kept,) = file.execute("SELECT count(*) FROM signal").fetchone()
    assert kept <= 22
    assert take(store, "59") is False


def test_events_that_are_not_on_record_are_never_forgotten(
    store: SignalStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations_signalled, "_KEPT", 5)
    monkeypatch.setattr(revocations_signalled, "_TIDY_EVERY", 2)
    for number in range(30):
        take(store, str(number), until=1)
    assert len(asyncio.run(store.pending())) == 30


def test_a_store_that_is_closed_takes_nothing(path: Path) -> None:
    store = SignalStore.open(path)
    store.close()
    with pytest.raises(SignalsUnavailable):
        take(store, "one")


def test_when_a_stream_was_heard_is_kept_and_never_goes_back(store: SignalStore, path: Path) -> None:
    assert streams_told(path.with_name("none.db")) == {}
    asyncio.run(store.heard("okta", now=NOW, status="paused"))
    asyncio.run(store.heard("okta", now=UnixTime(NOW - 5)))
    assert (streams_told(path)["okta"].heard, streams_told(path)["okta"].status) == (NOW, "paused")


def test_what_ended_refuses_older_tokens_at_once_and_a_newer_one_not(
    tmp_path: Path, store: SignalStore, path: Path
) -> None:
    directory = SqliteDirectory.open(tmp_path / "directory.db")
    directory.load(people.parse(TEXT))
    mine = Revocations.open(path)
    revoked = RevokedPeople(directory, mine, note=lambda kind, facts: None, monotonic=lambda: 0.0)
    who = caller("u-1")
    issued, login = (
        who.evidence.issued_at,
        Target(kind="login", tenant=who.tenant, name=f"{who.evidence.issuer} {who.subject}"),
    )

    def asked() -> Any:
        return asyncio.run(revoked.person(who))

    assert asked().active
    take(store, "other", effect(at=issued + 99, target=Target(kind="login", tenant="globex", name=login.name)))
    take(store, "older", effect(at=issued - 31, target=login))
    revoked.look()
    assert asked().active
    take(store, "now", effect(at=issued - 30, target=login))
    assert asked().active  # the clock of this test stands still, and nobody said that there is something to see
    revoked.look()
    with pytest.raises(TokenRevoked):
        asked()
    take(store, "off", effect("block", at=1, target=Target(kind="tenant", tenant=who.tenant, name="")))
    revoked.look()
    with pytest.raises(Blocked):
        asked()
    mine.close()
    directory.close()


def test_everybody_of_that_name_is_found_in_that_tenant_alone(tmp_path: Path) -> None:
    directory = SqliteDirectory.open(tmp_path / "directory.db")
    directory.load(people.parse("""
tenants:
  acme:
    people:
      Ann: {name: A, attributes: {mail: ANN@acme.example, n: 7}, logins: [{issuer: "https://i", subject: Ann-1}]}
      bob: {name: B, attributes: {mail: ann@acme.example}, logins: [{issuer: "https://i", subject: ann-1}, {issuer: "https://j", subject: ANN-1}]}
  globex:
    people: {ann: {name: C, attributes: {mail: ann@acme.example}}}
"""))  # fmt: skip
    directory.close()

    def found(what: str, value: str, tenant: str = "acme", *, exact: bool = False) -> list[str]:
        issuer = "https://i" if what == "login" else ""
        wanted = Wanted(tenant=tenant, what=what, value=value, issuer=issuer, exact=exact)
        return list(named(tmp_path / "directory.db", wanted))

    assert found("attribute:mail", "Ann@Acme.example") == ["Ann", "bob"]
    assert found("attribute:mail", "%") == []
    assert found("attribute:n", "7") == []
    assert found("attribute:mail') OR 1=1 --", "x") == []
    assert found("attribute:mail", "ann@acme.example", exact=True) == ["bob"]
    assert found("person", "ANN") == ["Ann"]
    assert found("person", "ANN", exact=True) == ["ANN"]
    assert found("login", "ann-1", exact=True) == ["ann-1"]
    assert found("login", "ann-1") == ["Ann-1", "ann-1"]
    assert found("attribute:mail", "ann@acme.example", tenant="globex") == ["ann"]
    assert found("person", "x", tenant="nobody") == ["x"]
