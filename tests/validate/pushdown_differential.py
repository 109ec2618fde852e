"""Random policies, people and rows: what the engine allows one by one, and what the predicate lets through.

    python tests/validate/pushdown_differential.py --decisions 200000 [--postgres] [--seed 0]

Says how many decisions were compared, and shows the first policies on which the two differ; then its exit code is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

from postgres import server
from validate import pushdown_house as house

Answer = Callable[[house.World, house.Predicate], list[int]]


@dataclass(slots=True)
class Compared:
    """What was compared so far, and the mismatches in words."""

    sets: int = 0
    refused: int = 0
    decisions: int = 0
    allowed: int = 0
    wrong: list[str] = field(default_factory=list)


def compare(found: Compared, seed: int, directory: Path, dialect: house.Dialect, answer: Answer) -> None:
    """One random set of policies over one random company, for three of its people; every other set in a namespace."""
    chance = random.Random(seed)
    text = house.policies(chance)
    tool, layout = house.TOOL, house.LAYOUT
    if seed % 2:
        text, tool, layout = house.spaced(text), house.SPACED_TOOL, house.SPACED_LAYOUT
    engine = house.loaded(directory / str(seed), text, tool)
    if engine is None:
        return
    world = house.World(chance)
    people = [*house.people_of(world)]
    try:
        house.predicate(engine, people[0], dialect, tool, layout)
    except house.PolicyInvalid:
        found.refused += 1
        return
    found.sets += 1
    for person in chance.sample(people, 3):
        allowed = house.by_engine(engine, world, person, tool)
        let_through = answer(world, house.predicate(engine, person, dialect, tool, layout))
        found.decisions += len(world.rows)
        found.allowed += len(allowed)
        if allowed != let_through:
            rows = [world.rows[at] for at in sorted(set(allowed) ^ set(let_through))]
            found.wrong.append(
                f"seed {seed}, {person.ref.id}:\n{text}\nengine {allowed}, SQL {let_through}\n{rows[:3]}"
            )


@contextmanager
def sqlite() -> Iterator[Answer]:
    kept: list[tuple[house.World, house.sqlite3.Connection]] = []

    def answer(world: house.World, made: house.Predicate) -> list[int]:
        if not kept or kept[0][0] is not world:
            kept[:] = [(world, house.in_sqlite(world))]
        return house.by_sqlite(kept[0][1], made)

    yield answer


@contextmanager
def postgres(dsn: str) -> Iterator[Answer]:
    kept: list[house.World] = []
    with psycopg.connect(dsn, autocommit=True) as connection:

        def answer(world: house.World, made: house.Predicate) -> list[int]:
            if not kept or kept[0] is not world:
                kept[:] = [world]
                house.in_postgres(connection, world)
            return house.by_postgres(connection, made)

        yield answer


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--decisions", type=int, default=200_000)
    reader.add_argument("--seed", type=int, default=0)
    reader.add_argument("--postgres", action="store_true")
    asked = reader.parse_args()
    found, seed = Compared(), asked.seed
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        answer = stack.enter_context(postgres(stack.enter_context(server())) if asked.postgres else sqlite())
        while found.decisions < asked.decisions:
            compare(found, seed, scratch, "postgres" if asked.postgres else "sqlite", answer)
            seed += 1
    sys.stdout.write(
        f"{found.decisions} decisions on {found.sets} sets of policies, {found.allowed} allowed, "
        f"{len(found.wrong)} wrong\n{chr(10).join(found.wrong[:3])}\n"
    )
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
