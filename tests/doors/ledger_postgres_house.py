"""A ledger in PostgreSQL for tests: made as `onbehalf db ledger` does, written by any number of replicas.

A server that can be killed and started again, and a wire that can be cut, are for tests of what breaks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from onbehalf.demo import postgres as own
from onbehalf.doors.ledger_erasable import Kind
from onbehalf.doors.ledger_erase import Erasing, size_of
from onbehalf.doors.ledger_keys import open_ledger_keys, read_shared_keys
from onbehalf.doors.ledger_postgres import Patience, PostgresLedger
from onbehalf.doors.ledger_postgres_erase import PostgresErasable
from onbehalf.doors.ledger_postgres_schema import schema_sql
from onbehalf.doors.ledger_postgres_session import Demands
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.doors.ledger_postgres_subjects import Eraser, PostgresSubjects
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_requests import Request, Requests
from onbehalf.doors.ledger_sealing import SubjectSealing
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, Json, Receipt, UnixTime
from ports import free_port

ORIGIN = "gateway.example/log"
QUICK = Patience(record=5, again=0.05, look=0.1, gone=0.5)
PASSWORD = "of a test"


def entry(number: int, kind: str = "denial", **facts: object) -> AuditEntry:
    call = f"call_{number:032x}"
    return AuditEntry(kind=kind, call=call, at=UnixTime(1000 + number), facts={"number": number, **facts})  # type: ignore[dict-item]  # plain JSON


def outcome(number: int, receipt: Receipt) -> AuditEntry:
    return entry(number, "outcome", intent={"index": receipt.index, "leaf": receipt.leaf}, outcome={"status": "done"})


def appended(ledger: PostgresLedger, *numbers: int, kind: str = "denial") -> list[Receipt]:
    async def append() -> list[Receipt]:
        return list(await asyncio.gather(*(ledger.append(entry(number, kind)) for number in numbers)))

    return asyncio.run(append())


class Record:
    """One record: its keys, and the DSNs of its owner, of a gateway, of who erases and of who changes its keys."""

    def __init__(self, path: Path, dsn: str, *, made: bool = False) -> None:
        """A new one, or one that another process `made`."""
        self.path, self.owner = path, dsn
        name = conninfo_to_dict(dsn)["dbname"]
        self.dsn = make_conninfo(dsn, user=f"gw_{name}", password=PASSWORD)
        self.eraser = make_conninfo(dsn, user=f"er_{name}", password=PASSWORD)
        self.rekeyer = make_conninfo(dsn, user=f"rk_{name}", password=PASSWORD)
        if not made:
            signer = open_ledger_keys(path / "keys", origin=ORIGIN).signer
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(schema_sql(signer).encode())
                for login, role in ((f"gw_{name}", "writer"), (f"er_{name}", "eraser"), (f"rk_{name}", "rekeyer")):
                    connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(login)))
                    create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
                    of = sql.Identifier(f"onbehalf_log_{role}")
                    connection.execute(create.format(sql.Identifier(login), sql.Literal(PASSWORD), of))
        self.keys = self.shared()

    def shared(self, *, dsn: str = "", eraser: Eraser | None = None) -> LedgerKeys:
        """The record's keys, as one process holds them."""
        people = PostgresSubjects(dsn or self.dsn, eraser=eraser)
        return read_shared_keys(self.path / "keys", origin=ORIGIN, people=people)

    def replica(
        self, name: str = "a", *, dsn: str = "", patience: Patience = QUICK, idle: float = 5.0,
        failpoint: Callable[[str], None] = lambda _: None, keys: LedgerKeys | None = None,
    ) -> PostgresLedger:  # fmt: skip
        """A replica with a folder of its own. The server of most tests syncs nothing, which is allowed for them."""
        (self.path / name).mkdir(exist_ok=True)
        return PostgresLedger.open(
            Demands(dsn=dsn or self.dsn, idle_seconds=idle, insecure_durability=True),
            keys=keys or self.shared(dsn=dsn), replica=self.path / name / "replica.json",
            now=lambda: UnixTime(5000), patience=patience,
            failpoint=failpoint,
        )  # fmt: skip

    @contextmanager
    def erasing(
        self, failpoint: Callable[[str], None] = lambda _: None, *, patience: Patience = QUICK
    ) -> Iterator[Erasing]:
        """What a command carries out erasures with."""
        eraser = Eraser(self.eraser)
        keys = self.shared(eraser=eraser)
        made = PostgresErasable(
            PostgresStore(self.dsn), eraser, writing=lambda: self.replica("eraser", keys=keys, patience=patience)
        )  # fmt: skip
        erasing = Erasing(made, sealing_of(keys), now=lambda: UnixTime(9_000), failpoint=failpoint)
        try:
            yield erasing
        finally:
            erasing.close()

    def erase(self) -> None:
        """What was asked for, carried out as a command does."""
        with self.erasing() as erasing:
            asyncio.run(_begun(erasing))

    def requests(self) -> Requests:
        of = sealing_of(self.shared(eraser=Eraser(self.eraser)))
        return Requests(of.store, of.wrapping)

    def asked(self, kind: Kind, *people: str, before: int = 0, number: int = 0) -> Request:
        """A request as the command writes it."""
        labels = [sealing_of(self.keys).wrapping.label(each) for each in people]
        said: dict[str, Json] = {"by": "root", "at": 5000, "from": size_of(PostgresStore(self.dsn))}
        if kind == "erase":
            said |= {"labels": [each.hex() for each in labels], "basis": "art. 17"}
        elif kind == "retain":
            said |= {"before": before, "basis": "over"}
        else:
            said |= {"whom": people[0], "reason": "case 7", "number": number}
        return self.requests().ask(kind, said, hold=labels if kind == "hold" else ())

    def reader(self) -> LedgerReader:
        return LedgerReader(PostgresStore(self.owner), keys=self.shared())  # which remember nothing

    def run(self, text: str) -> list[tuple[Any, ...]]:
        """What some SQL gives, run as the owner."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def backends(self) -> list[int]:
        """The server's processes that work for gateways."""
        user = conninfo_to_dict(self.dsn)["user"]
        return [row[0] for row in self.run(f"SELECT pid FROM pg_stat_activity WHERE usename = '{user}'")]

    def verified(self) -> int:
        """The size of the log, which holds."""
        reader = self.reader()
        try:
            report = reader.verify()
        finally:
            reader.close()
        assert report.ok, report.findings[:5]
        return report.size


async def _begun(erasing: Erasing) -> None:
    await erasing.begin()
    await erasing.carry_out()


def sealing_of(keys: LedgerKeys) -> SubjectSealing:
    assert isinstance(keys.sealer, SubjectSealing)
    return keys.sealer


class Wire:
    """A way to a server that can be cut: at once, or so that what is sent arrives and no answer comes back."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._to = (str(parts["host"]), int(str(parts["port"])))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, port=self._listening.getsockname()[1])
        self.open = True
        self.deaf = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections on both sides; new ones are refused while not `open`."""
        for pair in self._pairs:
            for each in pair:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._pairs = []

    def close(self) -> None:
        self.open = False
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self._listening.accept()
            except OSError:
                return
            if not self.open:
                inside.close()
                continue
            outside = socket.create_connection(self._to)
            self._pairs.append((inside, outside))
            for back, pair in ((False, (inside, outside)), (True, (outside, inside))):
                threading.Thread(target=self._carry, args=(*pair, back), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not (back and self.deaf):
                    sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Server:
    """A server of one's own that syncs what it commits, and can be killed and started again."""

    def __init__(self, place: Path, *, of: Server | None = None) -> None:
        """An empty one, or a standby of another."""
        programs = own.programs()
        assert programs is not None
        self._programs, self._place, self._whom = programs, place, own._whom()
        if self._whom:
            os.chown(place, self._whom["user"], self._whom["group"])
        if of is None:
            own._initialised(programs, place, PASSWORD, self._whom)
        else:
            subprocess.run(
                (programs / "pg_basebackup", "-D", place / "data", "-R", "-X", "stream", "-c", "fast", "-d", of.dsn),
                check=True, capture_output=True, timeout=60, cwd=place, **self._whom,
            )  # fmt: skip
        self.port = free_port()
        self.dsn = make_conninfo(
            host="127.0.0.1", port=self.port, user="tester", password=PASSWORD, dbname="postgres", connect_timeout=5
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again where what was killed is still ending."""
        until = time.monotonic() + 60
        settings = [part for each in (*own._SETTINGS, f"port={self.port}") for part in ("-c", each)]
        while True:
            with (self._place / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    (self._programs / "postgres", "-D", self._place / "data", *settings), stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, cwd=self._place, **self._whom,
                )  # fmt: skip
            if own._ready(self.dsn, self.process):
                return
            self.stop()
            assert time.monotonic() < until, (self._place / "log").read_text(errors="replace")[-2000:]

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(60)


@contextmanager
def durable_server(*, standby_of: Server | None = None) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as place:
        server = Server(Path(place), of=standby_of)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)


def wait_for(holds: Callable[[], object], what: str, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"{what} did not come"
        time.sleep(0.02)
