"""A small company around a gateway: issuer, MCP server, database and files, cheap enough to have one per test.

The issuer and the MCP server (`Desk`) are threads of the test; the gateway is built in the test's process (`building`)
or served by a process of its own (`serving`). Ports are always free ones.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2

from doors.issuer_house import Issuer, issuing
from onbehalf.app import building
from onbehalf.cli.main import run
from onbehalf.demo import run as demo
from onbehalf.model import Json, Presented, ToolRequest
from ports import free_port

MODERN = "2026-07-28"
CONFIG = """
gateway:
  resource: "@GATEWAY@/mcp"
  listen: "@LISTEN@"
  admin: "@ADMIN@"
  limits: {call_seconds: 8}
issuers:
  - {issuer: "@ISSUER@", tenant: acme, algorithms: [ES256]}
upstreams:
  notes:
    kind: sql
    database: notes.db
    tables: {notes: tenant}
    tools:
      notes_list:
        action: readNote
        scopes: [notes.read]
        statement: SELECT tenant, id, owner_id, text FROM notes WHERE tenant = :tenant_id ORDER BY id
        bound: {tenant_id: {tenant: true}}
        rows: {type: Note, attributes: {owner: owner_id User}}
  desk:
    kind: mcp
    url: "@DESK@/mcp"
    protocol: "2026-07-28"
    tools:
      desk_read: {action: readDesk}
      desk_write: {action: writeDesk, writes: true, scopes: [desk.write], once_seconds: 0}
"""
PEOPLE = """
tenants:
  acme:
    groups: {staff: []}
    people:
      alice: {name: Alice Example, groups: [staff], logins: [{issuer: "@ISSUER@", subject: alice-at-login}]}
      bob: {name: Bob Example, logins: [{issuer: "@ISSUER@", subject: bob-at-login}]}
"""
SCHEMA = """
entity Note { tenant: Tenant, owner: User };
action readNote appliesTo { principal: User, resource: [Tool, Note], context: Context };
action readDesk, writeDesk appliesTo { principal: User, resource: [Tool], context: Context };
"""
POLICIES = """
@id("staff") @doc("Staff use the desk and notes.") @remedy("Ask for the group staff.")
permit (principal in Group::"acme/staff", action, resource is Tool);
@id("own") @doc("Everyone reads their own notes.") @remedy("Ask the owner.")
permit (principal, action == Action::"readNote", resource is Note) when { resource.owner == principal };
"""
NOTES = """
CREATE TABLE notes (tenant TEXT, id INTEGER, owner_id TEXT, text TEXT);
INSERT INTO notes VALUES ('acme', 1, 'alice', 'mine'), ('acme', 2, 'bob', 'his');
"""
TOOL_SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}}


class Desk:
    """An MCP server that counts what it is asked to do. `pause` is how long a call takes, in seconds."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.pause = 0.0
        self.seen: list[tuple[str, Any]] = []
        self.tokens: list[str] = []
        self.arrived, self.go_on = threading.Event(), threading.Event()
        self.hold = False
        self.descriptions = {"desk_read": "Reads.", "desk_write": "Writes."}
        self.schema: dict[str, Any] = TOOL_SCHEMA
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> Desk:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.go_on.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, message: Any, token: str) -> Any:
        if message["method"] == "tools/list":
            tools = [
                {"name": name, "description": text, "inputSchema": self.schema}
                for name, text in self.descriptions.items()
            ]
            return {"tools": tools}
        self.seen.append((message["params"]["name"], _claims(token)))
        self.tokens.append(token)
        self.arrived.set()
        if self.hold:
            self.go_on.wait(20)
        time.sleep(self.pause)
        return {"content": [{"type": "text", "text": "done"}]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128


def _handler(desk: Desk) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            result = {**desk.answer(message, self.headers.get("Txn-Token", "")), "resultType": "complete"}
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _claims(token: str) -> dict[str, Any]:
    part = [*token.split("."), ""][1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) or b"{}"))


@dataclass(kw_only=True)
class Company:
    """One gateway's surroundings: `config` is its file, `issuer` and `desk` answer as told."""

    directory: Path
    issuer: Issuer
    desk: Desk
    gateway: str
    admin: str
    log: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.directory / "onbehalf.yaml"

    @property
    def ledger(self) -> Path:
        return self.directory / "data" / "ledger.db"

    def edit(self, old: str, new: str, *, name: str = "onbehalf.yaml") -> None:
        """Change one of the files; `old` must be there."""
        path = self.directory / name
        text = path.read_text(encoding="utf-8")
        assert old in text, old
        path.write_text(text.replace(old, new), encoding="utf-8")

    def token(self, subject: str = "alice-at-login", *, scope: str = "notes.read desk.write", **changes: Any) -> str:
        now = int(time.time())
        good = {"aud": f"{self.gateway}/mcp", "sub": subject, "iat": now - 5, "exp": now + 600, "scope": scope}
        return self.issuer.token(**{**good, **changes})

    def asked(self, *calls: tuple[str, str, dict[str, Json]], ago: int = 0) -> None:
        """Calls of a gateway in this process, one after the other, with tokens of so many seconds ago.

        Of each its subject, tool and arguments."""
        issued = int(time.time()) - ago - 5

        async def each() -> None:
            async with building(self.config) as app:
                for subject, tool, arguments in calls:
                    request = ToolRequest(tool=tool, arguments=arguments, protocol=MODERN, agent="tests/1")
                    token = self.token(subject, iat=issued, exp=issued + 600)
                    await app.gateway.call(Presented(token=token), request)

        asyncio.run(each())

    def notes_listed(self, *subjects: str, ago: int = 0) -> None:
        """A call of each, for the notes that they may see."""
        self.asked(*((subject, "notes_list", {}) for subject in subjects), ago=ago)

    def audit(self, *arguments: str | Path) -> dict[str, Any]:
        """What a command of `onbehalf audit` says, as JSON."""
        answer = said("audit", *arguments, "-c", self.config, "--json")
        assert answer.code == 0, answer.err + answer.out
        found: dict[str, Any] = json.loads(answer.out)
        return found

    def copied(self, directory: Path) -> Company:
        """The same with a copy of all files, which may be damaged."""
        shutil.copytree(self.directory, directory)
        return replace(self, directory=directory)

    def post(self, method: str, *, token: str | None = None, timeout: float = 20, **params: Any) -> httpx2.Response:
        """One MCP request of 2026-07-28 to the served gateway."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
        }
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": method,
            "Authorization": f"Bearer {token or self.token()}",
            **({"Mcp-Name": params["name"]} if "name" in params else {}),
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}}
        return httpx2.post(f"{self.gateway}/mcp", json=body, headers=headers, timeout=timeout, trust_env=False)

    def call(self, tool: str, *, token: str | None = None, timeout: float = 20, **arguments: Any) -> Any:
        """One tool call to the served gateway: its result, or its error."""
        answer = self.post("tools/call", token=token, timeout=timeout, name=tool, arguments=arguments).json()
        return answer.get("result", answer.get("error"))

    def tools(self, *, token: str | None = None) -> set[str]:
        """What the served gateway lists."""
        return {tool["name"] for tool in self.post("tools/list", token=token).json()["result"]["tools"]}

    def get(self, path: str, *, public: bool = False) -> httpx2.Response:
        return httpx2.get(f"{self.gateway if public else self.admin}{path}", timeout=5, trust_env=False)

    def served_log(self) -> str:
        return (self.directory / "gateway.log").read_text(encoding="utf-8", errors="replace")

    @contextmanager
    def serving(self, *, status: int = 200) -> Iterator[subprocess.Popen[str]]:
        """`onbehalf serve` in a process of its own; entered once /readyz says `status`."""
        with demo.serve_gateway(self.config) as process:
            wait_for(lambda: self._ready(process) == status, what=f"/readyz {status}", seconds=90, said=self.served_log)
            yield process

    def _ready(self, process: subprocess.Popen[str]) -> int:
        assert process.poll() is None, self.served_log()
        try:
            return self.get("/readyz").status_code
        except httpx2.TransportError:
            return 0


@contextmanager
def company(directory: Path, *, desk: bool = True) -> Iterator[Company]:
    """Everything around a gateway, its files written; the MCP server runs unless `desk` is false."""
    with issuing() as issuer:
        at_desk = Desk()
        if desk:
            at_desk.start()
        gateway, admin = (free_port() for _ in range(2))
        made = Company(
            directory=directory, issuer=issuer, desk=at_desk,
            gateway=f"http://127.0.0.1:{gateway}", admin=f"http://127.0.0.1:{admin}",
        )  # fmt: skip
        _write(made)
        try:
            yield made
        finally:
            at_desk.stop()


def _write(made: Company) -> None:
    (made.directory / "policies").mkdir(parents=True)
    marks = {
        "@GATEWAY@": made.gateway, "@LISTEN@": made.gateway.removeprefix("http://"), "@ISSUER@": made.issuer.url,
        "@ADMIN@": made.admin.removeprefix("http://"), "@DESK@": made.desk.url,
    }  # fmt: skip
    texts = {"onbehalf.yaml": CONFIG, "people.yaml": PEOPLE}
    texts |= {"policies/own.cedar": POLICIES, "policies/own.cedarschema": SCHEMA}
    for name, text in texts.items():
        for mark, value in marks.items():
            text = text.replace(mark, value)
        (made.directory / name).write_text(text, encoding="utf-8")
    with closing(sqlite3.connect(made.directory / "notes.db")) as base:
        base.executescript(NOTES)


def wait_for(what_holds: Any, *, what: str, seconds: float = 20, said: Any = lambda: "") -> None:
    """Wait until it holds, asking often."""
    until = time.monotonic() + seconds
    while not what_holds():
        assert time.monotonic() < until, f"{what} did not come within {seconds} s: {said()}"
        time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


def said(*arguments: str | Path) -> Said:
    """The command as `onbehalf` runs it, within this process: quick, but nothing is left of the process to look at."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    code: Any = 0
    with (
        mock.patch.object(sys, "argv", ["onbehalf", *map(str, arguments)]), mock.patch.dict(os.environ, _ENV),
        contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
    ):  # fmt: skip
        try:
            run()
        except SystemExit as end:
            code = end.code or 0
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return Said(code=int(code), out=texts[0], err=texts[1])


_ENV = {"NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"}


def onbehalf(*arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> Any:
    """The command as a process; its code, stdout and stderr."""
    return subprocess.run(
        [sys.executable, "-m", "onbehalf.cli.main", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False, cwd=cwd,
        env={**os.environ, **_ENV, **(env or {})},
    )  # fmt: skip


__all__ = ["Company", "Desk", "Said", "company", "free_port", "onbehalf", "said", "wait_for"]
