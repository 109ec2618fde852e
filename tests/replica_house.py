"""Two gateways of one resource, each a process with data of its own, that remember together in one database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from company import Company
from ports import free_port

__all__ = ["beside", "remembering", "served_twice"]

_STATE = '\n  state: {postgres: {dsn: "file:state.dsn", connections: 3, timeout_seconds: 4}}'


@contextmanager
def served_twice(here: Company, dsn: str) -> Iterator[Company]:
    """This gateway and another one, the latter of which is given; both run until the context ends."""
    remembering(here, dsn)
    with here.serving():
        there = beside(here)
        with there.serving():
            yield there


def remembering(here: Company, dsn: str) -> None:
    """Let it remember in this database."""
    (here.directory / "state.dsn").write_text(dsn, encoding="utf-8")
    here.edit("  limits: {call_seconds: 8}", f"  limits: {{call_seconds: 8}}{_STATE}")


def beside(here: Company) -> Company:
    """A second gateway of the resource of the first, with its keys and nothing else of its data."""
    directory = here.directory.parent / "there"
    shutil.copytree(here.directory, directory, ignore=shutil.ignore_patterns("data", "gateway.log"))
    shutil.copytree(here.directory / "data" / "keys", directory / "data" / "keys")
    gateway, admin = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    there = replace(here, directory=directory, gateway=gateway, admin=admin)
    for key, was, now in (("listen", here.gateway, gateway), ("admin", here.admin, admin)):
        there.edit(f'{key}: "{was.removeprefix("http://")}"', f'{key}: "{now.removeprefix("http://")}"')
    return there
