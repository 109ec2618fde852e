"""A scoped SELECT against one that a person wrote by hand for the same question, on many rows: time and query plan.

    bench/scoped.py [--reviews 1000000] [--people 100000] [--postgres]

SQLite in a file of its own; with --postgres a server of its own, as the tests start one. The goal is a ratio of at most
1.5 for a manager of some fifty people, with the policies of the demo: reports, oneself, HR.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.engine_cedar_scope import rows_table
from onbehalf.model import Entity, Person, Ref, Rows
from onbehalf.validate import questions
from onbehalf.validate.pushdown_sql import Dialect
from onbehalf.validate.pushdown_terms import Closure, Column, Layout, Table
from validate import pushdown_house as house

ATTRIBUTES = {"subject": ("subject_id", "User"), "author": ("author_id", "User"), "period": ("period", "String"),
              "status": ("status", "String"), "rating": ("rating", "Long")}  # fmt: skip
SHAPE = Rows(type="Review", at=("rows",), id="id", tenant="tenant", attributes=ATTRIBUTES)
LAYOUT = Layout(
    tables={
        "User": Table(
            name="people", id="id", tenant="tenant",
            attributes={"position": Column(name="position", kind="Position", required=False)},
        )
    },
    closures={
        ("Position", "Position"): Closure(name="position_tree", tenant="tenant", below="below", above="above"),
    },
)  # fmt: skip
DDL = """
CREATE TABLE people (tenant TEXT NOT NULL, id TEXT NOT NULL, position TEXT, PRIMARY KEY (tenant, id));
CREATE TABLE position_tree (tenant TEXT NOT NULL, below TEXT NOT NULL, above TEXT NOT NULL,
    PRIMARY KEY (tenant, above, below));
CREATE TABLE reviews (tenant TEXT NOT NULL, id TEXT NOT NULL, subject_id TEXT NOT NULL, author_id TEXT NOT NULL,
    period TEXT NOT NULL, rating BIGINT NOT NULL, status TEXT NOT NULL, PRIMARY KEY (tenant, id));
"""
INDEX = "CREATE INDEX reviews_by_subject ON reviews (tenant, subject_id)"
STATEMENT = "SELECT * FROM reviews WHERE period = :period"
BY_HAND = """
SELECT r.* FROM reviews r WHERE r.tenant = :tenant AND r.period = :period AND (
  r.subject_id IN (SELECT p.id FROM position_tree t JOIN people p ON p.tenant = t.tenant AND p.position = t.below
    WHERE t.tenant = :tenant AND t.above = :position)
  OR (r.subject_id = :me AND r.status = 'final'))
"""
FAN_OUT = 7


def people(count: int) -> Iterator[tuple[str, str, str]]:
    return (("acme", f"p{number}", f"at{number}") for number in range(count))


def tree(count: int) -> Iterator[tuple[str, str, str]]:
    for number in range(1, count):
        over = number
        while over:
            over = (over - 1) // FAN_OUT
            yield "acme", f"at{number}", f"at{over}"


def reviews(count: int, heads: int) -> Iterator[tuple[Any, ...]]:
    dice = random.Random(1)
    for number in range(count):
        of = f"p{dice.randrange(heads)}"
        yield "acme", f"r{number}", of, "p0", f"2026-H{number % 2 + 1}", number % 5, "final" if number % 3 else "draft"


def manager(heads: int) -> Person:
    """Somebody with two levels below: fifty-six people."""
    number = next(at for at in range(heads) if at * FAN_OUT**2 > heads // FAN_OUT**2)
    ups, at = [], number
    while True:
        ups.append(at)
        if at == 0:
            break
        at = (at - 1) // FAN_OUT
    tenant = Ref(type="Tenant", id="acme")
    chain = [
        Entity(
            ref=Ref(type="Position", id=f"acme/at{up}"), attributes={"tenant": tenant},
            parents=tuple(Ref(type="Position", id=f"acme/at{over}") for over in ups[place + 1 : place + 2]),
        )
        for place, up in enumerate(ups)
    ]  # fmt: skip
    attributes: dict[str, Any] = {"tenant": tenant, "name": "M", "active": True, "position": chain[0].ref}
    user = Entity(ref=Ref(type="User", id=f"acme/p{number}"), attributes=attributes, parents=())
    return Person(
        ref=user.ref, tenant="acme", name="M", active=True, attributes={}, entities=(user, *chain), revision=1
    )


def scoped(scratch: Path, person: Person, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    bundle = scratch / "policies"
    bundle.mkdir(exist_ok=True)
    for entry in resources.files("onbehalf.demo").joinpath("house").iterdir():
        if entry.name in ("reviews.cedar", "demo.cedarschema"):
            (bundle / entry.name).write_text(entry.read_text(encoding="utf-8"), encoding="utf-8")
    tool = house.replace_tool(action="readReview", rows=SHAPE)
    engine = CedarEngine.load(bundle, tools=[tool])
    layout = rows_table(SHAPE, LAYOUT, dict.fromkeys(ATTRIBUTES, True))
    scope = engine.scope("readReview", "Review", layout, dialect)
    caller = house.with_scopes(house.caller(person), "reviews.read")
    made = engine.predicate(scope, questions.about_tool(person, caller, tool, house.NOW))
    text = f"SELECT * FROM (\n{STATEMENT}\n) AS scoped WHERE {made.sql}"
    return text, dict(made.parameters)


def measure(run: Callable[[], Sequence[Any]], times: int = 15) -> tuple[float, int]:
    """Median milliseconds, and how many rows came."""
    took, found = [], 0
    for _ in range(times):
        begun = time.perf_counter()
        found = len(run())
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took), found


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--reviews", type=int, default=1_000_000)
    reader.add_argument("--people", type=int, default=100_000)
    reader.add_argument("--postgres", action="store_true")
    asked = reader.parse_args()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run = (_postgres if asked.postgres else _sqlite)(stack, scratch, asked)
        person = manager(asked.people)
        text, values = scoped(scratch, person, "postgres" if asked.postgres else "sqlite")
        number = person.ref.id.removeprefix("acme/p")
        own = {"tenant": "acme", "period": "2026-H1", "me": f"p{number}", "position": f"at{number}"}
        hand, expected = measure(lambda: run(BY_HAND, own))
        ours, found = measure(lambda: run(text, {"period": "2026-H1", **values}))
    sys.stdout.write(
        f"{asked.reviews:,} reviews, {asked.people:,} people: by hand {hand:.2f} ms, scoped {ours:.2f} ms, "
        f"{ours / hand:.2f} times; {found} rows, by hand {expected}\n"
    )
    return 0 if found == expected and ours <= 1.5 * hand else 1


def _sqlite(stack: ExitStack, scratch: Path, asked: argparse.Namespace) -> Callable[[str, dict[str, Any]], list[Any]]:
    base = sqlite3.connect(scratch / "hr.db")
    stack.callback(base.close)
    base.executescript(DDL)
    base.executemany("INSERT INTO people VALUES (?, ?, ?)", people(asked.people))
    base.executemany("INSERT INTO position_tree VALUES (?, ?, ?)", tree(asked.people))
    base.executemany("INSERT INTO reviews VALUES (?, ?, ?, ?, ?, ?, ?)", reviews(asked.reviews, asked.people))
    base.executescript(f"{INDEX}; CREATE INDEX people_at ON people (tenant, position); ANALYZE;")
    base.commit()

    def run(text: str, values: dict[str, Any]) -> list[Any]:
        lists = {key: orjson.dumps(value).decode() for key, value in values.items() if isinstance(value, list)}
        bound = {**values, **lists}
        return base.execute(text, bound).fetchall()

    return run


def _postgres(stack: ExitStack, _: Path, asked: argparse.Namespace) -> Callable[[str, dict[str, Any]], list[Any]]:
    import psycopg

    from postgres import server

    base = stack.enter_context(psycopg.connect(stack.enter_context(server()), autocommit=True))
    base.execute(DDL.encode())
    for table, rows in (
        ("people", people(asked.people)), ("position_tree", tree(asked.people)),
        ("reviews", reviews(asked.reviews, asked.people)),
    ):  # fmt: skip
        with base.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)
    base.execute(f"{INDEX}; CREATE INDEX people_at ON people (tenant, position); ANALYZE".encode())

    def run(text: str, values: dict[str, Any]) -> list[Any]:
        named = house.re.sub(r"(?<!:):([a-z_]+[0-9]*)", r"%(\1)s", text.replace("%", "%%"))
        return base.execute(named.encode(), values).fetchall()

    return run


if __name__ == "__main__":
    sys.exit(main())
