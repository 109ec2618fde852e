"""The running house with people from elsewhere: from a query that is asked again and again, and from a loaded file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from company import Company, company, said
from onbehalf.app import App, building
from onbehalf.model import Reply
from test_app import Pauses, call, inside, recorded

FEED = """
directory:
  lag_budget_seconds: @LAG@
  feeds:
    - tenant: acme
      sqlite: hr.db
      every_seconds: 1
      query: SELECT id, name, grp AS "groups", active, mail AS subject, '@ISSUER@' AS issuer FROM staff
"""


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        (made.directory / "people.yaml").write_text("tenants: {}")
        with closing(sqlite3.connect(made.directory / "hr.db")) as base:
            base.executescript(
                "CREATE TABLE staff (id TEXT, name TEXT, grp TEXT, active INTEGER, mail TEXT);"
                "INSERT INTO staff VALUES ('alice', 'Alice', 'staff', 1, 'alice-at-login'),"
                "('bob', 'Bob', '', 1, 'bob-at-login');"
            )
        yield made


def fed(around: Company, *, lag: int = 0) -> None:
    text = FEED.replace("@LAG@", str(lag)).replace("@ISSUER@", around.issuer.url)
    (around.directory / "onbehalf.yaml").write_text(around.config.read_text() + text)


def hr(around: Company, statement: str) -> None:
    with closing(sqlite3.connect(around.directory / "hr.db", isolation_level=None)) as base:
        base.execute(statement)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)


async def answered(around: Company, app: App, tool: str, wanted: str) -> Reply:
    """Call until the answer is this denial; "" for none."""
    async with asyncio.timeout(30):
        while (reply := await call(around, app, tool)).denial != wanted:
            await asyncio.sleep(0.1)
    return reply


def test_people_come_from_the_query_and_go_with_it(around: Company) -> None:
    fed(around)

    async def act(app: App, _: Pauses) -> None:
        await until(lambda: app.directory.revision == 1)
        assert (await call(around, app, "desk_write")).denial == ""
        hr(around, "UPDATE staff SET grp = '' WHERE id = 'alice'")
        await until(lambda: app.directory.revision == 2)
        assert (await call(around, app, "desk_write")).denial == "not_permitted"
        hr(around, "DELETE FROM staff WHERE id = 'alice'")
        await until(lambda: app.directory.revision == 3)
        assert (await call(around, app, "notes_list")).denial == "not_permitted"  # known, and left

    inside(around, act)
    assert [(each["before"], each["after"]) for each in recorded(around, "directory_change")] == [
        (0, 1),
        (1, 2),
        (2, 3),
    ]


def test_a_query_that_fails_keeps_the_old_people_and_is_a_problem_until_it_works(around: Company) -> None:
    fed(around)

    async def act(app: App, _: Pauses) -> None:
        await until(lambda: app.directory.revision == 1)
        hr(around, "ALTER TABLE staff RENAME TO people")
        await until(lambda: "directory acme" in app.problems)
        assert "no such table" in app.problems["directory acme"]
        assert (await call(around, app, "desk_write")).denial == ""
        hr(around, "ALTER TABLE people RENAME TO staff")
        await until(lambda: "directory acme" not in app.problems)
        assert app.directory.revision == 1

    inside(around, act)
    (refused,) = recorded(around, "directory_refused")
    assert refused["tenant"] == "acme"


def test_half_a_table_does_not_make_half_a_company_leave(around: Company) -> None:
    fed(around)
    hr(around, "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 98) "
               "INSERT INTO staff SELECT 'p' || n, 'P', '', 1, 'p' || n FROM n")  # fmt: skip

    async def act(app: App, _: Pauses) -> None:
        await until(lambda: app.directory.revision == 1)
        hr(around, "DELETE FROM staff WHERE id LIKE 'p%'")
        await until(lambda: "directory acme" in app.problems)
        assert "would deactivate 98 of 100" in app.problems["directory acme"]
        assert app.directory.revision == 1

    inside(around, act)
    told = said("people", "pull", "--deactivate-at-most", "1", "--json", "--config", around.config)
    assert (told.code, json.loads(told.out)["deactivated"]) == (0, 98)


def test_when_the_feed_is_late_writes_are_refused_and_reads_go_on_even_after_a_restart(around: Company) -> None:
    fed(around, lag=2)

    async def late(app: App, _: Pauses) -> None:
        await until(lambda: app.directory.revision == 1)
        await answered(around, app, "desk_write", "")
        hr(around, "ALTER TABLE staff RENAME TO people")
        refused = await answered(around, app, "desk_write", "directory_stale")
        assert refused.denial == "directory_stale"
        assert (await call(around, app, "notes_list")).denial == ""
        assert (await call(around, app, "desk_read")).denial == ""

    async def again(app: App, _: Pauses) -> None:
        assert (await call(around, app, "desk_write")).denial == "directory_stale"
        assert (await call(around, app, "notes_list")).denial == ""
        hr(around, "ALTER TABLE people RENAME TO staff")
        await answered(around, app, "desk_write", "")

    inside(around, late)
    written = len([each for each in around.desk.seen if each[0] == "desk_write"])
    inside(around, again)
    assert len([each for each in around.desk.seen if each[0] == "desk_write"]) == written + 1
    assert "directory_stale" in {each["decision"]["code"] for each in recorded(around, "denial")}


def test_a_file_is_loaded_beside_a_running_gateway_and_taken_at_once(around: Company) -> None:
    around.edit("gateway:\n", "gateway:\n  people: people.jsonl\n")
    lines = [{"id": "alice", "name": "Alice", "groups": ["staff"],
              "logins": [{"issuer": around.issuer.url, "subject": "alice-at-login"}]}]  # fmt: skip
    (around.directory / "people.jsonl").write_text("\n".join(map(json.dumps, lines)))

    async def act(app: App, _: Pauses) -> None:
        assert (await call(around, app, "desk_write")).denial == "person_unknown"
        told = await asyncio.to_thread(said, "people", "load", "--json", "--config", around.config)
        assert (told.code, json.loads(told.out)["people"]) == (0, 1)
        await until(lambda: app.directory.revision == 1)
        await answered(around, app, "desk_write", "")
        await app.reload()  # reads people.yaml no more, and leaves what was loaded
        assert (await call(around, app, "desk_write")).denial == ""

    inside(around, act)


def test_the_house_goes_down_while_a_feed_is_read(around: Company) -> None:
    fed(around)
    hr(around, "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 40000) "
               "INSERT INTO staff SELECT 'p' || n, 'P', '', 1, 'p' || n FROM n")  # fmt: skip

    async def run() -> None:
        async with building(around.config, pause=Pauses()):
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), 60))

    async def act(app: App, _: Pauses) -> None:
        await until(lambda: app.directory.revision == 1)
        assert (await call(around, app, "desk_write")).denial == ""

    inside(around, act)
